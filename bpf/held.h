/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Names that servers hold. Who ends a TCP connection first keeps its two ends for a
 * while (TIME_WAIT), and takes a new connection of the same name only if its sequence
 * numbers go on from the old one. Those of one client do, where it asks the same again;
 * a connection that was asked for otherwise has others, and half of them are refused.
 */
#ifndef WEIR_HELD_H
#define WEIR_HELD_H

#include "keeper.h"
#include "maps.h"

/* As long as Linux holds a name (TCP_TIMEWAIT_LEN). */
#define HELD_NS (60 * SECOND_NS)

struct held_name {
	__u64 since_ns;
	__u32 asked_hash; /* of the connection's name as its client saw it */
	__u32 pad;
};

/*
 * By the name that the server knows. Programs only. Apart from `flows`, for user space
 * takes out what has ended long before the server forgets it. An LRU, because what falls
 * out costs a client a second, not its connection; 65,536 is room for a thousand ends a
 * second.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct held_name);
	__uint(max_entries, 65536);
} held_names SEC(".maps");

static __noinline __u32 key_hash(const struct flow_key *key)
{
	const __u32 *words = (const __u32 *)key;
	__u64 hash = 0;

	if (!key)
		return 0;
#pragma unroll
	for (int i = 0; i < (int)(sizeof(*key) / sizeof(*words)); i++) {
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 29;
	}
	return hash >> 32;
}

/* The server of this connection holds its name from now on. */
static __noinline void held_begin(const struct flow_key *name, const struct flow *flow)
{
	struct held_name held = { .since_ns = bpf_ktime_get_ns() };

	if (!name || !flow)
		return;
	held.asked_hash = key_hash(flow->edge[WAY_TO_SERVER] ? &flow->asked : name);
	bpf_map_update_elem(&held_names, name, &held, BPF_ANY);
}

/* Whether the server may hold this name for a connection that was asked for otherwise. */
static __noinline bool held_for_another(const struct flow_key *name, const struct flow_key *asked)
{
	struct held_name *held;

	if (!name || !asked || name->protocol != PROTOCOL_TCP)
		return false;
	held = bpf_map_lookup_elem(&held_names, name);
	return held && held->asked_hash != key_hash(asked) && held->since_ns + HELD_NS > bpf_ktime_get_ns();
}

#endif
