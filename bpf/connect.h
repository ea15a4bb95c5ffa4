/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A redirected connection's beginning: its name on the server's side, and its entries. */
#ifndef WEIR_CONNECT_H
#define WEIR_CONNECT_H

#include "place.h"

/* Ports for connections that a server would take for others: Linux's own range
 * for clients, where no server is expected. */
#define PORT_FIRST 32768
#define PORT_COUNT (60999 - PORT_FIRST + 1)
#define PORT_TRIES 32 /* and as many that the server may hold, if none is free */
/* For those that go on in a container's name: where it has no clients of its own. Else one
 * that was quiet since before weir began, and is in no table, could have the same name. */
#define ONWARD_PORT_FIRST 1024
#define ONWARD_PORT_COUNT (PORT_FIRST - ONWARD_PORT_FIRST)
/* Coprime to both counts, so that no port is tried twice. */
#define PORT_STRIDE 7919

static __noinline void connect_count(__u32 rule, int result)
{
	struct redirect_counters *counters;

	rule -= rule % RULE_VARIANTS;
	counters = bpf_map_lookup_elem(&redirect_counters, &rule);
	if (!counters)
		return;
	if (result == DECIDED)
		__sync_fetch_and_add(&counters->hits, 1);
	else if (result >= 0 && result < REFUSALS)
		__sync_fetch_and_add(&counters->refused[result], 1);
}

/* Takes both directions of a translation out. Either key may stand in the other's
 * entry, which is gone, and perhaps another's, once it is deleted. */
static __noinline void connect_forget(struct decision *decision, const struct flow_key *asked,
				      const struct flow_key *translated)
{
	struct flow_key *there, *back;

	if (!decision || !asked || !translated)
		return;
	there = &decision->forgotten[WAY_TO_SERVER];
	back = &decision->forgotten[WAY_TO_CLIENT];
	*there = *asked;
	*back = *translated;
	there->way = WAY_TO_SERVER;
	back->way = WAY_TO_CLIENT;
	bpf_map_delete_elem(&translations, there);
	bpf_map_delete_elem(&translations, back);
}

/* Whether a translation's flow lives: then it stands, whatever the rules say now. */
static __always_inline bool connect_stands(const struct translation *way)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &way->other);

	return flow && flow->edge[WAY_TO_SERVER] == way->edge && flow->state < FLOW_CLOSED;
}

/* Names the packet as the server will see it. */
static __always_inline void connect_name(struct decision *decision)
{
	const struct translation *there = &decision->way[WAY_TO_SERVER];

	decision->ports.source = there->source_port;
	decision->ports.destination = there->destination_port;
	decision->ports.icmp_type = decision->packet.key.icmp_type;
	decision->ip.protocol = decision->packet.key.protocol;
	__builtin_memcpy(decision->ip.source, there->source, sizeof(there->source));
	__builtin_memcpy(decision->ip.destination, there->destination, sizeof(there->destination));
	packet_key_set(&decision->packet, &decision->ip, &decision->ports);
}

/*
 * Makes the name that the server would see this connection's flow: 0, -EEXIST where
 * it is that of another one, else there is no room.
 */
__noinline int connect_claim(struct __sk_buff *skb, __u32 hook)
{
	struct decision *decision = decision_of_cpu();
	struct translation *former;
	struct flow_key *key;
	struct flow *flow;
	int error;

	if (!config.redirect || !decision)
		return -ENOENT;
	connect_name(decision);
	/* Where a server is redirected to itself, one name may stand for both sides. */
	if (decision->onward && key_hash(&decision->packet.key) == decision->hash)
		return -EEXIST;
	if (!decision->even_held && held_for_another(&decision->packet.key, &decision->origin.asked))
		return -EEXIST;
	error = flow_open(skb, &decision->packet, hook, &decision->origin);
	if (error != -EEXIST)
		return error;
	key = &decision->packet.key;
	flow = bpf_map_lookup_elem(&flows, key);
	if (!flow || flow->state < FLOW_CLOSED)
		return -EEXIST;
	key->way = WAY_TO_CLIENT;
	former = bpf_map_lookup_elem(&translations, key);
	key->way = 0;
	if (former)
		connect_forget(decision, &former->other, key);
	return flow_reopen(skb, flow, &decision->packet, hook, &decision->origin) ? 0 : -EEXIST;
}

/* By how much the translation changes checksums. */
static __always_inline void connect_sum(struct decision *decision, __u8 protocol)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];
	__u32 addresses = 0, ports = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		addresses = nat_sum_replace(addresses, ((__u32 *)back->destination)[i], ((__u32 *)there->source)[i]);
		addresses = nat_sum_replace(addresses, ((__u32 *)back->source)[i], ((__u32 *)there->destination)[i]);
	}
	ports = nat_sum_replace(ports, bpf_htons(back->source_port), bpf_htons(there->destination_port));
	/* ICMP has one number in the place of both. */
	if (!nat_is_icmp(protocol))
		ports = nat_sum_replace(ports, bpf_htons(back->destination_port), bpf_htons(there->source_port));
	/* All ones are nothing, too. */
	there->address_sum = addresses == ~0U ? 0 : addresses;
	there->port_sum = ports == ~0U ? 0 : ports;
	back->address_sum = addresses ? ~addresses : 0;
	back->port_sum = ports ? ~ports : 0;
	there->set_ports = back->set_ports =
	    back->source_port != there->destination_port || back->destination_port != there->source_port;
}

