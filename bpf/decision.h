/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A connection's first packet: whether a rule is about it, and which target it gets. */
#ifndef WEIR_DECISION_H
#define WEIR_DECISION_H

#include "flow.h"
#include "nat.h"

/* Beside enum refusal. */
#define DECIDED -1
#define NOT_CONCERNED -2

/*
 * What is being put together. In a map, because it is too much for the stack, and
 * because the functions from here on that are not static are verified once and by
 * themselves: they share nothing but this. A CPU works on one packet at a time.
 */
struct decision {
	struct packet packet; /* named as its client sees it, then as its server does */
	struct packet quote;  /* what an ICMP error quotes */
	struct translation way[WAYS];
	struct flow_origin origin;
	struct ip_layer ip; /* the name that the server sees, while it is put together */
	struct ports ports;
	struct flow_key forgotten[WAYS]; /* of a translation that is taken out */
	__u32 hash;			 /* of the connection */
	__u32 ifindex;			 /* of delivery */
	__u8 delivery;			 /* enum delivery, if it was translated */
	__u8 translated;		 /* 1: at this hook */
	__u16 beyond_first;		 /* port asked, counted from the match's first */
	__u8 fast_path;
	__u8 forged;	/* the rule names the source */
	__u8 foreign;	/* no rule, but another port is needed */
	__u8 onward;	/* whom the client asked appears to ask a server outside */
	__u8 even_held; /* a name that the server may hold will do */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct decision);
	__uint(max_entries, 1);
} decisions SEC(".maps");

static __always_inline struct decision *decision_of_cpu(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&decisions, &index);
}

static __always_inline bool address_equal(const __u8 a[16], const __u8 b[16])
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline bool mac_equal(const __u8 a[6], const __u8 b[6])
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

static __always_inline void address_copy(__u8 to[16], const __u8 from[16])
{
	const __u32 *x = (const __u32 *)from;
	__u32 *y = (__u32 *)to;

	y[0] = x[0];
	y[1] = x[1];
	y[2] = x[2];
	y[3] = x[3];
}

static __always_inline bool decide_has_ports(__u8 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_UDPLITE ||
	       protocol == PROTOCOL_SCTP;
}

/* From a hook for ingress to the one for egress at the same interface. */
#define TO_EGRESS ((__u64)(HOOK_EGRESS - HOOK_INGRESS) << 32)

/*
 * A packet with a translated flow's name, there where that flow's own packets do
 * not have it yet: the client speaks to the server directly, from the same port. Or
 * whom the client asked does: what is sent on in its name is not seen at ingress.
 */
static __always_inline bool decide_is_foreign(const struct flow *flow, const struct packet *packet, __u64 owner)
{
	__u64 edge = flow->edge[WAY_TO_SERVER];

	return (edge == owner || edge == owner + TO_EGRESS) && packet->source == flow->initiator;
}

/* Whether a packet is the first one of a connection, as far as this hook can tell. */
static __always_inline bool decide_may_begin(const struct flow *flow, const struct packet *packet, __u64 owner)
{
	const struct flow_direction *direction;

	if (packet->later_fragment || packet->quote_offset)
		return false;
	if (packet->key.protocol == PROTOCOL_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return false;
	if (!flow || flow->state >= FLOW_CLOSED || decide_is_foreign(flow, packet, owner))
		return true;
	/* It may have passed other hooks, but not this one. */
	direction = &flow->direction[packet->source & 1];
	return flow->state == FLOW_NEW && !flow->edge[WAY_TO_SERVER] && packet->source == flow->initiator &&
	       direction->point[0].owner != owner && !direction->point[1].owner;
}

/* What the packet says, before anything is decided. */
static __always_inline void decide_begin(struct decision *decision)
{
	const struct packet *packet = &decision->packet;
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];
	__u32 source = packet->source & 1;
	const __u8 *client = packet->key.address[0], *server = packet->key.address[1];
	__u16 client_port = packet->key.port[0], server_port = packet->key.port[1];

	if (source) {
		client = packet->key.address[1];
		server = packet->key.address[0];
		client_port = packet->key.port[1];
		server_port = packet->key.port[0];
	}
	__builtin_memset(decision->way, 0, sizeof(decision->way));
	__builtin_memset(&decision->origin, 0, sizeof(decision->origin));
	decision->fast_path = decision->forged = decision->foreign = decision->onward = decision->even_held = 0;
	decision->hash = key_hash(&packet->key);
	decision->origin.asked_source = source;
	decision->origin.asked = packet->key;
	address_copy(there->source, client);
	address_copy(there->destination, server);
	there->source_port = client_port;
	there->destination_port = server_port;
	address_copy(back->source, server);
	address_copy(back->destination, client);
	back->source_port = server_port;
	back->destination_port = client_port;
}

