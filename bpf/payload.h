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
#include "keeper.h"
#include "maps.h"
#include "packet.h"

/* A protocol is guessed by so many bytes at the beginning of a turn. */
#define LOOK_BYTES 16
/* A connection says what it is at its beginning; in one that was joined later,
 * turns may begin in the middle of a message. */
#define TURNS_LOOKED_AT_MAX 1
#define TURNS_LOOKED_AT_MIDSTREAM_MAX 64
/* The largest record's payload: a segmentation-offload packet is told in pieces. */
#define PIECE_BYTES_MAX 16384

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

static __always_inline __u64 payload_ring_used(void)
{
	return bpf_ringbuf_query(&payloads, BPF_RB_AVAIL_DATA);
}

/* As emit_wakeup(). Payload comes in floods: a reader that has gone for its few
 * milliseconds is called back when a quarter of the ring is full. */
static __always_inline __u64 payload_wakeup(void)
{
	__u32 sleeps = *(volatile __u32 *)&payload_reader_sleeps;

	if (sleeps && (sleeps == 1 || payload_ring_used() > config.payload_ring_bytes / 4)) {
		*(volatile __u32 *)&payload_reader_sleeps = 0;
		return BPF_RB_FORCE_WAKEUP;
	}
	return BPF_RB_NO_WAKEUP;
}

/*
 * One record with room for `size` bytes: a reservation's size must be a constant.
 * The payload goes straight from the packet into it.
 */
#define PAYLOAD_WRITE(size)                                                                                            \
	static __noinline void payload_write_##size(struct __sk_buff *skb, const struct event_payload *header,         \
						    __u32 offset)                                                      \
	{                                                                                                              \
		struct {                                                                                               \
			struct event_payload header;                                                                   \
			__u8 bytes[size];                                                                              \
		} * record;                                                                                            \
		__u32 last = header->captured_bytes - 1;                                                               \
                                                                                                                       \
		record = bpf_ringbuf_reserve(&payloads, sizeof(*record), 0);                                           \
		if (!record) {                                                                                         \
			__sync_fetch_and_add(&losses.ring_full[EVENT_PAYLOAD], 1);                                     \
			return;                                                                                        \
		}                                                                                                      \
		record->header = *header;                                                                              \
		asm volatile("" : "+r"(last));                                                                         \
		if (last >= size || bpf_skb_load_bytes(skb, offset, record->bytes, last + 1))                          \
			record->header.captured_bytes = 0;                                                             \
		bpf_ringbuf_submit(record, payload_wakeup());                                                          \
	}

PAYLOAD_WRITE(64)
PAYLOAD_WRITE(256)
PAYLOAD_WRITE(1024)
PAYLOAD_WRITE(1536)
PAYLOAD_WRITE(4096)
PAYLOAD_WRITE(16384)

/* A record that only tells of lengths and ends. */
static __noinline void payload_write_nothing(const struct event_payload *header)
{
	struct event_payload *record = bpf_ringbuf_reserve(&payloads, sizeof(*record), 0);

	if (!record) {
		__sync_fetch_and_add(&losses.ring_full[EVENT_PAYLOAD], 1);
		return;
	}
	*record = *header;
	bpf_ringbuf_submit(record, payload_wakeup());
}

/* What is left of a packet to be told. */
struct payload_rest {
	__u32 offset; /* in the packet */
	__u32 copied; /* bytes that are to be copied */
};

/* One full piece, if there is more than one. */
static __always_inline bool payload_write_piece(struct __sk_buff *skb, struct event_payload *header,
						struct payload_rest *rest)
{
	__u32 payload_bytes = header->payload_bytes;
	__u8 flags = header->tcp_flags;

	if (rest->copied <= PIECE_BYTES_MAX)
		return false;
	header->payload_bytes = PIECE_BYTES_MAX;
	header->captured_bytes = PIECE_BYTES_MAX;
	/* The stream's end is behind the last piece. */
	header->tcp_flags = flags & ~TCP_FIN;
	payload_write_16384(skb, header, rest->offset);
	header->tcp_flags = flags;
	header->seq += PIECE_BYTES_MAX;
	header->payload_bytes = payload_bytes - PIECE_BYTES_MAX;
	rest->offset += PIECE_BYTES_MAX;
	rest->copied -= PIECE_BYTES_MAX;
	return true;
}

/* Tells of header->payload_bytes, of which `bytes` are copied, from `offset` of the
 * packet. Of a packet of more than 80 KiB (BIG TCP) the end is left out. */
