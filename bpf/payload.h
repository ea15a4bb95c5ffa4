/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Payload for `weir audit`: of flows that begin like a protocol which weir reads,
 * and of those only what user space wants to see. At the hook that counts the
 * direction, so that nothing is copied twice.
 */
#ifndef WEIR_PAYLOAD_H
#define WEIR_PAYLOAD_H

#include "config.h"
#include "emit.h"
#include "frames.h"
#include "keeper.h"
#include "maps.h"
#include "packet.h"
#include "pieces.h"

/* A protocol is guessed by so many bytes at the beginning of a turn. */
#define LOOK_BYTES 16
/* A connection says what it is at its beginning; in one that was joined later,
 * turns may begin in the middle of a message. */
#define TURNS_LOOKED_AT_MAX 1
#define TURNS_LOOKED_AT_MIDSTREAM_MAX 64

static __always_inline bool payload_is_letter(__u8 byte)
{
	return (__u8)((byte | 0x20) - 'a') < 26;
}

/* How RESP values begin. */
static __always_inline bool payload_is_resp_type(__u8 byte)
{
	switch (byte) {
	case '*':
	case '$':
	case '+':
	case '-':
	case ':':
	case '_':
	case '#':
	case ',':
	case '(':
	case '=':
	case '~':
	case '>':
	case '%':
	case '|':
	case '!':
		return true;
	}
	return false;
}

/*
 * Whether a message of any protocol that user space reads could begin so. Doubt
 * means yes: user space looks closely, and says when it wants no more; what is
 * turned down here is never seen. A new protocol must find its beginnings here.
 */
static __always_inline bool payload_is_plausible(const __u8 *head, __u32 length)
{
	/* Words (HTTP, Redis in lines of text, most messages of PostgreSQL), RESP, empty lines before HTTP. */
	if (payload_is_letter(head[0]) || payload_is_resp_type(head[0]) || head[0] == '\r' || head[0] == '\n')
		return true;
	/* TLS: hellos and alerts are wanted, what is encrypted is not; SSL 2's hello. */
	if (head[1] == 3 && head[0] >= 0x14 && head[0] <= 0x17)
		return head[0] == 0x16 || head[0] == 0x15;
	if ((head[0] & 0x80) && head[2] == 1)
		return true;
	/* Too short to be sure that it is none of what follows. */
	if (length < 9)
		return true;
	/* PostgreSQL: startup and its kin; numbered messages. */
	if (!head[0] && !head[1] && ((!head[4] && head[5] == 3) || (head[4] == 0x04 && head[5] == 0xd2)))
		return true;
	if (head[0] >= '1' && head[0] <= '3' && !head[1])
		return true;
	/* MySQL: a length, then the number of the packet, which begins anew with each command. */
	if (head[3] <= 1 && (head[0] | head[1] | head[2]))
		return true;
	/* HTTP/2: a length of less than 1 MiB, a type, flags, the number of a stream. */
	if (head[0] < 0x10 && head[3] <= 9 && !(head[5] & 0x80))
		return true;
	/* DNS over TCP: one question. */
	return !head[6] && head[7] == 1;
}

/* The first bytes of a packet's payload; there is at least one. */
static __noinline bool payload_look(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	__u8 head[LOOK_BYTES] = {};
	__u32 last = length - 1;

	if (last >= LOOK_BYTES)
		last = LOOK_BYTES - 1;
	/* As in emit_dns(): bounded where the verifier wants to see it. */
	asm volatile("" : "+r"(last));
	if (last >= LOOK_BYTES || bpf_skb_load_bytes(skb, offset, head, last + 1))
		return false;
	return payload_is_plausible(head, length);
}

/* Whether what the flow said at its beginning passed before anybody read payload. */
static __always_inline bool payload_joined_late(const struct flow *flow)
{
	return flow->midstream || flow->first_ns < *(volatile __u64 *)&payload_since_ns;
}

static __always_inline void payload_header(struct event_payload *header, struct __sk_buff *skb, const struct flow *flow,
					   const struct packet *packet, __u8 hook)
{
	emit_header(&header->event, skb, packet, hook, EVENT_PAYLOAD, bpf_ktime_get_ns());
	header->flow_first_ns = flow->first_ns;
	header->seq = packet->tcp_seq;
	header->ack = packet->tcp_ack;
	header->payload_bytes = packet->payload_bytes;
	header->captured_bytes = 0;
	header->first_seq[0] = flow->first_seq[0];
	header->first_seq[1] = flow->first_seq[1];
	/* What the other end's processor writes packet by packet is asked only where it matters. */
	header->peer_next_seq =
	    packet->tcp_flags & TCP_RST ? flow->direction[(packet->source & 1) ^ 1].next_seq : packet->tcp_ack;
	header->tcp_flags = packet->tcp_flags;
	header->source = packet->source;
	header->initiator = flow->initiator;
	header->begun = 0;
	header->left_out_bytes = 0;
	header->frame_chain = 0;
	if (!payload_joined_late(flow))
		header->begun = flow->syn_seen[0] | flow->syn_seen[1] << 1;
}

/* The first to decide does so for good. What was decided. */
static __noinline __u8 payload_decide(struct flow *flow, __u8 capture)
{
	bpf_spin_lock(&flow->lock);
	if (flow->capture == CAPTURE_UNDECIDED)
		flow->capture = capture;
	capture = flow->capture;
	bpf_spin_unlock(&flow->lock);
	return capture;
}

