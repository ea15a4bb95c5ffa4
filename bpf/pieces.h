/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Records of payload: how much of a packet's is copied, and in which pieces.
 */
#ifndef WEIR_PIECES_H
#define WEIR_PIECES_H

#include "config.h"
#include "emit.h"
#include "maps.h"
#include "packet.h"

/* The largest record's payload: a segmentation-offload packet is told in pieces. */
#define PIECE_BYTES_MAX 16384

/* What is being told: a TCP segment, or a datagram, of which only `header` counts. */
struct segment {
	struct event_payload header; /* of its next record */
	__u32 seq;		     /* of its first byte */
	__u32 offset;		     /* of that in the packet */
	__u32 bytes;
	__u32 turn_bytes; /* that came before it */
	__u32 told;	  /* so many of its bytes have been told of, or left out */
	/* As in struct flow_frames and flow_direction; see frames.h. */
	__u32 frame_seq;
	__u32 frame_head;
	__u32 frame_chain;
	__u8 frame_state;
	__u8 believed; /* 1: user space has seen that the chain is one */
	__u8 presumed; /* 1: user space is asked to look, once in each segment */
	__u8 tcp_flags;
	__u8 source;
	__u8 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct segment);
	__uint(max_entries, 1);
} segments SEC(".maps");

static __always_inline struct segment *segment_of_cpu(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&segments, &index);
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
	__u32 payload_bytes = header->payload_bytes, left_out_bytes = header->left_out_bytes;
	__u8 flags = header->tcp_flags;

	if (rest->copied <= PIECE_BYTES_MAX)
		return false;
	header->payload_bytes = PIECE_BYTES_MAX;
	header->captured_bytes = PIECE_BYTES_MAX;
	/* The stream's end is behind the last piece, and so is what is left out. */
	header->tcp_flags = flags & ~TCP_FIN;
	header->left_out_bytes = 0;
	payload_write_16384(skb, header, rest->offset);
	header->tcp_flags = flags;
	header->left_out_bytes = left_out_bytes;
	header->frame_chain = 0;
	header->seq += PIECE_BYTES_MAX;
	header->payload_bytes = payload_bytes - PIECE_BYTES_MAX;
	rest->offset += PIECE_BYTES_MAX;
	rest->copied -= PIECE_BYTES_MAX;
	return true;
}

/*
 * Tells, by the header in `segments`, of its payload_bytes, of which `bytes` are copied,
 * from `offset` of the packet. Of a packet of more than 80 KiB (BIG TCP) the end is left
 * out. Not static, so that the verifier walks it once, and not for each of its callers' states.
 */
__noinline int payload_write(struct __sk_buff *skb, __u32 offset, __u32 bytes)
{
	struct payload_rest rest = { .offset = offset, .copied = bytes };
	struct event_payload *header;
	struct segment *segment;

	if (!config.audit)
		return 0;
	segment = segment_of_cpu();
	if (!segment)
		return 0;
	header = &segment->header;
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
	return 0;
}

/* How many of `bytes`, which follow `before` others in their turn, the user wants. */
static __always_inline __u32 payload_of_turn(__u32 before, __u32 bytes)
{
	if (!config.turn_bytes_max)
		return bytes;
	if (before >= config.turn_bytes_max)
		return 0;
	return bytes < config.turn_bytes_max - before ? bytes : config.turn_bytes_max - before;
}

/* How many of them are copied. */
static __always_inline __u32 payload_share(__u32 before, __u32 bytes)
{
	__u32 share = payload_of_turn(before, bytes), head;

	/* Bodies go first. */
	if (before + share > TURN_HEAD_BYTES && payload_ring_used() > config.payload_ring_bytes / 2) {
		head = before < TURN_HEAD_BYTES ? TURN_HEAD_BYTES - before : 0;
		__sync_fetch_and_add(&losses.payload_shed_bytes, share - head);
		share = head;
	}
	return share;
}

#endif
