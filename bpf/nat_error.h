/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * ICMP errors that quote a translated packet. The error goes the way on which the
 * quoted packet came, backwards: its receiver must find its own packet in it. So the
 * quote gets the addresses and ports of the way that the error takes, exchanged.
 */
#ifndef WEIR_NAT_ERROR_H
#define WEIR_NAT_ERROR_H

#include "decision.h"
#include "nat.h"

/* What the rewriting adds to sums over the packet. */
struct nat_error_sums {
	__u32 outer; /* of the error's own addresses */
	__u32 quote;
};

static __always_inline __u32 nat_set16(__u32 sum, __be16 *at, __be16 value)
{
	sum = nat_sum_replace(sum, *at, value);
	*at = value;
	return sum;
}

static __always_inline __u32 nat_set32(__u32 sum, __be32 *at, __be32 value)
{
	sum = nat_sum_replace(sum, *at, value);
	*at = value;
	return sum;
}

static __always_inline __u32 nat_set_address(__u32 sum, __be64 at[2], const __u8 address[16])
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum = nat_set32(sum, (__be32 *)at + i, ((const __u32 *)address)[i]);
	return sum;
}

/* A router in between keeps its own address; but not where the host would see it come in
 * at an interface behind which it is not (rp_filter). */
static __always_inline bool nat_error_turns(const struct translation *way)
{
	return way->delivery == DELIVERY_INGRESS;
}

static __always_inline int nat_error_ipv4(void *outer_at, void *quote_at, const void *end,
					  const struct translation *way, struct nat_error_sums *sums)
{
	struct ipv4_header *outer = outer_at, *quote = quote_at;
	__u32 sum = 0;

	if ((void *)(outer + 1) > end || (void *)(quote + 1) > end)
		return PARSE_SHORT;
	if (outer->source == quote->destination || nat_error_turns(way))
		sum = nat_set32(sum, &outer->source, nat_ipv4(way->source));
	sum = nat_set32(sum, &outer->destination, nat_ipv4(way->destination));
	outer->checksum = nat_checksum_change(outer->checksum, sum);
	sums->outer = sum;

	sum = nat_set32(0, &quote->source, nat_ipv4(way->destination));
	sum = nat_set32(sum, &quote->destination, nat_ipv4(way->source));
	sums->quote = nat_set16(sum, &quote->checksum, nat_checksum_change(quote->checksum, sum));
	return 0;
}

static __always_inline int nat_error_ipv6(void *outer_at, void *quote_at, const void *end,
					  const struct translation *way, struct nat_error_sums *sums)
{
	struct ipv6_header *outer = outer_at, *quote = quote_at;
	__u32 sum = 0;

	if ((void *)(outer + 1) > end || (void *)(quote + 1) > end)
		return PARSE_SHORT;
	if ((outer->source[0] == quote->destination[0] && outer->source[1] == quote->destination[1]) ||
	    nat_error_turns(way))
		sum = nat_set_address(sum, outer->source, way->source);
	sums->outer = nat_set_address(sum, outer->destination, way->destination);

	sum = nat_set_address(0, quote->source, way->destination);
	sums->quote = nat_set_address(sum, quote->destination, way->source);
	return 0;
}

/* Ports and checksum of the quoted packet, as far as they are quoted. SCTP's checksum stays:
 * it covers more than is quoted, so nobody who gets a quote can ask whether it is right. */
static __always_inline __u32 nat_error_transport(void *at, const void *end, __u8 protocol,
						 const struct translation *way, __u32 sum)
{
	struct port_header *ports = at;
	struct icmp_header *icmp = at;
	__be16 *checksum;
	__u32 change = way->port_sum;

	if (way->set_ports) {
		if (nat_is_icmp(protocol)) {
			if ((void *)(icmp + 1) > end)
				return sum;
			sum = nat_set16(sum, &icmp->id, bpf_htons(way->source_port));
		} else {
			if ((void *)(ports + 1) > end)
				return sum;
			sum = nat_set16(sum, &ports->source, bpf_htons(way->destination_port));
			sum = nat_set16(sum, &ports->destination, bpf_htons(way->source_port));
		}
	}
	if (!nat_checksum_offset(protocol))
		return sum;
	checksum = at + nat_checksum_offset(protocol);
	if ((void *)(checksum + 1) > end || (protocol == PROTOCOL_UDP && !*checksum))
		return sum;
	if (protocol != PROTOCOL_ICMP)
		change = nat_sum_add(change, way->address_sum);
	return nat_set16(sum, checksum, nat_checksum_change(*checksum, change));
}

/* Translates the error in `decisions`, whose quote stands there too. Not 0: it could
 * not be done, and the packet is spoilt. */
static __noinline int nat_rewrite_error(struct __sk_buff *skb, struct decision *decision, const struct translation *way)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	void *outer = nat_at(data, decision->packet.ip_offset);
	void *quote = nat_at(data, decision->quote.ip_offset);
	void *transport = nat_at(data, decision->quote.transport_offset);
	__u32 checksum = decision->packet.transport_offset + ICMP_CHECKSUM_OFFSET;
	struct ethernet_header *ethernet = data;
	struct nat_error_sums sums = {};
	bool ipv6 = decision->packet.ipv6;
	int error;

	if (!way || !outer || !quote || !transport)
		return PARSE_SHORT;
	if ((void *)(ethernet + 1) > end)
		return PARSE_SHORT;
	if (ipv6)
		error = nat_error_ipv6(outer, quote, end, way, &sums);
	else
		error = nat_error_ipv4(outer, quote, end, way, &sums);
	if (error)
		return error;
	if (!decision->quote.later_fragment)
		sums.quote = nat_error_transport(transport, end, decision->quote.key.protocol, way, sums.quote);
	nat_write_macs(ethernet, way);
	error = bpf_l4_csum_replace(skb, checksum, 0, sums.quote, 0);
	if (ipv6 && !error)
		error = bpf_l4_csum_replace(skb, checksum, 0, sums.outer, BPF_F_PSEUDO_HDR);
	return error;
}

#endif
