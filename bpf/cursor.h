/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * A cursor that checks, advances and hands out one header at a time. It reads
 * the linear part of a packet in place and never copies; headers that lie
 * outside it are rare, and pulled in.
 */
#ifndef WEIR_CURSOR_H
#define WEIR_CURSOR_H

#include "abi.h"

/* All of a packet's headers, the link layer's included. */
#define HEADERS_BYTES_MAX 1024

/* Beside 0 (a flow key was found) and the reasons of enum tally_reason. */
#define PARSE_SHORT -1

/* Always 0, but the verifier does not know: what it is added to is any number
 * to it, and paths that differ in that number only are one path again. */
volatile __u32 zero = 0;

struct cursor {
	void *data;
	void *end;
	__u32 offset; /* from the start of the frame */
	__u32 length; /* of the frame; more than end - data when it is not linear */
};

/* The next `size` bytes, or NULL with *result saying which kind of end it is. */
static __always_inline void *cursor_take(struct cursor *cursor, __u32 size, int *result)
{
	__u32 offset = cursor->offset;
	void *at;

	/* Compared and added must be one register: verifiers to Linux 6.1 know no bounds
	 * of a number that was on the stack in between. */
	asm volatile("" : "+r"(offset));
	if (offset > HEADERS_BYTES_MAX - size) {
		*result = TALLY_HEADERS_TOO_DEEP;
		return NULL;
	}
	at = cursor->data + offset;
	if (at + size > cursor->end) {
		*result = offset + size > cursor->length ? TALLY_TRUNCATED : PARSE_SHORT;
		return NULL;
	}
	cursor->offset = offset + size;
	return at;
}

#endif
