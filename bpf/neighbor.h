/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Answers to "who has this address?" for addresses that no one has: virtual ones,
 * and forged sources. The question is turned into its answer, and sent back.
 */
#ifndef WEIR_NEIGHBOR_H
#define WEIR_NEIGHBOR_H

#include "nat.h"
#include "place.h"
#include "redirect.h"

#define ARP_REQUEST 1
#define ARP_REPLY 2

/* RFC 826, for IPv4 over Ethernet; as it lies on the wire without gaps. */
struct arp_message {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_bytes;
	__u8 protocol_bytes;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
};

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_SOLICITED_OVERRIDE 0x60000000
#define ND_OPTION_SOURCE 1
#define ND_OPTION_TARGET 2
/* It has not been forwarded (RFC 4861, 7.1.1). */
#define ND_HOP_LIMIT 255

/* RFC 4861, 4.3 and 4.4: the same layout for question and answer. */
struct nd_message {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__be64 target[2];
};

struct nd_option {
	__u8 type;
	__u8 length; /* in units of 8 bytes */
	__u8 mac[6];
};

/* What is to be answered, and where. */
struct neighbor_answer {
	__u8 mac[6];
	__u32 ifindex;
	__u64 flags; /* of bpf_redirect() */
};

/*
 * Whether the rule of that index, of those for the virtual address in `decisions`, is in
 * force and lets in who asks: by the address that stands there too, or by the interface
 * (as in redirect_asker; 0: the host). 1, or 0 for the next one, or NOT_CONCERNED after
 * the last.
 */
__noinline int neighbor_admits(__u32 index, __u32 ifindex)
{
	struct decision *decision = decision_of_cpu();
	struct redirect_asker asker = { .ifindex = ifindex };
	const struct redirect_match *match;
	struct redirect_set *set;

	if (!config.redirect || !decision || index >= REDIRECT_MATCHES)
		return NOT_CONCERNED;
	set = bpf_map_lookup_elem(&redirects, decision->way[WAY_TO_CLIENT].source);
	if (!set)
		return NOT_CONCERNED;
	match = &set->match[index];
	asker.rule = match->rule;
	if (!asker.rule)
		return NOT_CONCERNED;
	if (!decide_in_force(asker.rule))
		return 0;
	if (!match->limited || bpf_map_lookup_elem(&redirect_askers, &asker))
		return 1;
	return ifindex && decide_is_client(asker.rule, decision);
}

/* Whether a rule on the virtual address `asked` lets in who asks for it. */
static __noinline bool neighbor_is_let_in(const __u8 *asked, const __u8 *asker, __u32 ifindex)
{
	struct decision *decision = decision_of_cpu();
	int admitted = 0;

	if (!decision || !asked || !asker)
		return false;
	__builtin_memcpy(decision->way[WAY_TO_CLIENT].source, asked, 16);
	__builtin_memcpy(decision->way[WAY_TO_CLIENT].destination, asker, 16);
	for (__u32 i = 0; i < REDIRECT_MATCHES && !admitted; i++)
		admitted = neighbor_admits(i, ifindex);
	return admitted == 1;
}

/*
 * Whether weir answers for an address at this hook. Containers are told the host's
 * MAC: what they send there is translated at this very hook. The host is told the
 * MAC of a target, so that its packets go to that one's veth, and is answered at the
 * bridge that asked. Nobody is answered anywhere else, nor who is no rule's client.
 */
static __always_inline bool neighbor_find(struct __sk_buff *skb, __u32 hook, const __u8 address[16],
					  const __u8 asker[16], const __u8 asker_mac[6], struct neighbor_answer *answer)
{
	struct forged_source forged = { .ifindex = skb->ifindex };
	struct interface_place *here;
	struct place *target;

	here = bpf_map_lookup_elem(&interfaces, &forged.ifindex);
	if (!here || !here->container_side)
		return false;
	target = bpf_map_lookup_elem(&virtual_addresses, address);
	if (hook == HOOK_EGRESS) {
		if (!target || target->ifindex != forged.ifindex || !mac_equal(asker_mac, here->host_mac) ||
		    !neighbor_is_let_in(address, asker, 0))
			return false;
		__builtin_memcpy(answer->mac, target->mac, sizeof(answer->mac));
		answer->ifindex = here->bridge_ifindex;
		answer->flags = BPF_F_INGRESS;
		return true;
	}
	address_copy(forged.address, address);
	if (!(target && neighbor_is_let_in(address, asker, forged.ifindex)) &&
	    !bpf_map_lookup_elem(&forged_sources, &forged))
		return false;
	__builtin_memcpy(answer->mac, here->host_mac, sizeof(answer->mac));
	answer->ifindex = forged.ifindex;
	answer->flags = 0;
	return true;
}

static __always_inline void neighbor_turn(struct ethernet_header *ethernet, const __u8 mac[6])
{
	__builtin_memcpy(ethernet->destination, ethernet->source, sizeof(ethernet->destination));
	__builtin_memcpy(ethernet->source, mac, sizeof(ethernet->source));
}

