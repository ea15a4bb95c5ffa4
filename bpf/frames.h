/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Frames of HTTP/2, whose contents nobody needs. A body comes in frames of some
 * kB: too many, and too soon, for user space to say of each what it wants. So
 * they are followed here, from header to header, and user space says once that
 * contents can be left out.
 *
 * Nothing is guessed: a chain of frames is presumed to begin somewhere, and what it
 * leads to is told. Only when user space has seen a frame begin at such a place, the
 * chain is believed, for all that follows is what the headers say. Where it
 * breaks (a packet with a header was not seen, or not in order), everything is copied
 * until there is another.
 */
#ifndef WEIR_FRAMES_H
#define WEIR_FRAMES_H

#include "config.h"
#include "maps.h"
#include "packet.h"
#include "pieces.h"

#define FRAME_HEADER_BYTES 9
/* What is copied of a frame in any case: its header, and what may stand before a
 * message in its content. */
#define FRAME_HEAD_BYTES 64
/* Shorter ones are copied: to tell of each would cost as much. */
#define FRAME_LONG_BYTES 4096
#define FRAME_TYPE_DATA 0
#define FRAME_TYPE_SETTINGS 4
/* PRIORITY_UPDATE; what comes as the beginning of a chain is one that is known. */
#define FRAME_TYPE_MAX 16
/* As long as frames are while a chain is not believed. */
#define FRAME_PRESUMED_BYTES_MAX 1048576
/* Of one packet. With more of them, what they hold is not worth following. */
#define FRAMES_FOLLOWED 64
/* Over so many bytes frames may be presumed to be as long as the last one. */
#define FRAMES_PRESUMED_BYTES_MAX 268435456
/* "PRI * HTTP/2.0", an empty line, "SM", an empty line. */
#define PREFACE_BYTES 24
/* What a copied head takes is not worth shedding. */
#define FRAME_UNSHED_BYTES 256

/* What is known of the frame at flow_frames.seq. */
enum frame_state {
	FRAME_UNTRIED = 0, /* nothing was said yet in this direction */
	FRAME_NONE = 1,	   /* where frames begin is not known */
	FRAME_BUSY = 2,	   /* another CPU follows them at this moment */
	FRAME_HEAD = 3,	   /* and the next three: 0 to 3 of its bytes have come */
	FRAME_COPIED = 7,  /* its length and type; all of it is copied */
	FRAME_LEFT_OUT = 8 /* likewise; only its head is copied */
};

/* What passes now is not looked at: sequence numbers would come round. */
static __always_inline void frames_unfollow(struct flow_direction *own)
{
	if (own->frame_state > FRAME_NONE)
		own->frame_state = FRAME_NONE;
}

/* What an end says first: HTTP/2 begins with frames, the client's after some words. */
static __always_inline void frames_first(struct __sk_buff *skb, struct segment *segment)
{
	__u8 head[FRAME_HEADER_BYTES];

	segment->frame_state = FRAME_NONE;
	if (segment->bytes < sizeof(head) || bpf_skb_load_bytes(skb, segment->offset, head, sizeof(head)))
		return;
	segment->frame_seq = segment->seq;
	if (head[0] == 'P' && head[1] == 'R' && head[2] == 'I' && head[3] == ' ' && head[4] == '*')
		segment->frame_seq += PREFACE_BYTES;
	else if (head[0] || head[3] != FRAME_TYPE_SETTINGS || head[4] || head[5] | head[6] | head[7] | head[8])
		return;
	segment->frame_state = FRAME_HEAD;
	segment->frame_chain++;
}

/* Where user space saw one begin. It is behind: frames since then are presumed to be as
 * long as that one. */