/* Of a whole key of `redirect_clients`. */
#define REDIRECT_CLIENT_BITS (8 * (sizeof(struct redirect_client) - sizeof(__u32)))

static __always_inline bool decide_is_client(__u32 rule, const struct decision *decision)
{
	struct redirect_client client = { .prefix_bits = REDIRECT_CLIENT_BITS, .rule = rule };

	address_copy(client.address, decision->way[WAY_TO_CLIENT].destination);
	return bpf_map_lookup_elem(&redirect_clients, &client);
}

static __always_inline bool decide_in_force(__u32 id)
{
	const struct redirect_rule *rule = bpf_map_lookup_elem(&redirect_rules, &id);

	return rule && (!rule->expires_ns || rule->expires_ns > bpf_ktime_get_ns());
}

/* Whether the match of that index is about the connection to be decided, and its
 * rule in force: 1, or 0 for the next one, or NOT_CONCERNED after the last. */
__noinline int decide_matches(__u32 index)
{
	struct decision *decision = decision_of_cpu();
	const struct redirect_match *match;
	struct redirect_set *set;
	__u8 protocol;
	__u16 port;

	if (!config.redirect || !decision || index >= REDIRECT_MATCHES)
		return NOT_CONCERNED;
	set = bpf_map_lookup_elem(&redirects, decision->way[WAY_TO_CLIENT].source);
	if (!set)
		return NOT_CONCERNED;
	match = &set->match[index];
	if (!match->rule)
		return NOT_CONCERNED;
	protocol = decision->origin.asked.protocol;
	port = decide_has_ports(protocol) ? decision->way[WAY_TO_CLIENT].source_port : 0;
	if (match->protocol && match->protocol != protocol)
		return 0;
	if (port < match->port_first || port > match->port_last)
		return 0;
	if (match->limited && !decide_is_client(match->rule, decision))
		return 0;
	if (!decide_in_force(match->rule))
		return 0;
	decision->origin.rule = match->rule;
	decision->beyond_first = port - match->port_first;
	return 1;
}

/* The target that a rule has for this connection: DECIDED, or a refusal. */
static __always_inline int decide_target(struct decision *decision, const struct redirect_rule *rule)
{
	struct translation *there = &decision->way[WAY_TO_SERVER];
	struct redirect_target *target;
	__u32 slot = decision->hash % REDIRECT_SLOTS, id;

	/* The verifier knows nothing of remainders, and clang all. */
	asm volatile("" : "+r"(slot));
	if (slot >= REDIRECT_SLOTS)
		return REFUSED_NO_TARGET;
	id = rule->slot[slot];
	target = id ? bpf_map_lookup_elem(&redirect_targets, &id) : NULL;
	if (!target)
		return REFUSED_NO_TARGET;
	address_copy(there->destination, target->address);
	if (target->port_first && decide_has_ports(decision->origin.asked.protocol))
		there->destination_port = target->port_first + decision->beyond_first;
	return DECIDED;
}

/* The connection's rule and its target: DECIDED, NOT_CONCERNED or a refusal. */
static __always_inline int decide_rule(struct decision *decision)
{
	struct translation *there = &decision->way[WAY_TO_SERVER], *back = &decision->way[WAY_TO_CLIENT];
	struct redirect_rule *rule;
	const __u32 *forged;
	int result = 0;

	for (__u32 i = 0; i < REDIRECT_MATCHES && !result; i++)
		result = decide_matches(i);
	if (result != 1)
		return NOT_CONCERNED;
	rule = bpf_map_lookup_elem(&redirect_rules, &decision->origin.rule);
	if (!rule)
		return NOT_CONCERNED;
	result = decide_target(decision, rule);
	if (result != DECIDED)
		return result;
	forged = (const __u32 *)rule->source;
	decision->fast_path = rule->fast_path;
	decision->forged = forged[0] || forged[1] || forged[2] || forged[3];
	if (decision->forged)
		address_copy(there->source, rule->source);
	/* One of several targets may be what was asked for. */
	else if (address_equal(there->destination, back->source) && there->destination_port == back->source_port)
		return NOT_CONCERNED;
	return DECIDED;
}

#endif