static __always_inline bool neighbor_arp(struct __sk_buff *skb, __u32 hook, struct neighbor_answer *answer)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet_header *ethernet = data;
	struct arp_message *arp = (void *)(ethernet + 1);
	__u8 address[16] = { [10] = 0xff, [11] = 0xff }, asker[16] = { [10] = 0xff, [11] = 0xff };
	__u32 sender, target;

	if ((void *)(arp + 1) > end || ethernet->ethertype != bpf_htons(ETHERTYPE_ARP))
		return false;
	if (arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETHERTYPE_IPV4) || arp->hardware_bytes != 6 ||
	    arp->protocol_bytes != 4 || arp->operation != bpf_htons(ARP_REQUEST))
		return false;
	__builtin_memcpy(&sender, arp->sender, sizeof(sender));
	__builtin_memcpy(&target, arp->target, sizeof(target));
	__builtin_memcpy(&address[12], &target, sizeof(target));
	__builtin_memcpy(&asker[12], &sender, sizeof(sender));
	/* One that has no address yet asks whether it may have this one; one that asks for
	 * its own tells it to all. */
	if (!sender || sender == target)
		return false;
	if (!neighbor_find(skb, hook, address, asker, ethernet->source, answer))
		return false;
	neighbor_turn(ethernet, answer->mac);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, sizeof(arp->target_mac));
	__builtin_memcpy(arp->target, arp->sender, sizeof(arp->target));
	__builtin_memcpy(arp->sender_mac, answer->mac, sizeof(arp->sender_mac));
	__builtin_memcpy(arp->sender, &target, sizeof(arp->sender));
	return true;
}

static __always_inline __u32 neighbor_sum(__u32 sum, const __be64 *words, int count)
{
#pragma unroll
	for (int i = 0; i < count; i++)
		sum = nat_sum_add(nat_sum_add(sum, words[i] >> 32), (__u32)words[i]);
	return sum;
}

static __always_inline bool neighbor_nd(struct __sk_buff *skb, __u32 hook, struct neighbor_answer *answer)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet_header *ethernet = data;
	struct ipv6_header *ip = (void *)(ethernet + 1);
	struct nd_message *message = (void *)(ip + 1);
	struct nd_option *option = (void *)(message + 1);
	__u8 address[16], asker[16];
	bool has_option;
	__u32 sum;

	if ((void *)(message + 1) > end || ethernet->ethertype != bpf_htons(ETHERTYPE_IPV6) ||
	    ip->next_header != PROTOCOL_ICMPV6 || ip->hop_limit != ND_HOP_LIMIT)
		return false;
	if (message->type != ND_SOLICITATION || message->code)
		return false;
	/* Duplicate address detection. */
	if (!ip->source[0] && !ip->source[1])
		return false;
	has_option = ip->payload_length == bpf_htons(sizeof(*message) + sizeof(*option));
	if (!has_option && ip->payload_length != bpf_htons(sizeof(*message)))
		return false;
	if (has_option && ((void *)(option + 1) > end || option->type != ND_OPTION_SOURCE || option->length != 1))
		return false;
	__builtin_memcpy(address, message->target, sizeof(address));
	__builtin_memcpy(asker, ip->source, sizeof(asker));
	if (!neighbor_find(skb, hook, address, asker, ethernet->source, answer))
		return false;
	neighbor_turn(ethernet, answer->mac);
	__builtin_memcpy(ip->destination, ip->source, sizeof(ip->destination));
	__builtin_memcpy(ip->source, message->target, sizeof(ip->source));
	message->type = ND_ADVERTISEMENT;
	message->flags = bpf_htonl(ND_SOLICITED_OVERRIDE);
	message->checksum = 0;
	sum = neighbor_sum(0, ip->source, 4);
	sum = neighbor_sum(sum, (__be64 *)message, sizeof(*message) / sizeof(__be64));
	sum = nat_sum_add(sum, ip->payload_length);
	sum = nat_sum_add(sum, bpf_htons(PROTOCOL_ICMPV6));
	if (has_option) {
		option->type = ND_OPTION_TARGET;
		__builtin_memcpy(option->mac, answer->mac, sizeof(option->mac));
		sum = neighbor_sum(sum, (__be64 *)option, 1);
	}
	message->checksum = nat_checksum_change(0xffff, sum);
	return true;
}

/* A packet that is ARP or neighbour discovery: answers it, if it asks for an address
 * that weir answers for. The program's verdict. */
__noinline int neighbor_answer(struct __sk_buff *skb, __u32 hook)
{
	struct neighbor_answer answer = {};
	__u32 bytes = sizeof(struct ethernet_header) + sizeof(struct ipv6_header) + sizeof(struct nd_message) +
		      sizeof(struct nd_option);

	if (!config.redirect)
		return NEXT_PROGRAM;
	if (bpf_skb_pull_data(skb, skb->len < bytes ? skb->len : bytes))
		return NEXT_PROGRAM;
	if (!neighbor_arp(skb, hook, &answer) && !neighbor_nd(skb, hook, &answer))
		return NEXT_PROGRAM;
	return bpf_redirect(answer.ifindex, answer.flags);
}

#endif
