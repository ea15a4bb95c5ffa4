/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The flow table: one lookup for a packet of a known flow. */
#ifndef WEIR_FLOW_H
#define WEIR_FLOW_H

#include "clock.h"
#include "maps.h"
#include "packet.h"
#include "emit.h"
#include "held.h"
#include "payload.h"
#include "tally.h"

/* No hook of this flow's: two others count it already. */
#define POINT_FURTHER -1

static __always_inline __u64 flow_point_owner(const struct __sk_buff *skb, __u8 hook)
{
	return skb->ifindex | (__u64)hook << 32;
}

/* For 32-bit sequence numbers that wrap: RFC 9293, 3.4. */
static __always_inline bool flow_seq_after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

/* The slow half of flow_point_find(): a hook takes its place. Under the lock,
 * for at weir's start two CPUs may meet the same flow at two hooks at once. */
static __noinline int flow_point_claim(struct flow *flow, __u32 source, __u64 owner)
{
	struct flow_point *first = &flow->direction[source & 1].point[0];
	struct flow_point *second = &flow->direction[source & 1].point[1];
	int index = POINT_FURTHER;

	bpf_spin_lock(&flow->lock);
	if (!first->owner || first->owner == owner) {
		first->owner = owner;
		index = 0;
	} else if (!second->owner || second->owner == owner) {
		second->owner = owner;
		index = 1;
	}
	bpf_spin_unlock(&flow->lock);
	return index;
}

/* Which of a direction's two points this hook is. */
static __always_inline int flow_point_find(struct flow *flow, __u32 source, __u64 owner)
{
	struct flow_direction *direction = &flow->direction[source & 1];

	if (direction->point[0].owner == owner)
		return 0;
	if (direction->point[1].owner == owner)
		return 1;
	if (direction->point[0].owner && direction->point[1].owner)
		return POINT_FURTHER;
	return flow_point_claim(flow, source, owner);
}

/* A flow's state only goes forward, one step at a time for all CPUs: whoever is
 * told true has made the step, and tells it. */
static __noinline bool flow_advance(struct flow *flow, __u8 state)
{
	bool advanced;

	bpf_spin_lock(&flow->lock);
	advanced = flow->state < state && flow->state < FLOW_CLOSED;
	if (state == FLOW_CLOSED && !(flow->direction[0].fin_acked && flow->direction[1].fin_acked))
		advanced = false;
	if (advanced)
		flow->state = state;
	bpf_spin_unlock(&flow->lock);
	return advanced;
}

static __always_inline __u32 flow_segment_length(const struct packet *packet)
{
	return packet->payload_bytes + !!(packet->tcp_flags & TCP_SYN) + !!(packet->tcp_flags & TCP_FIN);
}

/* What is to be known of a translated flow, beside its packets. */
struct flow_origin {
	__u64 edge[WAYS];
	struct flow_key asked;
	__u32 rule;
	__u8 asked_source;
	__u8 pad[3];
};

/* What the first packet says of a flow that begins with it. `origin`: NULL for a
 * flow that is not translated. */
