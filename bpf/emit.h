/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Records of the ring buffer: reserved, filled, submitted; or their loss counted. */
#ifndef WEIR_EMIT_H
#define WEIR_EMIT_H

#include "maps.h"
#include "packet.h"

/*
 * Waking the reader is what costs, not the record. While it works it comes by on
 * its own every 5 ms; before it sleeps it sets reader_sleeps, and the
 * next record wakes it. Read after the reservation: the reader looks at the
 * ring's fill level after it set the flag, so one of the two sees the other.
 * (Without a barrier, which would cost more than it gives: should both look
 * within the same few nanoseconds, the reader's own timeout ends its sleep.)
 */
static __always_inline __u64 emit_wakeup(void)
{
	if (*(volatile __u32 *)&reader_sleeps) {
		*(volatile __u32 *)&reader_sleeps = 0;
		return BPF_RB_FORCE_WAKEUP;
	}
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void *emit_reserve(__u32 size, __u8 kind)
{
	void *record = bpf_ringbuf_reserve(&events, size, 0);

	if (!record)
		__sync_fetch_and_add(&losses.ring_full[kind], 1);
	return record;
}

static __always_inline void emit_submit(void *record)
{
	bpf_ringbuf_submit(record, emit_wakeup());
}

static __always_inline void emit_header(struct event *event, struct __sk_buff *skb, const struct packet *packet,
					__u8 hook, __u8 kind, __u64 time_ns)
{
	event->time_ns = time_ns;
	event->ifindex = skb->ifindex;
	event->kind = kind;
	event->hook = hook;
	event->pad[0] = event->pad[1] = 0;
	event->key = packet->key;
}

static __always_inline void emit_open_fill(struct event_open *open, struct __sk_buff *skb, const struct packet *packet,
					   __u8 hook, __u8 kind, const struct flow *flow)
{
	emit_header(&open->event, skb, packet, hook, kind, flow->first_ns);
	open->incarnation = flow->incarnation;
	open->length_bytes = packet->length_bytes;
	open->state = flow->state;
	open->initiator = flow->initiator;
	open->source = packet->source;
	open->midstream = flow->midstream;
	open->tcp_flags = packet->tcp_flags;
	open->pad[0] = open->pad[1] = open->pad[2] = 0;
}

static __always_inline void emit_open(struct __sk_buff *skb, const struct packet *packet, __u8 hook,
				      const struct flow *flow)
{
	struct event_open *open = emit_reserve(sizeof(*open), EVENT_OPEN);

	if (!open)
		return;
	emit_open_fill(open, skb, packet, hook, EVENT_OPEN, flow);
	emit_submit(open);
}

static __always_inline void emit_close(struct __sk_buff *skb, const struct packet *packet, __u8 hook, __u8 state,
				       const struct flow *flow)
{
	struct event_close *close = emit_reserve(sizeof(*close), EVENT_CLOSE);

	if (!close)
		return;
	emit_header(&close->event, skb, packet, hook, EVENT_CLOSE, flow->last_ns);
	close->incarnation = flow->incarnation;
	close->state = state;
	close->pad[0] = close->pad[1] = close->pad[2] = 0;
	emit_submit(close);
}

static __always_inline void emit_packet(struct __sk_buff *skb, const struct packet *packet, __u8 hook, __u8 counted)
{
	struct event_packet *record = emit_reserve(sizeof(*record), EVENT_PACKET);

	if (!record)
		return;
	emit_header(&record->event, skb, packet, hook, EVENT_PACKET, bpf_ktime_get_ns());
	record->length_bytes = packet->length_bytes;
	record->tcp_seq = packet->tcp_seq;
	record->tcp_ack = packet->tcp_ack;
	record->payload_bytes = packet->payload_bytes;
	record->tcp_window = packet->tcp_window;
	record->tcp_flags = packet->tcp_flags;
	record->source = packet->source;
	record->counted = counted;
	record->pad[0] = record->pad[1] = record->pad[2] = 0;
	emit_submit(record);
}

/* Not inlined: rare beside the packets that only get counted. */
static __noinline void emit_dns(struct __sk_buff *skb, const struct packet *packet, __u8 hook)
{
	struct event_dns *record;
	__u32 length = packet->payload_bytes, last;

	record = emit_reserve(sizeof(*record), EVENT_DNS);
	if (!record)
		return;
	emit_header(&record->event, skb, packet, hook, EVENT_DNS, bpf_ktime_get_ns());
	record->payload_bytes = length;
	if (length > DNS_CAPTURE_BYTES) {
		__sync_fetch_and_add(&losses.dns_truncated, 1);
		length = DNS_CAPTURE_BYTES;
	}
	record->captured_bytes = length;
	/* Counted from the last byte, because a verifier before Linux 6.8 learns nothing from
	 * `length != 0`; and the bound is wanted right before the call. */
	last = length - 1;
	asm volatile("" : "+r"(last));
	if (last >= DNS_CAPTURE_BYTES || bpf_skb_load_bytes(skb, packet->payload_offset, record->payload, last + 1))
		record->captured_bytes = 0;
	emit_submit(record);
}

#endif
