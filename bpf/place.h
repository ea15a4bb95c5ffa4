/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The ways of a redirected connection: where it is translated, and how it leaves there. */
#ifndef WEIR_PLACE_H
#define WEIR_PLACE_H

#include "config.h"
#include "decision.h"

static __always_inline __u64 place_edge(__u32 ifindex, __u8 hook)
{
	return ifindex | (__u64)hook << 32;
}

/*
 * Whether connections to `asked` are decided at this hook: as soon as their client,
 * a container, sends; for all others (the host, the world outside) where they are
 * about to reach whom they asked for, so that the host's own tables see the
 * connection that its client sees.
 */
static __always_inline bool place_decides(__u32 ifindex, __u8 hook, const struct interface_place *here,
					  const __u8 asked[16])
{
	struct place *owner;

	if (!here->container_side)
		return false;
	if (hook == HOOK_INGRESS)
		return true;
	owner = bpf_map_lookup_elem(&endpoints, asked);
	if (!owner)
		owner = bpf_map_lookup_elem(&virtual_addresses, asked);
	return owner && owner->ifindex == ifindex;
}

static __always_inline void place_set_macs(struct translation *way, const __u8 *source, const __u8 *destination)
{
	if (source) {
		way->set_source_mac = 1;
		__builtin_memcpy(way->source_mac, source, sizeof(way->source_mac));
	}
	if (destination) {
		way->set_destination_mac = 1;
		__builtin_memcpy(way->destination_mac, destination, sizeof(way->destination_mac));
	}
}

static __always_inline void place_deliver(struct translation *way, __u8 delivery, __u32 ifindex)
{
	way->delivery = delivery;
	way->ifindex = ifindex;
}

/* The container asks for what is redirected to itself. It would not answer to its
 * own address over the wire; so the server sees the address that was asked. */
static __always_inline void place_hairpin(struct decision *decision, __u32 ifindex, const struct interface_place *here,
					  const struct place *target, const __u8 *client_mac)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];

	if (!decision->forged)
		address_copy(there->source, back->source);
	place_set_macs(there, here->host_mac, target->mac);
	place_deliver(there, DELIVERY_EGRESS, ifindex);
	back->edge = place_edge(ifindex, HOOK_INGRESS);
	place_set_macs(back, here->host_mac, client_mac);
	place_deliver(back, DELIVERY_EGRESS, ifindex);
}

/* From veth to veth, not by the host's tables. */
static __always_inline int place_direct(struct decision *decision, __u32 ifindex, const struct interface_place *here,
					const struct place *target, bool near, const __u8 *client_mac, bool fast)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];
	__u8 delivery = fast ? DELIVERY_PEER : DELIVERY_EGRESS;
	struct interface_place *beyond = bpf_map_lookup_elem(&interfaces, &target->ifindex);

	if (!beyond)
		return REFUSED_NO_TARGET;
	/* On one bridge each sees the other's MAC, as it would without us. */
	place_set_macs(there, near ? NULL : beyond->host_mac, target->mac);
	place_deliver(there, delivery, target->ifindex);
	back->edge = place_edge(target->ifindex, HOOK_INGRESS);
	place_set_macs(back, near ? NULL : here->host_mac, client_mac);
	place_deliver(back, delivery, ifindex);
	return DECIDED;
}

/*
 * Neither the client nor the server is a container that weir watches. Whom the client
 * asked appears to ask the server itself: its packets come in at its veth, and take the
 * way that the host has for it, with the host's own rules and masquerading; so the
 * answers come to the same veth. There they turn likewise.
 */
static __always_inline int place_onward(struct decision *decision, __u32 ifindex, const struct interface_place *here,
					const struct ethernet_header *ethernet)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];

	/* Answers to another source would not come here; nobody has an address that asks itself. */
	if (decision->forged || address_equal(there->destination, back->source))
		return REFUSED_NO_TARGET;
	decision->onward = 1;
	address_copy(there->source, back->source);
	place_set_macs(there, ethernet->destination, here->host_mac);
	place_deliver(there, DELIVERY_INGRESS, ifindex);
	back->edge = there->edge;
	place_set_macs(back, ethernet->destination, ethernet->source);
	place_deliver(back, DELIVERY_INGRESS, ifindex);
	return DECIDED;
}

/* The client is not a container that weir watches: the host, the world outside. */
static __always_inline int place_server_edge(struct decision *decision, __u32 ifindex,
					     const struct interface_place *here, const struct place *target, bool near,
					     const __u8 *sender_mac)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];

	place_set_macs(there, NULL, target->mac);
	if (target->ifindex != ifindex)
		place_deliver(there, DELIVERY_EGRESS, target->ifindex);
	back->edge = place_edge(target->ifindex, HOOK_INGRESS);
	/* The host gets its answer at the bridge where it asked. */
	place_set_macs(back, NULL, near ? sender_mac : here->host_mac);
	if (!near)
		place_deliver(back, DELIVERY_INGRESS, here->bridge_ifindex);
	return DECIDED;
}

/* Edges, MACs and deliveries of both ways: DECIDED or a refusal. */
static __noinline int place_ways(struct __sk_buff *skb, struct decision *decision, __u8 hook,
				 const struct interface_place *here)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet_header *ethernet = data;
	__u32 ifindex = skb->ifindex;
	__u8 sender_mac[6];
	struct place *target;
	bool near, fast;

	if (!decision || !here || (void *)(ethernet + 1) > end)
		return REFUSED_NO_TARGET;
	__builtin_memcpy(sender_mac, ethernet->source, sizeof(sender_mac));
	target = bpf_map_lookup_elem(&endpoints, there->destination);
	near = target && target->bridge_ifindex == here->bridge_ifindex;
	there->edge = place_edge(ifindex, hook);
	if (hook == HOOK_EGRESS && !target)
		return place_onward(decision, ifindex, here, ethernet);
	if (hook == HOOK_EGRESS)
		return place_server_edge(decision, ifindex, here, target, near, sender_mac);
	if (target && target->ifindex == ifindex) {
		place_hairpin(decision, ifindex, here, target, sender_mac);
		return DECIDED;
	}
	/* To another bridge only where the user said so: the host's own rules may keep the two apart. */
	fast = decision->fast_path && (near || config.accelerate);
	if (target && (decision->forged || fast))
		return place_direct(decision, ifindex, here, target, near, sender_mac, fast);
	/* Answers to a forged source find their way back at the server's veth only. */
	if (decision->forged)
		return REFUSED_NO_TARGET;
	/* By the host's own tables, which see the connection as the server does. */
	place_set_macs(there, NULL, near ? target->mac : here->host_mac);
	back->edge = place_edge(ifindex, HOOK_EGRESS);
	return DECIDED;
}

#endif