/* Enters both directions; the packet is named as the server sees it. DECIDED, or a refusal. */
static __noinline int connect_enter(struct decision *decision)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];
	const struct packet *packet = &decision->packet;
	struct flow_key *key = &decision->packet.key;

	there->other = *key;
	there->other_sender = packet->source;
	there->sender = decision->origin.asked_source;
	back->other = decision->origin.asked;
	back->other_sender = !decision->origin.asked_source;
	back->sender = !packet->source;
	there->rule = back->rule = decision->origin.rule;
	connect_sum(decision, key->protocol);

	key->way = WAY_TO_CLIENT;
	if (!bpf_map_update_elem(&translations, key, back, BPF_ANY)) {
		if (!bpf_map_update_elem(&translations, &decision->origin.asked, there, BPF_NOEXIST))
			return DECIDED;
		bpf_map_delete_elem(&translations, key);
	}
	key->way = 0;
	bpf_map_delete_elem(&flows, key);
	/* Another CPU may have been faster with the same connection: then that one's is there. */
	return bpf_map_lookup_elem(&translations, &decision->origin.asked) ? NOT_CONCERNED : REFUSED_TRANSLATIONS_FULL;
}

/* Finds a name that no other connection has at the server. DECIDED, or a refusal. */
static __noinline int connect_claim_any(struct __sk_buff *skb, __u32 hook, struct decision *decision)
{
	struct translation *there = &decision->way[WAY_TO_SERVER];
	__u8 protocol = decision->origin.asked.protocol;
	bool other_ports = decide_has_ports(protocol) || nat_is_icmp(protocol);
	__u32 first = decision->onward ? ONWARD_PORT_FIRST : PORT_FIRST;
	__u32 count = decision->onward ? ONWARD_PORT_COUNT : PORT_COUNT;
	int error;

	/* A foreign connection needs another port from the start. */
	error = decision->foreign || (decision->onward && other_ports) ? -EEXIST : connect_claim(skb, hook);
	for (__u32 try = 1; try <= 2 * PORT_TRIES && error == -EEXIST; try++) {
		if (!other_ports)
			return REFUSED_NO_PORT;
		decision->even_held = try > PORT_TRIES;
		there->source_port = first + (decision->hash + try * PORT_STRIDE) % count;
		if (nat_is_icmp(protocol))
			there->destination_port = there->source_port;
		error = connect_claim(skb, hook);
	}
	if (error == -EEXIST)
		return REFUSED_NO_PORT;
	return error ? REFUSED_FLOWS_FULL : DECIDED;
}

/*
 * What is to become of the connection: DECIDED, NOT_CONCERNED or a refusal. `foreign`:
 * if no rule is about it, it needs another name than its own.
 */
static __noinline int connect_decide(struct __sk_buff *skb, __u32 hook, struct decision *decision, bool foreign)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];
	const struct packet *packet = &decision->packet;
	const __u8 *asked = packet->source & 1 ? packet->key.address[0] : packet->key.address[1];
	struct interface_place *here;
	bool ruled = bpf_map_lookup_elem(&redirects, asked);
	__u32 ifindex = skb->ifindex;
	int result = NOT_CONCERNED;

	if (!ruled && !foreign)
		return NOT_CONCERNED;
	here = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (!here || !place_decides(ifindex, hook, here, asked))
		return NOT_CONCERNED;
	decide_begin(decision);
	if (ruled)
		result = decide_rule(decision);
	if (result == DECIDED)
		return place_ways(skb, decision, hook, here);
	if (result != NOT_CONCERNED || !foreign)
		return result;
	decide_begin(decision);
	decision->foreign = 1;
	there->edge = place_edge(ifindex, hook);
	back->edge = place_edge(ifindex, hook == HOOK_INGRESS ? HOOK_EGRESS : HOOK_INGRESS);
	return DECIDED;
}

/*
 * The connection of the packet in `decisions` begins. Afterwards its translation is
 * in `translations`, if it gets one. DECIDED, NOT_CONCERNED or a refusal: then the
 * packet must not go on.
 */
static __always_inline int connect_begin(struct __sk_buff *skb, __u32 hook)
{
	struct decision *decision = decision_of_cpu();
	struct translation *former;
	bool foreign, held;
	struct flow *flow;
	int result;

	if (!config.redirect || !decision)
		return NOT_CONCERNED;
	former = bpf_map_lookup_elem(&translations, &decision->packet.key);
	if (former) {
		if (connect_stands(former))
			return NOT_CONCERNED;
		connect_forget(decision, &decision->packet.key, &former->other);
	}
	flow = bpf_map_lookup_elem(&flows, &decision->packet.key);
	foreign = flow && flow->state < FLOW_CLOSED &&
		  decide_is_foreign(flow, &decision->packet, flow_point_owner(skb, hook));
	held = held_for_another(&decision->packet.key, &decision->packet.key);
	result = connect_decide(skb, hook, decision, foreign || held);
	if (result == DECIDED) {
		decision->origin.edge[WAY_TO_SERVER] = decision->way[WAY_TO_SERVER].edge;
		decision->origin.edge[WAY_TO_CLIENT] = decision->way[WAY_TO_CLIENT].edge;
		result = connect_claim_any(skb, hook, decision);
		if (result == DECIDED)
			result = connect_enter(decision);
		/* It may as well try its luck with the server. */
		if (result != DECIDED && decision->foreign && !foreign)
			result = NOT_CONCERNED;
		if (result == DECIDED && flow && !foreign)
			flow->superseded = 1;
		decision->packet.key = decision->origin.asked;
		decision->packet.source = decision->origin.asked_source;
	}
	if (result == NOT_CONCERNED)
		return result;
	connect_count(decision->origin.rule, result);
	return result;
}

#endif
