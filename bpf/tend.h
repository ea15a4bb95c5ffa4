/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Flows that begin while no weir keeps the table: the programs take them out
 * themselves when they have ended.
 *
 * User space does it better: it reads the whole table, and tells what it takes
 * out. But pinned programs outlive it, and a table that nobody clears is full some
 * day: then no connection is redirected any more.
 */
#ifndef WEIR_TEND_H
#define WEIR_TEND_H

#include "clock.h"
#include "connect.h"
#include "flow.h"
#include "keeper.h"

/* Places looked at for one flow that begins: more go than come. */
#define TEND_PLACES 2

/* Whether this hook counts the first packet of a flow. */
static __always_inline bool tend_begins(const struct flow *flow, const struct packet *packet, __u64 owner)
{
	const struct flow_point *point = &flow->direction[packet->source & 1].point[0];

	return point->owner == owner && point->packets == 1 && packet->source == flow->initiator;
}

/* As crates/core/src/flow/timeout.rs has it, with less to tell apart: the table is to
 * last, not to be exact. */
static __always_inline __u64 tend_idle_ns(const struct flow *flow, __u8 protocol)
{
	if (flow->state >= FLOW_CLOSED)
		return SECOND_NS;
	if (flow->state != FLOW_ESTABLISHED)
		return 60 * SECOND_NS;
	if (protocol != PROTOCOL_TCP)
		return 120 * SECOND_NS;
	return flow->edge[WAY_TO_SERVER] ? 5 * 86400 * SECOND_NS : 600 * SECOND_NS;
}

static __always_inline void tend_take_out(struct flow_key *key)
{
	struct translation *back;

	key->way = WAY_TO_CLIENT;
	back = bpf_map_lookup_elem(&translations, key);
	key->way = 0;
	if (back)
		connect_forget(decision_of_cpu(), &back->other, key);
	bpf_map_delete_elem(&flows, key);
}

/*
 * Remembers a flow, if one has begun, in the place of one that has ended and is taken
 * out. Places are taken in turn, two for each that begins, so that half of them are
 * empty where all flows end soon. If both have a flow that lives, the new one is not
 * remembered: it stays until somebody keeps the table again. Should two CPUs write
 * one place at once, what stands there then is no flow's key.
 */
static __noinline void tend_remember(const struct flow_key *begun)
{
	__u64 now_ns = clock_coarse_ns();
	bool remembered = !begun;

#pragma unroll
	for (int i = 0; i < TEND_PLACES; i++) {
		__u32 place = tended_next++;
		struct flow_key *kept, key;
		struct flow *flow;

		place %= config.tended_flows ?: 1;
		kept = bpf_map_lookup_elem(&tended, &place);
		if (!kept)
			return;
		key = *kept;
		flow = bpf_map_lookup_elem(&flows, &key);
		if (flow && flow->last_ns + tend_idle_ns(flow, key.protocol) > now_ns)
			continue;
		if (flow)
			tend_take_out(&key);
		if (!remembered && begun)
			*kept = *begun;
		remembered = true;
	}
}

/* A packet found no room: some is made for the next one. */
static __always_inline void tend_make_room(void)
{
	if (!config.tended_flows)
		return;
	/* Where nothing is counted any more, nobody else sets the time. */
	clock_coarse_ns();
	if (keeper_is_gone())
		tend_remember(NULL);
}

#endif