static __always_inline void flow_begin(struct flow *flow, const struct packet *packet, __u64 owner, __u64 now_ns,
				       const struct flow_origin *origin)
{
	bool syn = packet->tcp_flags & TCP_SYN, ack = packet->tcp_flags & TCP_ACK;

	flow->first_ns = now_ns;
	flow->last_ns = now_ns;
	flow->syn_ns = 0;
	flow->rtt_us = 0;
	flow->state = FLOW_NEW;
	flow->initiator = packet->source;
	flow->midstream = 0;
	flow->capture = CAPTURE_UNDECIDED;
	flow->superseded = 0;
	flow->shortcut[0] = flow->shortcut[1] = 0;
	flow->syn_seen[0] = flow->syn_seen[1] = 0;
	if (origin) {
		flow->edge[WAY_TO_SERVER] = origin->edge[WAY_TO_SERVER];
		flow->edge[WAY_TO_CLIENT] = origin->edge[WAY_TO_CLIENT];
		flow->rule = origin->rule;
		flow->asked = origin->asked;
		flow->asked_source = origin->asked_source;
	} else {
		flow->edge[WAY_TO_SERVER] = flow->edge[WAY_TO_CLIENT] = 0;
	}
	if (packet->source & 1)
		flow->direction[1].point[0].owner = owner;
	else
		flow->direction[0].point[0].owner = owner;
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

	if (!seen)
		flow->first_seq[source] = packet->tcp_seq + !!(flags & TCP_SYN);
	if (!seen || flow_seq_after(end, own->next_seq))
		own->next_seq = end;
	else if (length)
		flow->retransmits[source]++;
	if (seen != (seen | flags)) {
		own->tcp_flags = seen | flags;
		if (flags & TCP_SYN)
			flow->syn_seen[source] = 1;
	}
	if (!packet->tcp_window && !(flags & (TCP_SYN | TCP_RST)))
		flow->zero_windows[source]++;

	if (flags & TCP_RST) {
		__sync_fetch_and_add(&flow->resets, 1);
		return flow_advance(flow, FLOW_RESET) ? FLOW_RESET : 0;
	}
	if (flow->state == FLOW_ESTABLISHED && !(flags & TCP_FIN))
		return 0;

	if (flow->state == FLOW_NEW) {
		if (flags & TCP_SYN) {
			/* Sent twice: which of the two was answered cannot be told (Karn). */
			if (seen & TCP_SYN)
				flow->syn_ns = 0;
		} else if (source == flow->initiator && (peer->tcp_flags & TCP_SYN) &&
			   flow_advance(flow, FLOW_ESTABLISHED) && flow->syn_ns) {
			flow->rtt_us = (bpf_ktime_get_ns() - flow->syn_ns) / 1000;
		}
	}
	if (flags & TCP_FIN)
		flow_advance(flow, FLOW_CLOSING);
	if (flow->state == FLOW_CLOSING && (flags & TCP_ACK) && (peer->tcp_flags & TCP_FIN) && !peer->fin_acked &&
	    !flow_seq_after(peer->next_seq, packet->tcp_ack)) {
		peer->fin_acked = 1;
		if (flow_advance(flow, FLOW_CLOSED))
			return FLOW_CLOSED;
	}
	return 0;
}

/* An ICMP error is told to the flow that it quotes. */
static __noinline void flow_note_quote(struct __sk_buff *skb, __u32 offset, __u8 protocol)
{
	struct packet quote = {};
	struct flow *flow;

	if (packet_parse_quote(skb, &quote, offset, protocol == PROTOCOL_ICMPV6))
		return;
	flow = bpf_map_lookup_elem(&flows, &quote.key);
	if (flow)
		__sync_fetch_and_add(&flow->icmp_errors, 1);
}

/* What the hook that counts the direction reads in a packet, beyond its size. */
static __always_inline void flow_follow(struct __sk_buff *skb, struct flow *flow, const struct packet *packet,
					__u8 hook)
{
	__u8 ended;

	if (packet->key.protocol == PROTOCOL_TCP) {
		if (packet->later_fragment)
			return;
		ended = flow_track_tcp(flow, packet);
		if (config.audit && payload_wanted(flow, packet))
			payload_take(skb, flow, packet, hook);
		if (ended) {
			/* Short connections live within a tick: their end is worth the exact time. */
			flow->last_ns = bpf_ktime_get_ns();
			emit_close(skb, packet, hook, ended, flow);
			/* The last acknowledgement is that of the end which closed first. */
			if (config.redirect && ended == FLOW_CLOSED && packet->source != flow->initiator)
				held_begin(&packet->key, flow);
		}
		return;
	}
	if (flow->state == FLOW_NEW && packet->source != flow->initiator)
		flow_advance(flow, FLOW_ESTABLISHED);
	if (packet->source_port == PORT_DNS && packet->key.protocol == PROTOCOL_UDP && !packet->later_fragment)
		emit_dns(skb, packet, hook);
	if (config.audit && packet->key.protocol == PROTOCOL_UDP && payload_is_dns(packet))
		payload_take_datagram(skb, flow, packet, hook);
	if (packet->quote_offset)
		flow_note_quote(skb, packet->quote_offset, packet->key.protocol);
}

/* A packet of a translated flow, for the total of its rule, if that is still there. */
static __always_inline void flow_count_for_rule(const struct flow *flow, const struct packet *packet)
{
	__u32 number = flow->rule / RULE_VARIANTS, place = number % RULE_PLACES;
	struct rule_bytes *total = bpf_map_lookup_elem(&rule_bytes, &place);

	if (total && number && total->number == number)
		total->bytes += packet->length_bytes;
}

