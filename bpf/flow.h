/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The flow table: one lookup for a packet of a known flow. */
#ifndef WEIR_FLOW_H
#define WEIR_FLOW_H

#include "maps.h"
#include "packet.h"
#include "emit.h"
#include "tally.h"

/* No hook of this flow's: two others count it already. */
#define POINT_FURTHER -1

/* Time for what needs no better resolution than a tick (some 4 ms): reading it
 * costs half of what exact time does. Linux 5.11; before it, exact time. */
static __always_inline __u64 flow_coarse_now(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_ktime_get_coarse_ns))
		return bpf_ktime_get_coarse_ns();
	return bpf_ktime_get_ns();
}

/* For 32-bit sequence numbers that wrap: RFC 9293, 3.4. */
static __always_inline bool flow_seq_after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

/* The slow half of flow_point_find(): a hook takes its place. Under the lock,
 * for at weir's start two CPUs may meet the same flow at two hooks at once. */
static __noinline int flow_point_claim(struct flow *flow, __u32 source, __u32 ifindex, __u8 hook)
{
	struct flow_point *first, *second;
	int index = POINT_FURTHER;

	if (!flow)
		return POINT_FURTHER;
	first = &flow->direction[source & 1].point[0];
	second = &flow->direction[source & 1].point[1];
	bpf_spin_lock(&flow->lock);
	if (!first->ifindex || (first->ifindex == ifindex && first->hook == hook)) {
		first->ifindex = ifindex;
		first->hook = hook;
		index = 0;
	} else if (!second->ifindex || (second->ifindex == ifindex && second->hook == hook)) {
		second->ifindex = ifindex;
		second->hook = hook;
		index = 1;
	}
	bpf_spin_unlock(&flow->lock);
	return index;
}

/* Which of a direction's two points this hook is. */
static __always_inline int flow_point_find(struct flow *flow, __u32 source, __u32 ifindex, __u8 hook)
{
	struct flow_direction *direction = &flow->direction[source & 1];

	if (direction->point[0].ifindex == ifindex && direction->point[0].hook == hook)
		return 0;
	if (direction->point[1].ifindex == ifindex && direction->point[1].hook == hook)
		return 1;
	if (direction->point[0].ifindex && direction->point[1].ifindex)
		return POINT_FURTHER;
	return flow_point_claim(flow, source, ifindex, hook);
}

static __always_inline __u32 flow_segment_length(const struct packet *packet)
{
	return packet->payload_bytes + !!(packet->tcp_flags & TCP_SYN) + !!(packet->tcp_flags & TCP_FIN);
}

/* What the first packet says of a flow that begins with it. */
static __always_inline void flow_begin(struct flow *flow, const struct packet *packet, __u64 now_ns)
{
	bool syn = packet->tcp_flags & TCP_SYN, ack = packet->tcp_flags & TCP_ACK;

	flow->first_ns = now_ns;
	flow->last_ns = now_ns;
	flow->syn_ns = 0;
	flow->rtt_us = 0;
	flow->state = FLOW_NEW;
	flow->initiator = packet->source;
	flow->midstream = 0;
	if (packet->key.protocol != PROTOCOL_TCP)
		return;
	if (syn && !ack) {
		flow->syn_ns = now_ns;
		return;
	}
	flow->midstream = 1;
	if (syn) {
		flow->initiator = !packet->source;
	} else {
		/* Who opened it was not seen: servers listen on the lower port. */
		flow->state = FLOW_ESTABLISHED;
		flow->initiator = packet->key.port[0] < packet->key.port[1];
	}
}

/*
 * TCP, at the hook that counts the direction. Returns FLOW_CLOSED or FLOW_RESET
 * when this packet ended the connection, else 0. Plain stores: a direction's
 * packets reach one hook one after another, and a sequence number that loses a
 * race costs a statistic, not a packet.
 */
static __always_inline __u8 flow_track_tcp(struct flow *flow, const struct packet *packet)
{
	__u32 source = packet->source & 1;
	struct flow_direction *own = &flow->direction[source];
	struct flow_direction *peer = &flow->direction[source ^ 1];
	__u32 length = flow_segment_length(packet), end = packet->tcp_seq + length;
	__u8 flags = packet->tcp_flags, seen = own->tcp_flags;

	if (length) {
		if (!seen || flow_seq_after(end, own->next_seq))
			own->next_seq = end;
		else
			own->retransmits++;
	} else if (!seen) {
		own->next_seq = end;
	}
	if (seen != (seen | flags))
		own->tcp_flags = seen | flags;
	if (!packet->tcp_window && !(flags & (TCP_SYN | TCP_RST)))
		own->zero_windows++;

	if (flags & TCP_RST) {
		flow->resets++;
		if (flow->state >= FLOW_CLOSED)
			return 0;
		flow->state = FLOW_RESET;
		return FLOW_RESET;
	}
	if (flow->state == FLOW_ESTABLISHED && !(flags & TCP_FIN))
		return 0;

	if (flow->state == FLOW_NEW) {
		if (flags & TCP_SYN) {
			/* Sent twice: which of the two the answer answers cannot be told (Karn). */
			if ((seen & TCP_SYN) && source == flow->initiator)
				flow->syn_ns = 0;
		} else if (source == flow->initiator && (peer->tcp_flags & TCP_SYN)) {
			if (flow->syn_ns)
				flow->rtt_us = (bpf_ktime_get_ns() - flow->syn_ns) / 1000;
			flow->state = FLOW_ESTABLISHED;
		}
	}
	if ((flags & TCP_FIN) && flow->state < FLOW_CLOSING)
		flow->state = FLOW_CLOSING;
	if (flow->state == FLOW_CLOSING && (flags & TCP_ACK) && (peer->tcp_flags & TCP_FIN) &&
	    !flow_seq_after(peer->next_seq, packet->tcp_ack)) {
		peer->fin_acked = 1;
		if (own->fin_acked) {
			flow->state = FLOW_CLOSED;
			return FLOW_CLOSED;
		}
	}
	return 0;
}