static __always_inline void frames_presume(struct segment *segment, const struct capture *capture)
{
	__u32 source = segment->source & 1;
	__u32 seq = capture->frame_seq[source], length = capture->frame_bytes[source];
	__u32 passed = segment->seq - seq;

	if (length < FRAME_HEADER_BYTES)
		return;
	if ((__s32)passed > 0)
		seq += (passed + length - 1) / length * length;
	else
		passed = -passed;
	if (passed > FRAMES_PRESUMED_BYTES_MAX)
		return;
	segment->frame_seq = seq;
	segment->frame_state = FRAME_HEAD;
	segment->frame_chain++;
}

/* Whether bytes that had to be looked at did not come. */
static __always_inline bool frames_broke(const struct segment *segment)
{
	__u32 next = segment->frame_seq;

	if (segment->frame_state >= FRAME_COPIED)
		next += FRAME_HEADER_BYTES + (segment->frame_head >> 8);
	else
		next += segment->frame_state - FRAME_HEAD;
	return (__s32)(segment->seq - next) > 0;
}

/* What was found out in the segment is kept for the next one. */
static __noinline void frames_end(struct flow *flow, const struct segment *segment)
{
	struct flow_direction *own = &flow->direction[segment->source & 1];
	struct flow_frames *frames = &flow->frames[segment->source & 1];

	bpf_spin_lock(&flow->lock);
	frames->seq = segment->frame_seq;
	frames->head = segment->frame_head;
	frames->chain = segment->frame_chain;
	own->frame_state = segment->frame_state;
	bpf_spin_unlock(&flow->lock);
}

/* Whether the segment is one of frames, as far as is known: then frames_take() tells of
 * it, and frames_end() must follow. */
static __noinline bool frames_begin(struct __sk_buff *skb, struct flow *flow, struct segment *segment,
				    const struct capture *capture)
{
	__u32 source = segment->source & 1;
	struct flow_direction *own = &flow->direction[source];
	const struct flow_frames *frames = &flow->frames[source];

	if (own->frame_state == FRAME_NONE && !(capture && capture->frame_bytes[source]))
		return false;
	/* A direction's packets hardly ever pass two CPUs at once; who comes second copies
	 * what it has. */
	bpf_spin_lock(&flow->lock);
	segment->frame_state = own->frame_state;
	segment->frame_seq = frames->seq;
	segment->frame_head = frames->head;
	segment->frame_chain = frames->chain;
	own->frame_state = FRAME_BUSY;
	bpf_spin_unlock(&flow->lock);
	if (segment->frame_state == FRAME_BUSY)
		return false;
	if (segment->frame_state == FRAME_UNTRIED)
		frames_first(skb, segment);
	else if (segment->frame_state != FRAME_NONE && frames_broke(segment))
		segment->frame_state = FRAME_NONE;
	if (segment->frame_state == FRAME_NONE && capture)
		frames_presume(segment, capture);
	if (segment->frame_state == FRAME_NONE) {
		frames_end(flow, segment);
		return false;
	}
	segment->believed = capture && capture->frame_chain[source] == segment->frame_chain;
	segment->presumed = 0;
	segment->told = 0;
	segment->tcp_flags = segment->header.tcp_flags;
	return true;
}

/* Tells of what comes until `end`, after which so many bytes are left out. */
static __noinline void frames_tell(struct __sk_buff *skb, struct segment *segment, __u32 end, __u32 left_out_bytes)
{
	struct event_payload *header = &segment->header;
	__u32 told = segment->told, bytes = end - told, share;

	header->seq = segment->seq + told;
	header->payload_bytes = bytes;
	header->left_out_bytes = left_out_bytes;
	/* The stream's end is behind the last record. */
	header->tcp_flags =
	    end == segment->bytes && !left_out_bytes ? segment->tcp_flags : segment->tcp_flags & ~(TCP_FIN | TCP_RST);
	segment->told = end;
	if (segment->believed && bytes <= FRAME_UNSHED_BYTES)
		share = payload_of_turn(segment->turn_bytes + told, bytes);
	else
		share = payload_share(segment->turn_bytes + told, bytes);
	payload_write(skb, segment->offset + told, share);
	header->frame_chain = 0;
}

/* The next bytes of a frame's length and type; they begin at `at`. False: more of them
 * are to come. */
