/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Translations that this processor has just used: found without a call, which is what
 * a lookup costs. A connection's translation never changes, so a place here is right as
 * long as its flow is in the table and lives; nobody has to clear it.
 */
#ifndef WEIR_RECENT_H
#define WEIR_RECENT_H

#include "maps.h"
#include "packet.h"

struct recent_translation {
	struct flow_key key; /* as in `translations` */
	__u64 flow_first_ns; /* with the name of the flow it says which connection this is */
	struct translation way;
};

/* A power of 2. Should more connections than that speak at a time, some take turns, and
 * find their translation where it is kept. */
#define RECENT_BITS 10

/* Programs only. 180 KiB a processor. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct recent_translation);
	__uint(max_entries, 1 << RECENT_BITS);
} recent_translations SEC(".maps");

/* By what differs between connections: the ends of addresses, and ports. */
static __always_inline struct recent_translation *recent_place(const struct flow_key *key, __u8 way)
{
	const __u32 *words = (const __u32 *)key;
	__u32 mixed = words[3] * 0x9e3779b1U ^ words[7] * 0x85ebca6bU ^ (words[8] + way) * 0xc2b2ae35U;
	__u32 index = ((mixed ^ mixed >> 15) * 0x27d4eb2fU) >> (32 - RECENT_BITS);

	return bpf_map_lookup_elem(&recent_translations, &index);
}

static __always_inline bool recent_is(const struct recent_translation *recent, const struct flow_key *key, __u8 way)
{
	const __u32 *a = (const __u32 *)&recent->key, *b = (const __u32 *)key;

	return a[8] == b[8] && a[3] == b[3] && a[7] == b[7] && a[0] == b[0] && a[1] == b[1] && a[2] == b[2] &&
	       a[4] == b[4] && a[5] == b[5] && a[6] == b[6] && recent->key.protocol == key->protocol &&
	       recent->key.icmp_type == key->icmp_type && recent->key.way == way;
}

/* In words: its fields are short, and the compiler would copy them one by one. */
static __always_inline void recent_name(struct flow_key *to, const struct flow_key *from)
{
	const __u32 *x = (const __u32 *)from;
	__u32 *y = (__u32 *)to;

#pragma unroll
	for (int i = 0; i < (int)(sizeof(*to) / sizeof(*y)); i++)
		y[i] = x[i];
}

/* Whether it is a translation of this flow, and the flow lives. */
static __always_inline bool recent_stands(const struct recent_translation *recent, const struct flow *flow)
{
	return flow->first_ns == recent->flow_first_ns && flow->state < FLOW_CLOSED;
}

/* `key` is as in `translations`. */
static __noinline void recent_keep(const struct flow_key *key, const struct translation *way, const struct flow *flow)
{
	struct recent_translation *recent;

	if (!key || !way || !flow)
		return;
	recent = recent_place(key, key->way);
	if (!recent)
		return;
	recent->key = *key;
	recent->flow_first_ns = flow->first_ns;
	recent->way = *way;
}

#endif
