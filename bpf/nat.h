/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Writing a translation into a packet: addresses, ports, MACs and checksums. */
#ifndef WEIR_NAT_H
#define WEIR_NAT_H

#include "maps.h"
#include "packet.h"

/* One's complement addition: the carry comes back in (RFC 1071). */
static __always_inline __u32 nat_sum_add(__u32 a, __u32 b)
{
	__u64 sum = (__u64)a + b;

	return (__u32)sum + (__u32)(sum >> 32);
}

/* What replacing one word by another adds to a sum. */
static __always_inline __u32 nat_sum_replace(__u32 sum, __u32 from, __u32 to)
{
	return nat_sum_add(nat_sum_add(sum, ~from), to);
}

/* A checksum after what it covers changed by `sum` (RFC 1624). */
static __always_inline __u16 nat_checksum_change(__u16 checksum, __u32 sum)
{
	sum = nat_sum_add(sum, (__u16)~checksum);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The last four bytes of a mapped address. */
static __always_inline __u32 nat_ipv4(const __u8 address[16])
{
	return *(const __u32 *)&address[12];
}

/* Where a protocol keeps its checksum, from its header on. 0: it has none, or
 * none that a sum could repair (SCTP's is a CRC). */
static __always_inline __u32 nat_checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case PROTOCOL_TCP:
		return TCP_CHECKSUM_OFFSET;
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
		return UDP_CHECKSUM_OFFSET;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMPV6:
		return ICMP_CHECKSUM_OFFSET;
	}
	return 0;
}

static __always_inline bool nat_is_icmp(__u8 protocol)
{
	return protocol == PROTOCOL_ICMP || protocol == PROTOCOL_ICMPV6;
}

/* A place in the packet, or NULL. Compared and added must be one register, as in cursor_take(). */
static __always_inline void *nat_at(void *data, __u32 offset)
{
	asm volatile("" : "+r"(offset));
	return offset > HEADERS_BYTES_MAX ? NULL : data + offset;
}

static __always_inline void nat_write_macs(struct ethernet_header *header, const struct translation *way)
{
	if (way->set_destination_mac)
		__builtin_memcpy(header->destination, way->destination_mac, sizeof(header->destination));
	if (way->set_source_mac)
		__builtin_memcpy(header->source, way->source_mac, sizeof(header->source));
}

/* Ports, or the identifier that stands for both. `at` may be the end of what there is. */
static __always_inline int nat_write_ports(void *at, const void *end, __u8 protocol, __u16 source, __u16 destination)
{
	struct port_header *ports = at;
	struct icmp_header *icmp = at;

	if (nat_is_icmp(protocol)) {
		if ((void *)(icmp + 1) > end)
			return PARSE_SHORT;
		icmp->id = bpf_htons(source);
		return 0;
	}
	if ((void *)(ports + 1) > end)
		return PARSE_SHORT;
	ports->source = bpf_htons(source);
	ports->destination = bpf_htons(destination);
	return 0;
}

static __always_inline int nat_write_ipv4(void *at, const void *end, const struct translation *way)
{
	struct ipv4_header *ip = at;

	if ((void *)(ip + 1) > end)
		return PARSE_SHORT;
	ip->source = nat_ipv4(way->source);
	ip->destination = nat_ipv4(way->destination);
	ip->checksum = nat_checksum_change(ip->checksum, way->address_sum);
	return 0;
}

static __always_inline int nat_write_ipv6(void *at, const void *end, const struct translation *way)
{
	struct ipv6_header *ip = at;

	if ((void *)(ip + 1) > end)
		return PARSE_SHORT;
	__builtin_memcpy(ip->source, way->source, sizeof(ip->source));
	__builtin_memcpy(ip->destination, way->destination, sizeof(ip->destination));
	return 0;
}

/* All that is written in place. PARSE_SHORT: the packet must be pulled first, and
 * nothing was written but perhaps ports, which does no harm twice. */
static __noinline int nat_write(struct __sk_buff *skb, const struct packet *packet, const struct translation *way)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	void *ip = nat_at(data, packet->ip_offset), *transport = nat_at(data, packet->transport_offset);
	struct ethernet_header *ethernet = data;

	if (!ip || !transport || (void *)(ethernet + 1) > end)
		return PARSE_SHORT;
	if (way->set_ports && !packet->later_fragment &&
	    nat_write_ports(transport, end, packet->key.protocol, way->source_port, way->destination_port))
		return PARSE_SHORT;
	nat_write_macs(ethernet, way);
	if (packet->ipv6)
		return nat_write_ipv6(ip, end, way);
	return nat_write_ipv4(ip, end, way);
}

/*
 * The transport protocol's checksum. The helper knows what the program cannot
 * see: whether the checksum is complete, or waits for a device to complete it and
 * holds the addresses only. Not 0: there is no memory to make it writable.
 */
static __always_inline int nat_write_checksum(struct __sk_buff *skb, const struct packet *packet,
					      const struct translation *way)
{
	__u8 protocol = packet->key.protocol;
	__u32 offset = nat_checksum_offset(protocol);
	/* A UDP checksum of 0 says that there is none. */
	__u64 flags = protocol == PROTOCOL_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	int error = 0;

	if (!offset || packet->later_fragment)
		return 0;
	offset += packet->transport_offset;
	if (way->address_sum && protocol != PROTOCOL_ICMP)
		error = bpf_l4_csum_replace(skb, offset, 0, way->address_sum, flags | BPF_F_PSEUDO_HDR);
	if (way->port_sum && !error)
		error = bpf_l4_csum_replace(skb, offset, 0, way->port_sum, flags);
	return error;
}

/* Translates a packet. Not 0: it could not be done, and the packet is spoilt. */
static __noinline int nat_rewrite(struct __sk_buff *skb, const struct packet *packet, const struct translation *way)
{
	int result = nat_write(skb, packet, way);

	if (result) {
		if (!packet_pull(skb))
			return result;
		result = nat_write(skb, packet, way);
		if (result)
			return result;
	}
	return nat_write_checksum(skb, packet, way);
}

#endif
