/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Writing a translation into a packet: addresses, ports, MACs and checksums. */
#ifndef WEIR_NAT_H
#define WEIR_NAT_H

#include "config.h"
#include "crc32c.h"
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
 * none that a sum could repair (SCTP's: nat_write_crc()). */
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
static __always_inline int nat_write(struct __sk_buff *skb, const struct packet *packet, const struct translation *way)
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

/* To 16 bits: all ones are nothing, too. */
static __always_inline __u16 nat_sum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __be16 *nat_checksum_at(struct __sk_buff *skb, __u32 offset)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__be16 *checksum = nat_at(data, offset);

	return !checksum || (void *)(checksum + 1) > end ? NULL : checksum;
}

/*
 * Addresses and ports in one step: calls are what a translation costs. A checksum that
 * waits for a device holds the addresses only, and the helper, which is told of the
 * ports, leaves it alone; every other one changes, since the sum is not nothing. 1: it
 * must be done in two steps.
 */
static __always_inline int nat_write_both(struct __sk_buff *skb, __u32 offset, const struct translation *way,
					  __u64 flags)
{
	__u32 sum = nat_sum_add(way->address_sum, way->port_sum);
	__u16 folded = nat_sum_fold(sum), before;
	__be16 *checksum = nat_checksum_at(skb, offset);
	int error;

	if (!checksum || !folded || folded == 0xffff)
		return 1;
	before = *checksum;
	/* UDP without a checksum. */
	if (!before && flags)
		return 0;
	error = bpf_l4_csum_replace(skb, offset, 0, sum, flags);
	if (error)
		return error;
	checksum = nat_checksum_at(skb, offset);
	if (checksum && *checksum == before)
		*checksum = nat_sum_fold(nat_sum_add(before, way->address_sum));
	return 0;
}

/*
 * The transport protocol's checksum. The helper knows what the program cannot
 * see: whether the checksum is complete, or waits for a device to complete it and
 * holds the addresses only. Not 0: there is no memory to make it writable.
 *
 * Never told of here is what a card sums up while it receives (CHECKSUM_COMPLETE): it
 * is gone where a packet was bridged or routed, and a container does not send it.
 */
static __always_inline int nat_write_checksum(struct __sk_buff *skb, const struct packet *packet,
					      const struct translation *way)
{
	__u8 protocol = packet->key.protocol;
	__u32 offset = nat_checksum_offset(protocol);
	/* A UDP checksum of 0 says that there is none. */
	__u64 flags = protocol == PROTOCOL_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	bool addresses = way->address_sum && protocol != PROTOCOL_ICMP;
	int error = 1;

	if (!offset || packet->later_fragment)
		return 0;
	offset += packet->transport_offset;
	if (addresses && way->port_sum)
		error = nat_write_both(skb, offset, way, flags);
	if (error <= 0)
		return error;
	error = 0;
	if (addresses)
		error = bpf_l4_csum_replace(skb, offset, 0, way->address_sum, flags | BPF_F_PSEUDO_HDR);
	if (way->port_sum && !error)
		error = bpf_l4_csum_replace(skb, offset, 0, way->port_sum, flags);
	return error;
}

/* The rare packet whose headers are scattered. */
static __noinline int nat_rewrite_pulled(struct __sk_buff *skb, const struct packet *packet,
					 const struct translation *way)
{
	int result;

	if (!packet || !way || !packet_pull(skb))
		return PARSE_SHORT;
	result = nat_write(skb, packet, way);
	return result ? result : nat_write_checksum(skb, packet, way);
}

static __always_inline struct sctp_header *nat_sctp_at(struct __sk_buff *skb, __u32 offset)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct sctp_header *sctp = nat_at(data, offset);

	return !sctp || (void *)(sctp + 1) > end ? NULL : sctp;
}

/*
 * SCTP's checksum at `offset`, as it must be with these ports, which are still to be written,
 * source first. `bytes`: of the packet from its ports on; 0 if nobody knows. Not 0: it could
 * not be done. Not static, so that the verifier walks it once.
 *
 * 0 is a checksum that waits for a device: what a container sends has it, for a veth says
 * that it completes them (NETIF_F_SCTP_CRC). Whoever does, if anybody must, sees the new
 * ports. One packet of 2^32 has a true checksum of 0; its receiver drops it.
 */
__noinline int nat_write_crc(struct __sk_buff *skb, __u32 offset, __u32 bytes, __u32 ports)
{
	struct sctp_header *sctp;

	if (!config.redirect)
		return PARSE_SHORT;
	sctp = nat_sctp_at(skb, offset);
	if (!sctp && packet_pull(skb))
		sctp = nat_sctp_at(skb, offset);
	if (!sctp)
		return PARSE_SHORT;
	if (!sctp->checksum)
		return 0;
	if (!bytes || bytes > CRC32C_BYTES_MAX)
		return PARSE_SHORT;
	sctp->checksum ^= crc32c_change(sctp->ports ^ ports, bytes);
	return 0;
}

/* The same for this packet. Of one that was sent in fragments the checksum covers the whole,
 * and none of them but the last tells how much that is. */
static __always_inline int nat_write_sctp(struct __sk_buff *skb, const struct packet *packet,
					  const struct translation *way)
{
	__u32 ports = bpf_htons(way->source_port) | (__u32)bpf_htons(way->destination_port) << 16, bytes = 0;

	if (!way->set_ports || packet->later_fragment)
		return 0;
	if (!packet->first_fragment)
		bytes = packet->payload_offset + packet->payload_bytes - packet->transport_offset;
	return nat_write_crc(skb, packet->transport_offset, bytes, ports);
}

/* Translates a packet. Not 0: it could not be done, and the packet is spoilt. Inlined where
 * most packets pass: a call costs more than what is written. */
static __always_inline int nat_rewrite_inline(struct __sk_buff *skb, const struct packet *packet,
					      const struct translation *way)
{
	if (packet->key.protocol == PROTOCOL_SCTP && nat_write_sctp(skb, packet, way))
		return PARSE_SHORT;
	if (nat_write(skb, packet, way))
		return nat_rewrite_pulled(skb, packet, way);
	return nat_write_checksum(skb, packet, way);
}

static __noinline int nat_rewrite(struct __sk_buff *skb, const struct packet *packet, const struct translation *way)
{
	return nat_rewrite_inline(skb, packet, way);
}

#endif
