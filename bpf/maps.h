/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every map: key, value, who writes, who reads, why this size. */
#ifndef WEIR_MAPS_H
#define WEIR_MAPS_H

#include "abi.h"

/*
 * The flow table. Written by the programs; read, and cleared of what has ended,
 * by user space.
 *
 * Not an LRU: an LRU drops entries without telling anybody, counters included,
 * and a flood of first packets would push out the connections that matter. Here
 * a full table refuses new flows, and TALLY_TABLE_FULL counts their packets.
 *
 * User space sets max_entries before loading (--max-flows; by default 262,144,
 * the kernel's own default for connection tracking, and less on small hosts).
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(max_entries, 262144);
} flows SEC(".maps");

/*
 * First fragments' ports, for the later ones. Programs only. An LRU, because
 * nobody says when a datagram is complete; what falls out shows up in
 * TALLY_FRAGMENT_UNJOINED. 8,192 is more than the datagrams that the kernel's
 * own reassembly holds in its default 4 MiB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
	__uint(max_entries, 8192);
} fragments SEC(".maps");

/*
 * Packets that are in no flow, by interface, hook and reason. Written by the
 * programs, read by user space. 16,384 is room for 1,000 interfaces with both
 * hooks and eight reasons each.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct tally_key);
	__type(value, struct tally);
	__uint(max_entries, 16384);
} tallies SEC(".maps");

/*
 * Events, from the programs to user space. 8 MiB hold 100,000 openings: what
 * arrives while the reader sleeps its 5 ms, many times over. It is mapped
 * twice into the reader, and counts there as 16 MiB resident.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 * 1024 * 1024);
} events SEC(".maps");

/*
 * The rules of redirects in their user's own words (JSON, filled up with zeros), by
 * their numbers. The programs have no use for it: it is a map so that it lives as
 * long as what follows from it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, 4);
	__uint(value_size, 4096);
	__uint(max_entries, 4096);
} redirect_texts SEC(".maps");

/*
 * Payload, from the programs to user space (`weir audit`; else a page). Apart
 * from `events`, so that openings and ends are told however much is said.
 * User space sets max_entries before loading.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 * 1024 * 1024);
} payloads SEC(".maps");

/*
 * What user space wants of flows that it gets payload of: an entry where it
 * wants less than all. Written by user space, which also takes it out when the
 * flow ends; read by the programs. As many as there are flows, made one by one:
 * most flows never have one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct capture);
	__uint(max_entries, 262144);
} captures SEC(".maps");

/*
 * Redirects. The maps from here to `forged_sources` are written by user space and
 * read by the programs; each has room for 4,096 rules over a host of 1,000 containers.
 */

/* By the address that a client asks: which rules are about it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u8[16]);
	__type(value, struct redirect_set);
	__uint(max_entries, 16384);
} redirects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct redirect_rule);
	__uint(max_entries, 16384);
} redirect_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct redirect_target);
	__uint(max_entries, 16384);
} redirect_targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct redirect_client);
	__type(value, __u8);
	__uint(max_entries, 65536);
} redirect_clients SEC(".maps");

/* Beside `redirect_clients`: a container may ask in another name than it will speak in
 * (from an IPv6 address of the link, or its first IPv4 one), and the host for whom it forwards. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct redirect_asker);
	__type(value, __u8);
	__uint(max_entries, 65536);
} redirect_askers SEC(".maps");

/* Every address of every container. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u8[16]);
	__type(value, struct place);
	__uint(max_entries, 16384);
} endpoints SEC(".maps");

/* By ifindex: where redirects are done. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct interface_place);
	__uint(max_entries, 16384);
} interfaces SEC(".maps");

/* Addresses that no one has: the container to which the host's own packets go
 * (ifindex 0: none). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u8[16]);
	__type(value, struct place);
	__uint(max_entries, 16384);
} virtual_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct forged_source);
	__type(value, __u8);
	__uint(max_entries, 16384);
} forged_sources SEC(".maps");

/* By the first of a rule's ids. Made by user space, one for each rule; counted by the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct redirect_counters);
	__uint(max_entries, 16384);
} redirect_counters SEC(".maps");

/*
 * Bytes of rules, by their places, packet by packet: hence an array, which is found without
 * a call, and one for each processor, for which they need not wait for each other. User space
 * gives places to rules, sets the bytes of a new one to 0, and adds up the processors'.
 * 64 KiB a processor.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct rule_bytes);
	__uint(max_entries, RULE_PLACES);
} rule_bytes SEC(".maps");

/* By a rule's number: bytes that were counted by programs of other versions. User space only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, RULE_PLACES);
} rule_bytes_before SEC(".maps");

/*
 * Translated connections: two entries each. Written by the programs; user space
 * removes them with their flow. Like `flows` it never evicts: a connection for
 * which there is no room is refused, and counted. User space makes it twice as
 * large as `flows` when there are redirects.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct translation);
	__uint(max_entries, 1);
} translations SEC(".maps");

/*
 * Flows that began while nobody kept the table: see tend.h. Programs only. As many
 * as the table has entries (user space sets it).
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct flow_key);
	__uint(max_entries, 1);
} tended SEC(".maps");

/* When a process said last that it keeps the table, CLOCK_MONOTONIC. Written by user space. */
__u64 keeper_ns = 0;

/* Since when somebody reads `payloads`, CLOCK_MONOTONIC; 0: nobody does, and nothing is copied.
 * Written by user space. */
__u64 payload_since_ns = 0;

/* The place in `tended` that is next. */
__u32 tended_next = 0;

/* Written by the programs, read by user space through its memory map. */
struct kernel_losses losses = {};

/* 1: the reader of `events` is about to sleep and wants to be woken by the next
 * record. Set by user space, cleared by the program that wakes it. */
__u32 reader_sleeps = 0;

/* The same for the reader of `payloads`; 2: it will look again soon by itself, and
 * wants to be woken before that only if the ring fills. */
__u32 payload_reader_sleeps = 0;

#endif
