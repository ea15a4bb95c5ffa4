/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Redirects on a packet's way: which translation is its own, and how it leaves. */
#ifndef WEIR_REDIRECT_H
#define WEIR_REDIRECT_H

#include "flow.h"
#include "nat.h"
#include "connect.h"
#include "nat_error.h"
#include "recent.h"

/* TCX_NEXT (6.6) and TC_ACT_UNSPEC have the same number: go on. */
#define NEXT_PROGRAM -1
/* As TCX_DROP and TC_ACT_SHOT. */
#define DROP 2

/* enum of <linux/if_packet.h>: addressed to this host. */
#define PACKET_HOST 0

/*
 * Of packets that come in again at the interface where they went out, so that the program
 * there tells them from the container's own. Nothing that a container sends has a mark:
 * the kernel takes it off between namespaces.
 */
#define MARK_TURNED 0x77656972

/* Whether a packet at ingress has been translated and counted at egress. From here on it
 * is as if the container had sent it. */
static __always_inline bool redirect_has_turned(struct __sk_buff *skb)
{
	if (skb->mark != MARK_TURNED)
		return false;
	skb->mark = 0;
	return true;
}

/* Whether the packet of a known flow may begin another one, or be of another one. As cheap
 * as it can be told: decide_may_begin() looks closer. */