static __noinline void payload_write(struct __sk_buff *skb, struct event_payload *header, __u32 offset, __u32 bytes)
{
	struct payload_rest rest = { .offset = offset, .copied = bytes };

	/* Not a loop: verifiers to Linux 6.1 take them only in some shapes. */
	if (payload_write_piece(skb, header, &rest) && payload_write_piece(skb, header, &rest) &&
	    payload_write_piece(skb, header, &rest))
		payload_write_piece(skb, header, &rest);
	offset = rest.offset;
	bytes = rest.copied;
	if (bytes > PIECE_BYTES_MAX)
		bytes = PIECE_BYTES_MAX;
	header->captured_bytes = bytes;
	if (!bytes)
		payload_write_nothing(header);
	else if (bytes <= 64)
		payload_write_64(skb, header, offset);
	else if (bytes <= 256)
		payload_write_256(skb, header, offset);
	else if (bytes <= 1024)
		payload_write_1024(skb, header, offset);
	else if (bytes <= 1536)
		payload_write_1536(skb, header, offset);
	else if (bytes <= 4096)
		payload_write_4096(skb, header, offset);
	else
		payload_write_16384(skb, header, offset);
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
	header->first_seq[0] = flow->direction[0].first_seq;
	header->first_seq[1] = flow->direction[1].first_seq;
	header->peer_next_seq = flow->direction[(packet->source & 1) ^ 1].next_seq;
	header->tcp_flags = packet->tcp_flags;
	header->source = packet->source;
	header->initiator = flow->initiator;
	header->begun = 0;
	if (!payload_joined_late(flow))
		header->begun =
		    !!(flow->direction[0].tcp_flags & TCP_SYN) | (!!(flow->direction[1].tcp_flags & TCP_SYN)) << 1;
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

/* How many of `bytes`, which follow `before` others in their turn, are copied. */
static __always_inline __u32 payload_share(__u32 before, __u32 bytes)
{
	__u32 share = bytes, head;

	if (config.turn_bytes_max) {
		if (before >= config.turn_bytes_max)
			return 0;
		if (share > config.turn_bytes_max - before)
			share = config.turn_bytes_max - before;
	}
	/* Bodies go first. */
	if (before + share > TURN_HEAD_BYTES && payload_ring_used() > config.payload_ring_bytes / 2) {
		head = before < TURN_HEAD_BYTES ? TURN_HEAD_BYTES - before : 0;
		__sync_fetch_and_add(&losses.payload_shed_bytes, share - head);
		share = head;
	}
	return share;
}

/* Whether anybody reads payload: pinned programs have readers only at times. */
static __always_inline bool payload_is_read(void)
{
	return *(volatile __u64 *)&payload_since_ns && !keeper_is_gone();
}

/* Before anything is called: most packets of most flows end here. */
static __always_inline bool payload_wanted(const struct flow *flow, const struct packet *packet)
{
	return payload_is_read() && flow->capture <= CAPTURE_ON &&
	       (packet->payload_bytes || (packet->tcp_flags & (TCP_FIN | TCP_RST)));
}

/* A TCP segment with payload, or one that ends its stream. */
static __noinline void payload_take(struct __sk_buff *skb, struct flow *flow, const struct packet *packet, __u8 hook)
{
	__u32 source = packet->source & 1, bytes = packet->payload_bytes, offset = packet->payload_offset;
	struct flow_direction *own = &flow->direction[source], *peer = &flow->direction[source ^ 1];
	__u32 turn_bytes = own->turn_bytes, ahead;
	struct event_payload header;
	struct capture *capture;

	if (bytes) {
		if (peer->turn_bytes)
			peer->turn_bytes = 0;
		/* Counted up to where nobody asks any more. */
		if (turn_bytes < 0x80000000)
			own->turn_bytes = turn_bytes + bytes;
	}
	if (flow->capture == CAPTURE_UNDECIDED &&
	    (!bytes || turn_bytes || !payload_begins(skb, flow, source, offset, bytes)))
		return;

	payload_header(&header, skb, flow, packet, hook);
	/* Bytes follow a SYN's own number. */
	header.seq += !!(packet->tcp_flags & TCP_SYN);
	capture = bpf_map_lookup_elem(&captures, &packet->key);
	if (capture && capture->flow_first_ns == flow->first_ns) {
		if (capture->off) {
			flow->capture = CAPTURE_OFF_ASKED;
			return;
		}
		ahead = capture->skip_until_seq[source] - header.seq;
		if (capture->skip[source] && ahead && ahead <= SKIP_BYTES_MAX) {
			if (bytes <= ahead) {
				/* Nothing to copy; where the stream has come to is told now and then, and at its end.
				 */
				header.seq += bytes;
				header.payload_bytes = 0;
				if (bytes == ahead || (packet->tcp_flags & (TCP_FIN | TCP_RST)) ||
				    header.seq / SKIP_TOLD_EVERY_BYTES != (header.seq - bytes) / SKIP_TOLD_EVERY_BYTES)
					payload_write_nothing(&header);
				return;
			}
			header.seq += ahead;
			header.payload_bytes = bytes = bytes - ahead;
			offset += ahead;
		}
	}
	payload_write(skb, &header, offset, payload_share(turn_bytes, bytes));
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
	struct event_payload header;

	payload_header(&header, skb, flow, packet, hook);
	payload_write(skb, &header, packet->payload_offset, packet->payload_bytes);
}

#endif
