/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Counting what is in no flow. */
#ifndef WEIR_TALLY_H
#define WEIR_TALLY_H

#include "maps.h"

static __noinline void tally_count(struct __sk_buff *skb, __u8 hook, __u8 reason)
{
	struct tally_key key = { .ifindex = skb->ifindex, .hook = hook, .reason = reason };
	struct tally none = {};
	struct tally *tally;

	tally = bpf_map_lookup_elem(&tallies, &key);
	if (!tally) {
		bpf_map_update_elem(&tallies, &key, &none, BPF_NOEXIST);
		tally = bpf_map_lookup_elem(&tallies, &key);
	}
	if (!tally) {
		__sync_fetch_and_add(&losses.tally_full, 1);
		return;
	}
	__sync_fetch_and_add(&tally->packets, 1);
	__sync_fetch_and_add(&tally->bytes, skb->len);
}

#endif