/* Every packet of a flow ends here. */
static __always_inline void flow_count(struct __sk_buff *skb, struct flow *flow, const struct packet *packet, __u8 hook)
{
	__u32 source = packet->source & 1;
	struct flow_point *point;
	__u64 now_ns;
	int index;

	index = flow_point_find(flow, source, flow_point_owner(skb, hook));
	if (config.packet_events)
		emit_packet(skb, packet, hook, index == 0);
	if (index == POINT_FURTHER) {
		tally_count(skb, hook, TALLY_FURTHER_HOOK);
		return;
	}
	point = &flow->direction[source].point[index & 1];
	__sync_fetch_and_add(&point->packets, 1);
	__sync_fetch_and_add(&point->bytes, packet->length_bytes);
	now_ns = clock_coarse_ns();
	if (flow->last_ns < now_ns)
		flow->last_ns = now_ns;
	if (index == 0) {
		if (config.redirect && flow->edge[WAY_TO_SERVER])
			flow_count_for_rule(flow, packet);
		flow_follow(skb, flow, packet, hook);
	}
}

/* Counts a packet at a hook that it does not pass: it is delivered behind it. */
static __always_inline void flow_count_delivered(struct flow *flow, const struct packet *packet, __u64 owner)
{
	int index = flow_point_find(flow, packet->source, owner);
	struct flow_point *point;

	if (index == POINT_FURTHER)
		return;
	point = &flow->direction[packet->source & 1].point[index & 1];
	__sync_fetch_and_add(&point->packets, 1);
	__sync_fetch_and_add(&point->bytes, packet->length_bytes);
}

/* Room for an entry in the making, which is too much for the stack of those who
 * redirect. As words, because a lock may not stand in a map of this kind. */
struct flow_room {
	__u64 words[sizeof(struct flow) / sizeof(__u64)];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct flow_room);
	__uint(max_entries, 1);
} flow_rooms SEC(".maps");

/* A flow's first packet: 0, -EEXIST where the flow is there, else there is no room. */
static __noinline int flow_open(struct __sk_buff *skb, const struct packet *packet, __u8 hook,
				const struct flow_origin *origin)
{
	struct flow *begun;
	__u32 index = 0;
	int error;

	begun = bpf_map_lookup_elem(&flow_rooms, &index);
	if (!begun)
		return -ENOMEM;
	__builtin_memset(begun, 0, sizeof(*begun));
	flow_begin(begun, packet, flow_point_owner(skb, hook), bpf_ktime_get_ns(), origin);
	error = bpf_map_update_elem(&flows, &packet->key, begun, BPF_NOEXIST);
	if (!error)
		emit_open(skb, packet, hook, begun);
	return error;
}

/* The entry of a connection that ended begins anew; what it was goes to `before`,
 * if that is wanted. False: another CPU was faster. */
static __always_inline bool flow_restart(struct flow *flow, const struct packet *packet, __u64 owner, __u64 now_ns,
					 const struct flow_origin *origin, struct flow *before)
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
#pragma unroll
		for (int i = 0; i < 2; i++) {
			struct flow_direction *direction = &flow->direction[i];

			/* The hooks may be others now: a container that restarted has a new veth. */
			direction->point[0].owner = direction->point[1].owner = 0;
			direction->tcp_flags = 0;
			direction->fin_acked = 0;
			direction->turns_looked_at = 0;
			direction->frame_state = FRAME_UNTRIED;
			direction->turn_bytes = 0;
		}
		flow_begin(flow, packet, owner, now_ns, origin);
		flow->incarnation++;
	}
	bpf_spin_unlock(&flow->lock);
	return restarted;
}

/* A connection that ended begins anew with the same addresses and ports. False:
 * another CPU was faster. */
static __noinline bool flow_reopen(struct __sk_buff *skb, struct flow *flow, const struct packet *packet, __u8 hook,
				   const struct flow_origin *origin)
{
	struct event_reopen *record;
	__u64 now_ns = bpf_ktime_get_ns();
	__u64 owner = flow_point_owner(skb, hook);

	record = emit_reserve(sizeof(*record), EVENT_REOPEN);
	/* A way of its own to the end: verifiers to Linux 6.1 forget that a record is
	 * not null, and would at a second test see one that is never submitted. */
	if (!record)
		return flow_restart(flow, packet, owner, now_ns, origin, NULL);
	if (!flow_restart(flow, packet, owner, now_ns, origin, &record->before)) {
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		return false;
	}
	record->before.lock.val = 0;
	emit_open_fill(&record->open, skb, packet, hook, EVENT_REOPEN, flow);
	emit_submit(record);
	return true;
}

#endif
