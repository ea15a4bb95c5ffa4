/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * `--accelerate`: what one container sends to another one on its bridge is received
 * there at once, past the bridge. Found when a flow begins, and kept in its entry.
 */
#ifndef WEIR_SHORTCUT_H
#define WEIR_SHORTCUT_H

#include "place.h"
#include "redirect.h"

/*
 * Whether the flow of the packet in `decisions`, which begins at this veth, is between
 * two containers of one bridge, and goes over it without a stop: 0, or the interface
 * at whose other end it is received.
 */
__noinline int shortcut_find(struct __sk_buff *skb)
{
	struct decision *decision = decision_of_cpu();
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet_header *ethernet = data;
	struct place *sender, *receiver;
	__u32 source;

	if (!config.accelerate || !decision || (void *)(ethernet + 1) > end)
		return 0;
	/* A tag may be what keeps the two apart. */
	if (decision->packet.ip_offset != sizeof(*ethernet))
		return 0;
	source = decision->packet.source & 1;
	sender = bpf_map_lookup_elem(&endpoints, decision->packet.key.address[source]);
	if (!sender || sender->ifindex != skb->ifindex)
		return 0;
	receiver = bpf_map_lookup_elem(&endpoints, decision->packet.key.address[source ^ 1]);
	if (!receiver || receiver->ifindex == sender->ifindex || receiver->bridge_ifindex != sender->bridge_ifindex ||
	    !mac_equal(ethernet->destination, receiver->mac))
		return 0;
	return receiver->ifindex;
}

/* A flow begins at this hook. */
static __always_inline void shortcut_begin(struct __sk_buff *skb, __u8 hook, struct flow *flow,
					   const struct packet *packet)
{
	struct decision *decision;
	__u32 receiver;

	/* An error may have been translated just now. */
	if (!config.accelerate || hook != HOOK_INGRESS || packet->quote_offset)
		return;
	decision = decision_of_cpu();
	if (!decision)
		return;
	decision->packet = *packet;
	receiver = shortcut_find(skb);
	if (!receiver)
		return;
	flow->shortcut[packet->source & 1] = receiver;
	flow->shortcut[(packet->source & 1) ^ 1] = skb->ifindex;
}

/* Where the packet is received directly, if it is at its sender's veth; else 0. */
static __always_inline __u32 shortcut_taken(const struct flow *flow, const struct packet *packet, __u64 owner)
{
	__u32 source = packet->source & 1;

	if (!config.accelerate || !flow->shortcut[source])
		return 0;
	return owner == place_edge(flow->shortcut[source ^ 1], HOOK_INGRESS) ? flow->shortcut[source] : 0;
}

#endif
