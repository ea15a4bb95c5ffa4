// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * TC at the host side of a container's veth, both directions; or at any other
 * interface that the user names. It counts, and lets the next program run; with
 * `config.redirect` it also translates what redirect rules are about.
 */
#include <stdbool.h>
#include <stddef.h>
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "abi.h"
#include "config.h"
#include "maps.h"
#include "tally.h"
#include "packet.h"
#include "emit.h"
#include "payload.h"
#include "held.h"
#include "flow.h"
#include "redirect.h"
#include "neighbor.h"
#include "shortcut.h"
#include "tend.h"

/* Redirects are done between containers, whose devices are Ethernet. */
#define REDIRECTS(ethernet) (config.redirect && (ethernet))

/* An untranslated packet leaves. */
static __always_inline int pass_on(struct __sk_buff *skb, struct flow *flow, const struct packet *packet, __u64 owner)
{
	__u32 receiver = shortcut_taken(flow, packet, owner);

	return receiver ? redirect_to_peer(skb, flow, packet, receiver) : NEXT_PROGRAM;
}

/* A counted packet leaves: translated at this hook before it was counted, or now, or not. */
static __always_inline int go_on(struct __sk_buff *skb, __u8 hook, struct flow *flow, const struct packet *packet,
				 __u64 owner, struct decision *decision)
{
	bool to_client = flow->edge[WAY_TO_CLIENT] == owner && packet->source != flow->initiator;
	int again;

	if (!decision && !to_client)
		return pass_on(skb, flow, packet, owner);
	if (!decision) {
		decision = decision_of_cpu();
		if (!decision)
			return DROP;
		decision->translated = 0;
	}
	if (!decision->translated && (to_client || packet->quote_offset)) {
		again = packet->quote_offset ? 0 : redirect_leave_again(skb, packet, flow, decision);
		if (again < 0)
			return DROP;
		if (!again) {
			decision->packet = *packet;
			if (packet->quote_offset ? redirect_error(skb, hook, WAY_TO_CLIENT) : redirect_leave(skb))
				return DROP;
		}
	}
	if (decision->translated)
		return redirect_deliver(skb, flow, packet, decision);
	return pass_on(skb, flow, packet, owner);
}

static __always_inline int observe(struct __sk_buff *skb, __u8 hook, bool ethernet)
{
	struct packet packet = { .length_bytes = skb->len };
	__u64 owner = flow_point_owner(skb, hook);
	struct decision *decision = NULL;
	struct flow *flow = NULL;
	int result;

	if (REDIRECTS(ethernet) && hook == HOOK_INGRESS && redirect_has_turned(skb))
		return NEXT_PROGRAM;
	result = packet_parse(skb, &packet, ethernet);
	if (result)
		goto not_in_a_flow;

	if (REDIRECTS(ethernet) && redirect_again(skb, &packet, owner, &decision, &flow))
		goto refused;
	if (!flow)
		flow = bpf_map_lookup_elem(&flows, &packet.key);
	if (REDIRECTS(ethernet) && !decision &&
	    (!flow || packet.quote_offset || redirect_concerns(flow, &packet, owner))) {
		/* What comes back is whatever it may be: the verifier walks what follows once
		 * for all such packets. */
		decision = decision_of_cpu();
		if (!decision)
			goto refused;
		decision->packet = packet;
		result = packet.quote_offset ? redirect_error(skb, hook, WAY_TO_SERVER) : redirect_enter(skb, hook);
		if (result)
			goto refused;
		packet = decision->packet;
		flow = bpf_map_lookup_elem(&flows, &packet.key);
		/* Its flow was taken out a moment ago. */
		if (!flow && decision->translated && !packet.quote_offset)
			goto refused;
	}
	if (!flow) {
		result = flow_open(skb, &packet, hook, NULL);
		if (result && result != -EEXIST /* another CPU was faster: the entry is there */) {
			result = TALLY_TABLE_FULL;
			goto not_in_a_flow;
		}
		flow = bpf_map_lookup_elem(&flows, &packet.key);
		if (!flow) {
			/* User space took it out at this very moment. */
			result = TALLY_TABLE_FULL;
			goto not_in_a_flow;
		}
		if (REDIRECTS(ethernet))
			shortcut_begin(skb, hook, flow, &packet);
	} else if (flow->state >= FLOW_CLOSED && (packet.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
		flow_reopen(skb, flow, &packet, hook, NULL);
		if (REDIRECTS(ethernet))
			shortcut_begin(skb, hook, flow, &packet);
	}
	flow_count(skb, flow, &packet, hook);
	if (keeper_is_gone() && tend_begins(flow, &packet, owner))
		tend_remember(&packet.key);
	if (!REDIRECTS(ethernet))
		return NEXT_PROGRAM;
	result = go_on(skb, hook, flow, &packet, owner, decision);
	/* It came as far as here, and stands in its flow as well. */
	if (result == DROP)
		tally_count(skb, hook, TALLY_REDIRECT_REFUSED);
	return result;

refused:
	tend_make_room();
	tally_count(skb, hook, TALLY_REDIRECT_REFUSED);
	return DROP;

not_in_a_flow:
	if (result == TALLY_TABLE_FULL)
		tend_make_room();
	tally_count(skb, hook, result);
	if (REDIRECTS(ethernet) && (result == TALLY_ARP || result == TALLY_NEIGHBOR_DISCOVERY))
		return neighbor_answer(skb, hook);
	return NEXT_PROGRAM;
}

SEC("tc")
int weir_ingress(struct __sk_buff *skb)
{
	return observe(skb, HOOK_INGRESS, true);
}

SEC("tc")
int weir_egress(struct __sk_buff *skb)
{
	return observe(skb, HOOK_EGRESS, true);
}

/* For devices without a link layer (tun, WireGuard, IP tunnels). */
SEC("tc")
int weir_ingress_ip(struct __sk_buff *skb)
{
	return observe(skb, HOOK_INGRESS, false);
}

SEC("tc")
int weir_egress_ip(struct __sk_buff *skb)
{
	return observe(skb, HOOK_EGRESS, false);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