static __always_inline bool frames_head(struct __sk_buff *skb, struct segment *segment, __u32 at)
{
	__u8 head[4] = {}, type;
	__u32 length;

	if (segment->frame_state == FRAME_HEAD && segment->bytes - at >= sizeof(head)) {
		if (bpf_skb_load_bytes(skb, segment->offset + at, head, sizeof(head)))
			goto none;
		segment->frame_head = (__u32)head[0] << 24 | (__u32)head[1] << 16 | (__u32)head[2] << 8 | head[3];
	} else {
		if (bpf_skb_load_bytes(skb, segment->offset + at, head, 1))
			goto none;
		segment->frame_head = segment->frame_head << 8 | head[0];
		segment->frame_state++;
		if (segment->frame_state < FRAME_COPIED)
			return false;
	}
	length = segment->frame_head >> 8;
	type = segment->frame_head;
	if (!segment->believed && (length > FRAME_PRESUMED_BYTES_MAX || type > FRAME_TYPE_MAX))
		goto none;
	segment->frame_state = FRAME_COPIED;
	if (segment->believed && type == FRAME_TYPE_DATA && length >= FRAME_LONG_BYTES)
		segment->frame_state = FRAME_LEFT_OUT;
	return true;
none:
	segment->frame_state = FRAME_NONE;
	return true;
}

/*
 * Goes on to the next frame of the segment in `segments`: 0 if there is none. The
 * verifier walks it once, as it is not static.
 */
__noinline int frames_step(struct __sk_buff *skb)
{
	__u32 at, length, kept, next;
	struct segment *segment;

	if (!config.audit)
		return 0;
	segment = segment_of_cpu();
	if (!segment)
		return 0;
	if (segment->frame_state < FRAME_COPIED) {
		at = segment->frame_seq + (segment->frame_state - FRAME_HEAD) - segment->seq;
		if (at >= segment->bytes)
			return 0;
		if (segment->frame_state == FRAME_HEAD && !segment->believed && !segment->presumed) {
			if (at)
				frames_tell(skb, segment, at, 0);
			segment->header.frame_chain = segment->frame_chain;
			segment->presumed = 1;
		}
		if (!frames_head(skb, segment, at))
			return 1;
		if (segment->frame_state == FRAME_NONE)
			return 0;
	}
	length = FRAME_HEADER_BYTES + (segment->frame_head >> 8);
	/* From the segment's first byte; what came before it is less than nothing. */
	kept = segment->frame_seq + FRAME_HEAD_BYTES - segment->seq;
	next = segment->frame_seq + length - segment->seq;
	if (segment->frame_state == FRAME_LEFT_OUT) {
		if ((__s32)(kept - segment->told) > 0) {
			if ((__s32)(kept - segment->bytes) > 0)
				return 0;
			frames_tell(skb, segment, kept, next - kept);
		}
		segment->told = (__s32)(next - segment->bytes) < 0 ? next : segment->bytes;
	}
	if ((__s32)(next - segment->bytes) > 0)
		return 0;
	segment->frame_seq += length;
	segment->frame_state = FRAME_HEAD;
	return 1;
}

/* Tells of the segment in `segments`, without contents that nobody needs. */
__noinline int frames_take(struct __sk_buff *skb)
{
	struct segment *segment;
	int more = 1;

	if (!config.audit)
		return 0;
	segment = segment_of_cpu();
	if (!segment)
		return 0;
	for (int i = 0; i < FRAMES_FOLLOWED && more; i++)
		more = frames_step(skb);
	if (more)
		segment->frame_state = FRAME_NONE;
	if (segment->told < segment->bytes) {
		frames_tell(skb, segment, segment->bytes, 0);
	} else if (segment->frame_state != FRAME_LEFT_OUT || (segment->tcp_flags & (TCP_FIN | TCP_RST))) {
		/* Where the stream has come to. */
		frames_tell(skb, segment, segment->bytes, 0);
	}
	return 0;
}

#endif
