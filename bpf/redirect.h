/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Redirects on a packet's way: which translation is its own, and how it leaves. */
#ifndef WEIR_REDIRECT_H
#define WEIR_REDIRECT_H

#include "flow.h"
#include "nat.h"
#include "connect.h"

/* TCX_NEXT (6.6) and TC_ACT_UNSPEC have the same number: go on. */
#define NEXT_PROGRAM -1
/* As TCX_DROP and TC_ACT_SHOT. */
#define DROP 2

/* enum of <linux/if_packet.h>: addressed to this host. */
#define PACKET_HOST 0

/*
 * How a packet goes on. Not the translation that says so, and never a constant: what
 * follows is the same for all packets, and the verifier shall see it that way.
 */
struct redirection {
	__u32 delivery; /* enum delivery */
	__u32 ifindex;
	__u32 translated; /* 1: at this hook */
	__u32 refused;	  /* 1: it must not go on */
};

static __always_inline void redirect_note(struct redirection *redirection, const struct translation *way)
{
	redirection->delivery = way->delivery;
	redirection->ifindex = way->ifindex;
	redirection->translated = 1 | zero;
}

/* Whether the packet of a known flow may begin another one, or be of another one. */
static __always_inline bool redirect_concerns(const struct flow *flow, const struct packet *packet, __u64 owner)
{
	return flow->superseded || flow->state == FLOW_NEW || flow->state >= FLOW_CLOSED ||
	       decide_is_foreign(flow, packet, owner);
}

/*
 * A packet whose flow is unknown, or may be another one than it seems: if it is of
 * a translated flow, that one's entry, and the packet named after it; translated,
 * if this is the edge. Else the entry that was found, if any.
 */
static __always_inline struct flow *redirect_toward_server(struct __sk_buff *skb, struct packet *packet, __u8 hook,
							   struct flow *flow, struct redirection *redirection)
{
	__u64 owner = flow_point_owner(skb, hook);
	struct decision *decision;
	struct flow *translated;
	struct translation *way;

	if (decide_may_begin(flow, packet, owner)) {
		decision = decision_of_cpu();
		if (decision)
			decision->packet = *packet;
		if (!decision || connect_begin(skb, hook) >= 0) {
			redirection->refused = 1;
			return NULL;
		}
	}
	/* A flow that is there, and is not told otherwise, is what it seems: its name may
	 * also be what the client of another translated flow sees. */
	if (flow && !flow->superseded && !decide_is_foreign(flow, packet, owner))
		return flow;
	way = bpf_map_lookup_elem(&translations, &packet->key);
	if (!way)
		return flow;
	translated = bpf_map_lookup_elem(&flows, &way->other);
	if (!translated)
		return flow;
	/* Elsewhere on its way the packet is not touched, but known for what it is. */
	if (way->edge == owner && packet->source == way->sender) {
		if (nat_rewrite(skb, packet, way)) {
			redirection->refused = 1;
			return NULL;
		}
		redirect_note(redirection, way);
	}
	packet->source = packet->source == way->sender ? way->other_sender : !way->other_sender;
	packet->key = way->other;
	return translated;
}

/* A packet of a translated flow, at the edge where its client's answers are translated. */
static __always_inline void redirect_toward_client(struct __sk_buff *skb, struct packet *packet,
						   struct redirection *redirection)
{
	struct translation *way;

	packet->key.way = WAY_TO_CLIENT;
	way = bpf_map_lookup_elem(&translations, &packet->key);
	if (!way)
		return;
	if (nat_rewrite(skb, packet, way))
		redirection->refused = 1;
	redirect_note(redirection, way);
}

/* How a translated packet leaves its edge. */
static __always_inline int redirect_deliver(struct __sk_buff *skb, struct flow *flow, const struct packet *packet,
					    const struct redirection *redirection)
{
	switch (redirection->delivery) {
	case DELIVERY_EGRESS:
		return bpf_redirect(redirection->ifindex, 0);
	case DELIVERY_INGRESS:
		return bpf_redirect(redirection->ifindex, BPF_F_INGRESS);
	case DELIVERY_PEER:
		flow_count_delivered(flow, packet, place_edge(redirection->ifindex, HOOK_EGRESS));
		/* At this end of the veth it was addressed to somebody else. */
		bpf_skb_change_type(skb, PACKET_HOST);
		return bpf_redirect_peer(redirection->ifindex, 0);
	}
	return NEXT_PROGRAM;
}

#endif
