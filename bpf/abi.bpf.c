// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Never loaded. One global for each shared struct and enum, so that the BTF of
 * this object carries them all and user space gets its types from it.
 */
#include <linux/bpf.h>
#include "abi.h"

struct event_open abi_event_open;
struct event_reopen abi_event_reopen;
struct event_close abi_event_close;
struct event_packet abi_event_packet;
struct event_dns abi_event_dns;
struct event_payload abi_event_payload;
struct capture abi_capture;
struct tally_key abi_tally_key;
struct tally abi_tally;
struct kernel_losses abi_kernel_losses;
struct config abi_config;
struct fragment_key abi_fragment_key;
struct fragment abi_fragment;
struct redirect_set abi_redirect_set;
struct redirect_rule abi_redirect_rule;
struct redirect_target abi_redirect_target;
struct redirect_client abi_redirect_client;
struct redirect_asker abi_redirect_asker;
struct place abi_place;
struct interface_place abi_interface_place;
struct forged_source abi_forged_source;
struct redirect_counters abi_redirect_counters;
struct rule_bytes abi_rule_bytes;
struct translation abi_translation;
enum hook abi_hook;
enum flow_state abi_flow_state;
enum capture_state abi_capture_state;
enum event_kind abi_event_kind;
enum tally_reason abi_tally_reason;
enum refusal abi_refusal;
enum way abi_way;
enum delivery abi_delivery;