/* Every packet of a flow ends here. */
static __always_inline void flow_count(struct __sk_buff *skb, struct flow *flow, const struct packet *packet, __u8 hook)
{
	__u32 source = packet->source & 1;
	struct flow_point *point;
	__u8 ended = 0;
	int index;

	index = flow_point_find(flow, source, skb->ifindex, hook);
	if (config.packet_events)
		emit_packet(skb, packet, hook, index == 0);
	if (index == POINT_FURTHER) {
		tally_count(skb, hook, TALLY_FURTHER_HOOK);
		return;
	}
	point = &flow->direction[source].point[index & 1];
	__sync_fetch_and_add(&point->packets, 1);
	__sync_fetch_and_add(&point->bytes, packet->length_bytes);
	flow->last_ns = flow_coarse_now();
	if (index)
		return;

	if (packet->key.protocol == PROTOCOL_TCP) {
		ended = flow_track_tcp(flow, packet);
		if (ended)
			emit_close(skb, packet, hook, ended, flow->incarnation);
	} else if (flow->state == FLOW_NEW && source != flow->initiator) {
		flow->state = FLOW_ESTABLISHED;
	}
	if (packet->source_port == 53 && packet->key.protocol == PROTOCOL_UDP)
		emit_dns(skb, (struct packet *)packet, hook);
}

/* A flow's first packet: 0, or the reason why there is no entry. */
static __noinline int flow_open(struct __sk_buff *skb, struct packet *packet, __u8 hook)
{
	struct flow begun = {};
	int error;

	if (!packet)
		return TALLY_MALFORMED;
	flow_begin(&begun, packet, bpf_ktime_get_ns());
	error = bpf_map_update_elem(&flows, &packet->key, &begun, BPF_NOEXIST);
	if (!error)
		emit_open(skb, packet, hook, &begun);
	else if (error != -EEXIST /* another CPU was faster: the entry is there */)
		return TALLY_TABLE_FULL;
	return 0;
}

/* The entry of a connection that ended begins anew; what it was goes to `before`,
 * if that is wanted. False: another CPU was faster. */
static __always_inline bool flow_restart(struct flow *flow, const struct packet *packet, __u64 now_ns,
					 struct flow *before)
{
	bool restarted = false;

	bpf_spin_lock(&flow->lock);
	if (flow->state >= FLOW_CLOSED) {
		restarted = true;
		if (before) {
			before->incarnation = flow->incarnation;
			__builtin_memcpy(&before->first_ns, &flow->first_ns,
					 sizeof(*flow) - __builtin_offsetof(struct flow, first_ns));
		}
		flow_begin(flow, packet, now_ns);
		flow->incarnation++;
#pragma unroll
		for (int i = 0; i < 2; i++) {
			struct flow_direction *direction = &flow->direction[i];

			/* The hooks may be others now: a container that restarted has a new veth. */
			direction->point[0].ifindex = direction->point[1].ifindex = 0;
			direction->tcp_flags = 0;
			direction->fin_acked = 0;
		}
	}
	bpf_spin_unlock(&flow->lock);
	return restarted;
}

/* A connection that ended begins anew with the same addresses and ports. */
static __noinline int flow_reopen(struct __sk_buff *skb, struct flow *flow, struct packet *packet, __u8 hook)
{
	struct event_reopen *record;
	__u64 now_ns = bpf_ktime_get_ns();

	if (!flow || !packet)
		return 0;
	record = emit_reserve(sizeof(*record), EVENT_REOPEN);
	if (!record) {
		/* Not one path that asks again later: a 6.1 verifier forgets the first answer. */
		flow_restart(flow, packet, now_ns, NULL);
		return 0;
	}
	if (!flow_restart(flow, packet, now_ns, &record->before)) {
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		return 0;
	}
	record->before.lock.val = 0;
	emit_open_fill(&record->open, skb, packet, hook, EVENT_REOPEN, flow);
	emit_submit(record);
	return 0;
}

/* An ICMP error is told to the flow that it quotes. */
static __noinline int flow_note_quote(struct __sk_buff *skb, __u32 offset, __u8 protocol)
{
	bool ipv6 = protocol == PROTOCOL_ICMPV6;
	struct packet quote = {};
	struct flow *flow;
	int result;

	result = packet_parse_quote(skb, &quote, offset, ipv6);
	if (result == PARSE_SHORT && !bpf_skb_pull_data(skb, skb->len < 512 ? skb->len : 512))
		result = packet_parse_quote(skb, &quote, offset, ipv6);
	if (result)
		return result;
	flow = bpf_map_lookup_elem(&flows, &quote.key);
	if (flow)
		__sync_fetch_and_add(&flow->icmp_errors, 1);
	return 0;
}

#endif