/* At the beginning of a turn: does this flow speak what user space reads? */
static __noinline bool payload_begins(struct __sk_buff *skb, struct flow *flow, __u32 source, __u32 offset,
				      __u32 length)
{
	struct flow_direction *own = &flow->direction[source & 1], *peer = &flow->direction[(source & 1) ^ 1];
	__u8 turns_max = payload_joined_late(flow) ? TURNS_LOOKED_AT_MIDSTREAM_MAX : TURNS_LOOKED_AT_MAX;

	if (payload_look(skb, offset, length)) {
		/* Under overload whole new flows go, never parts of those that are read. */
		if (payload_ring_used() > config.payload_ring_bytes / 4 * 3)
			return payload_decide(flow, CAPTURE_OVERLOAD) == CAPTURE_ON;
		return payload_decide(flow, CAPTURE_ON) == CAPTURE_ON;
	}
	if (own->turns_looked_at < turns_max)
		own->turns_looked_at++;
	if (own->turns_looked_at >= turns_max && peer->turns_looked_at >= turns_max)
		payload_decide(flow, CAPTURE_NOT_UNDERSTOOD);
	return false;
}

/* Whether anybody reads payload: pinned programs have readers only at times. */
static __always_inline bool payload_is_read(void)
{
	return *(volatile __u64 *)&payload_since_ns && !keeper_is_gone();
}

/* Before anything is called: most packets of most flows end here. */
static __always_inline bool payload_wanted(struct flow *flow, const struct packet *packet)
{
	if (!payload_is_read()) {
		frames_unfollow(&flow->direction[packet->source & 1]);
		return false;
	}
	return flow->capture <= CAPTURE_ON && (packet->payload_bytes || (packet->tcp_flags & (TCP_FIN | TCP_RST)));
}

/* A TCP segment with payload, or one that ends its stream. */
static __noinline void payload_take(struct __sk_buff *skb, struct flow *flow, const struct packet *packet, __u8 hook)
{
	__u32 source = packet->source & 1, bytes = packet->payload_bytes, offset = packet->payload_offset;
	struct flow_direction *own = &flow->direction[source];
	__u32 turn_bytes = 0, ahead;
	struct segment *segment = segment_of_cpu();
	struct event_payload *header;
	struct capture *capture;

	if (!segment)
		return;
	if (bytes) {
		if (own->turn_ack != packet->tcp_ack) {
			own->turn_ack = packet->tcp_ack;
			own->turn_bytes = 0;
		}
		/* Read back, so that verifiers walk what follows once, and not for 0 apart. */
		turn_bytes = *(volatile __u32 *)&own->turn_bytes;
		/* Counted up to where nobody asks any more. */
		if (turn_bytes < 0x80000000)
			own->turn_bytes = turn_bytes + bytes;
	}
	if (flow->capture == CAPTURE_UNDECIDED &&
	    (!bytes || turn_bytes || !payload_begins(skb, flow, source, offset, bytes)))
		return;

	header = &segment->header;
	payload_header(header, skb, flow, packet, hook);
	/* Bytes follow a SYN's own number. */
	header->seq += !!(packet->tcp_flags & TCP_SYN);
	capture = bpf_map_lookup_elem(&captures, &packet->key);
	if (capture && capture->flow_first_ns != flow->first_ns)
		capture = NULL;
	if (capture) {
		if (capture->off) {
			flow->capture = CAPTURE_OFF_ASKED;
			return;
		}
		ahead = capture->skip_until_seq[source] - header->seq;
		if (capture->skip[source] && ahead && ahead <= SKIP_BYTES_MAX) {
			if (bytes <= ahead) {
				/* Nothing to copy; where the stream has come to is told now and then, and at its end.
				 */
				header->seq += bytes;
				header->payload_bytes = 0;
				if (bytes == ahead || (packet->tcp_flags & (TCP_FIN | TCP_RST)) ||
				    header->seq / SKIP_TOLD_EVERY_BYTES !=
					(header->seq - bytes) / SKIP_TOLD_EVERY_BYTES)
					payload_write(skb, offset, 0);
				return;
			}
			header->seq += ahead;
			header->payload_bytes = bytes = bytes - ahead;
			offset += ahead;
		}
	}
	segment->seq = header->seq;
	segment->offset = offset;
	segment->bytes = bytes;
	segment->turn_bytes = turn_bytes;
	segment->source = source;
	if (bytes && frames_begin(skb, flow, segment, capture)) {
		frames_take(skb);
		frames_end(flow, segment);
		return;
	}
	payload_write(skb, offset, payload_share(turn_bytes, bytes));
}

static __always_inline bool payload_is_dns(const struct packet *packet)
{
	__u16 low = packet->key.port[0], high = packet->key.port[1];

	return payload_is_read() && !packet->later_fragment && packet->payload_bytes &&
	       (low == PORT_DNS || high == PORT_DNS || low == PORT_MDNS || high == PORT_MDNS);
}

/* A datagram of DNS: its port says what it is, and its content must. */
static __noinline void payload_take_datagram(struct __sk_buff *skb, struct flow *flow, const struct packet *packet,
					     __u8 hook)
{
	struct segment *segment = segment_of_cpu();

	if (!segment)
		return;
	payload_header(&segment->header, skb, flow, packet, hook);
	payload_write(skb, packet->payload_offset, packet->payload_bytes);
}

#endif