static __always_inline bool redirect_concerns(const struct flow *flow, const struct packet *packet, __u64 owner)
{
	if (flow->superseded || decide_is_foreign(flow, packet, owner))
		return true;
	if (flow->state != FLOW_NEW && flow->state < FLOW_CLOSED)
		return false;
	return packet->key.protocol != PROTOCOL_TCP || (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline void redirect_note(struct decision *decision, const struct translation *way)
{
	decision->translated = 1;
	decision->delivery = way->delivery;
	decision->ifindex = way->ifindex;
}

/* On its way to a server an error has the name that the server sees. */
static __always_inline void redirect_name_error(struct decision *decision, const struct translation *way)
{
	struct flow_key *key = &decision->packet.key;
	__u32 source = decision->packet.source & 1;
	const __u8 *sender = source ? key->address[1] : key->address[0];

	/* The quote's receiver is who sends this way, unless it is a router that tells. */
	if (nat_error_turns(way) || address_equal(sender, decision->quote.source & 1 ? decision->quote.key.address[0]
										     : decision->quote.key.address[1]))
		sender = way->source;
	__builtin_memcpy(decision->ip.source, sender, sizeof(decision->ip.source));
	__builtin_memcpy(decision->ip.destination, way->destination, sizeof(decision->ip.destination));
	decision->ip.protocol = key->protocol;
	decision->ports.source = decision->ports.destination = key->port[0];
	decision->ports.icmp_type = key->icmp_type;
	packet_key_set(&decision->packet, &decision->ip, &decision->ports);
}

/*
 * The ICMP error in `decisions`, if this is the edge of the translation of what it
 * quotes, and it goes that way. Not 0: it could not be done.
 */
__noinline int redirect_error(struct __sk_buff *skb, __u32 hook, __u32 way_number)
{
	struct decision *decision = decision_of_cpu();
	struct translation *way;

	if (!config.redirect || !decision)
		return -1;
	decision->translated = 0;
	__builtin_memset(&decision->quote, 0, sizeof(decision->quote));
	if (packet_parse_quote(skb, &decision->quote, decision->packet.quote_offset, decision->packet.ipv6))
		return 0;
	decision->quote.key.way = way_number;
	way = bpf_map_lookup_elem(&translations, &decision->quote.key);
	if (!way || way->edge != flow_point_owner(skb, hook) || decision->quote.source == way->sender)
		return 0;
	redirect_note(decision, way);
	if (nat_rewrite_error(skb, decision, way))
		return -1;
	if (way_number == WAY_TO_SERVER)
		redirect_name_error(decision, way);
	return 0;
}

/*
 * The packet in `decisions`, whose flow is unknown, or may be another one than it
 * seems. If it is of a translated flow, it is named after that one; and translated,
 * if this is its edge. Not 0: it must not
 * go on.
 */
__noinline int redirect_enter(struct __sk_buff *skb, __u32 hook)
{
	struct decision *decision = decision_of_cpu();
	__u64 owner = flow_point_owner(skb, hook);
	struct translation *way;
	struct packet *packet;
	struct flow *flow;

	if (!config.redirect || !decision)
		return -1;
	packet = &decision->packet;
	decision->translated = 0;
	flow = bpf_map_lookup_elem(&flows, &packet->key);
	if (decide_may_begin(flow, packet, owner) && connect_begin(skb, hook) >= 0)
		return -1;
	/* A flow that is there, and is not told otherwise, is what it seems: its name may
	 * also be what the client of another translated flow sees. */
	if (flow && !flow->superseded && !decide_is_foreign(flow, packet, owner))
		return 0;
	way = bpf_map_lookup_elem(&translations, &packet->key);
	if (!way)
		return 0;
	/* Elsewhere on its way the packet is not touched, but known for what it is. */
	if (way->edge == owner && packet->source == way->sender) {
		if (nat_rewrite(skb, packet, way))
			return -1;
		redirect_note(decision, way);
		flow = bpf_map_lookup_elem(&flows, &way->other);
		if (flow)
			recent_keep(&packet->key, way, flow);
	}
	packet->source = packet->source == way->sender ? way->other_sender : !way->other_sender;
	packet->key = way->other;
	return 0;
}

/* The packet in `decisions`, of a translated flow, at the edge where what its client
 * gets is translated. Not 0: it must not go on. */
__noinline int redirect_leave(struct __sk_buff *skb)
{
	struct decision *decision = decision_of_cpu();
	struct translation *way;
	struct packet *packet;
	struct flow *flow;

	if (!config.redirect || !decision)
		return -1;
	packet = &decision->packet;
	decision->translated = 0;
	flow = bpf_map_lookup_elem(&flows, &packet->key);
	packet->key.way = WAY_TO_CLIENT;
	way = bpf_map_lookup_elem(&translations, &packet->key);
	if (!way)
		return 0;
	redirect_note(decision, way);
	if (flow)
		recent_keep(&packet->key, way, flow);
	return nat_rewrite(skb, packet, way);
}

/*
 * The packet of a connection that this processor has just translated here, on its way
 * to the server: it is translated again, and named as the server sees it. Not 0: it must
 * not go on. Else, if there is no flow, nothing was done and it may be any packet. Not
 * for what may begin a connection, nor for what one that has ended still says.
 */
static __always_inline int redirect_again(struct __sk_buff *skb, struct packet *packet, __u64 owner,
					  struct decision **decision, struct flow **flow)
{
	const struct recent_translation *recent = recent_place(&packet->key, WAY_TO_SERVER);
	struct flow *found;

	if (!recent || !recent_is(recent, &packet->key, WAY_TO_SERVER) || recent->way.edge != owner ||
	    recent->way.sender != packet->source)
		return 0;
	if (packet->quote_offset ||
	    (packet->key.protocol == PROTOCOL_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN))
		return 0;
	found = bpf_map_lookup_elem(&flows, &recent->way.other);
	if (!found || !recent_stands(recent, found))
		return 0;
	*decision = decision_of_cpu();
	if (!*decision || nat_rewrite_inline(skb, packet, &recent->way))
		return -1;
	redirect_note(*decision, &recent->way);
	packet->source = recent->way.other_sender;
	recent_name(&packet->key, &recent->way.other);
	*flow = found;
	return 0;
}

/* The same on the way to the client: whether the packet was translated, or -1. */
static __always_inline int redirect_leave_again(struct __sk_buff *skb, const struct packet *packet,
						const struct flow *flow, struct decision *decision)
{
	const struct recent_translation *recent = recent_place(&packet->key, WAY_TO_CLIENT);

	if (!recent || !recent_is(recent, &packet->key, WAY_TO_CLIENT) || !recent_stands(recent, flow))
		return 0;
	redirect_note(decision, &recent->way);
	return nat_rewrite_inline(skb, packet, &recent->way) ? -1 : 1;
}

/* Received at the other end of a veth. */
static __always_inline int redirect_to_peer(struct __sk_buff *skb, struct flow *flow, const struct packet *packet,
					    __u32 ifindex)
{
	flow_count_delivered(flow, packet, place_edge(ifindex, HOOK_EGRESS));
	/* At this end of the veth it was addressed to somebody else. */
	bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(ifindex, 0);
}

/* How a translated packet leaves its edge. */
static __always_inline int redirect_deliver(struct __sk_buff *skb, struct flow *flow, const struct packet *packet,
					    const struct decision *decision)
{
	switch (decision->delivery) {
	case DELIVERY_EGRESS:
		return bpf_redirect(decision->ifindex, 0);
	case DELIVERY_INGRESS:
		if (decision->ifindex == skb->ifindex)
			skb->mark = MARK_TURNED;
		return bpf_redirect(decision->ifindex, BPF_F_INGRESS);
	case DELIVERY_PEER:
		return redirect_to_peer(skb, flow, packet, decision->ifindex);
	}
	return NEXT_PROGRAM;
}

#endif
