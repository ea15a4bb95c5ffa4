/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From bytes to a flow key: a cursor that checks, advances and hands out one
 * header at a time. It reads the linear part of a packet in place and never
 * copies; where headers lie outside it, packet_parse() says PARSE_SHORT and the
 * caller has that little pulled in.
 */
#ifndef WEIR_PACKET_H
#define WEIR_PACKET_H

#include "abi.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100 /* IEEE 802.1Q */
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_QINQ 0x88a8 /* IEEE 802.1ad */

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_AUTHENTICATION 51
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_DESTINATION_OPTIONS 60
#define PROTOCOL_SCTP 132
#define PROTOCOL_UDPLITE 136
#define PROTOCOL_MOBILITY 135

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_REDIRECT 5
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP_TIMESTAMP 13
#define ICMP_TIMESTAMP_REPLY 14

#define ICMPV6_LAST_ERROR 127
#define ICMPV6_ECHO 128
#define ICMPV6_ECHO_REPLY 129
#define ICMPV6_MLD_FIRST 130 /* 130-132 MLDv1, 133-137 neighbour discovery */
#define ICMPV6_ND_LAST 137
#define ICMPV6_MLDV2_REPORT 143

/* Two tags are QinQ; nothing on a container host carries more. */
#define VLAN_TAGS_MAX 2
/* RFC 8200 names five extension headers that stand before the payload, one of
 * them possibly twice. */
#define EXTENSION_HEADERS_MAX 6

/* Beside 0 (a flow key was found) and the reasons of enum tally_reason. */
#define PARSE_SHORT -1

struct ethernet_header {
	__u8 destination[6];
	__u8 source[6];
	__be16 ethertype;
};

struct vlan_header {
	__be16 tag;
	__be16 ethertype;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__be32 version_class_label;
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__be64 source[2] __attribute__((packed));
	__be64 destination[2] __attribute__((packed));
} __attribute__((packed));

struct ipv6_extension_header {
	__u8 next_header;
	__u8 length; /* in 8 bytes, the first 8 not counted */
	__u8 data[6];
};

struct ipv6_fragment_header {
	__u8 next_header;
	__u8 reserved;
	__be16 offset_flags;
	__be32 id;
};

struct port_header {
	__be16 source;
	__be16 destination;
};

struct tcp_header {
	__be16 source;
	__be16 destination;
	__be32 seq;
	__be32 ack;
	__u8 data_offset;
	__u8 flags;
	__be16 window;
	__be32 checksum_urgent;
};

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

/* What a packet says of itself. */
struct packet {
	struct flow_key key;
	__u32 length_bytes;
	__u32 tcp_seq;
	__u32 tcp_ack;
	__u32 payload_offset;
	__u32 payload_bytes;
	__u32 quote_offset; /* ICMP errors: where the quoted packet begins. 0: none */
	__u16 source_port;
	__u16 tcp_window;
	__u8 tcp_flags;
	__u8 source; /* which end of the key sent it: 0 or 1 */
	__u8 pad[6];
} __attribute__((aligned(8)));

struct cursor {
	void *data;
	void *end;
	__u32 offset; /* from the start of the frame */
	__u32 length; /* of the frame; more than end - data when it is not linear */
};

/* The next `size` bytes, or NULL with *result saying which kind of end it is. */
static __always_inline void *cursor_take(struct cursor *cursor, __u32 size, int *result)
{
	void *at;

	/* Told to the verifier: headers lie within the first kilobytes. */
	if (cursor->offset > 2047) {
		*result = TALLY_HEADERS_TOO_DEEP;
		return NULL;
	}
	at = cursor->data + cursor->offset;
	if (at + size > cursor->end) {
		*result = cursor->offset + size > cursor->length ? TALLY_TRUNCATED : PARSE_SHORT;
		return NULL;
	}
	cursor->offset += size;
	return at;
}

/* Both addresses as big-endian words, whatever the version of IP. */
struct addresses {
	__be64 source[2];
	__be64 destination[2];
};

static __always_inline __be64 ipv4_mapped(__be32 address)
{
	return bpf_cpu_to_be64(0xffff00000000ULL | bpf_ntohl(address));
}

static __always_inline void packet_key_set(struct packet *packet, const struct addresses *addresses, __u16 source_port,
					   __u16 destination_port)
{
	__be64 *low = (__be64 *)packet->key.address[0];
	__be64 *high = (__be64 *)packet->key.address[1];
	bool source_is_low;

	if (addresses->source[0] != addresses->destination[0])
		source_is_low = bpf_be64_to_cpu(addresses->source[0]) < bpf_be64_to_cpu(addresses->destination[0]);
	else if (addresses->source[1] != addresses->destination[1])
		source_is_low = bpf_be64_to_cpu(addresses->source[1]) < bpf_be64_to_cpu(addresses->destination[1]);
	else
		source_is_low = source_port <= destination_port;

	if (source_is_low) {
		low[0] = addresses->source[0];
		low[1] = addresses->source[1];
		high[0] = addresses->destination[0];
		high[1] = addresses->destination[1];
		packet->key.port[0] = source_port;
		packet->key.port[1] = destination_port;
	} else {
		low[0] = addresses->destination[0];
		low[1] = addresses->destination[1];
		high[0] = addresses->source[0];
		high[1] = addresses->source[1];
		packet->key.port[0] = destination_port;
		packet->key.port[1] = source_port;
	}
	packet->source = !source_is_low;
	packet->source_port = source_port;
}

static __always_inline int packet_parse_tcp(struct cursor *cursor, struct packet *packet, __u16 *source_port,
					    __u16 *destination_port)
{
	int result = 0;
	struct tcp_header *tcp = cursor_take(cursor, sizeof(*tcp), &result);
	__u32 header_bytes;

	if (!tcp)
		return result;
	*source_port = bpf_ntohs(tcp->source);
	*destination_port = bpf_ntohs(tcp->destination);
	header_bytes = (tcp->data_offset >> 4) * 4;
	if (header_bytes < sizeof(*tcp))
		return TALLY_MALFORMED;
	packet->tcp_seq = bpf_ntohl(tcp->seq);
	packet->tcp_ack = bpf_ntohl(tcp->ack);
	packet->tcp_window = bpf_ntohs(tcp->window);
	packet->tcp_flags = tcp->flags;
	cursor->offset += header_bytes - sizeof(*tcp);
	return 0;
}

static __always_inline int packet_parse_icmp(struct cursor *cursor, struct packet *packet, __u16 *source_port,
					     __u16 *destination_port)
{
	int result = 0;
	struct icmp_header *icmp = cursor_take(cursor, sizeof(*icmp), &result);
	__u8 type;

	if (!icmp)
		return result;
	type = icmp->type;
	*source_port = *destination_port = icmp->code;
	if (packet->key.protocol == PROTOCOL_ICMP) {
		/* A reply belongs to the flow of its request. */
		if (type == ICMP_ECHO_REPLY)
			type = ICMP_ECHO;
		if (type == ICMP_TIMESTAMP_REPLY)
			type = ICMP_TIMESTAMP;
		if (type == ICMP_ECHO || type == ICMP_TIMESTAMP)
			*source_port = *destination_port = bpf_ntohs(icmp->id);
		else if (type == ICMP_UNREACHABLE || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
			 type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM)
			packet->quote_offset = cursor->offset;
	} else {
		if ((type >= ICMPV6_MLD_FIRST && type <= ICMPV6_ND_LAST) || type == ICMPV6_MLDV2_REPORT)
			return TALLY_NEIGHBOR_DISCOVERY;
		if (type == ICMPV6_ECHO_REPLY)
			type = ICMPV6_ECHO;
		if (type == ICMPV6_ECHO)
			*source_port = *destination_port = bpf_ntohs(icmp->id);
		else if (type <= ICMPV6_LAST_ERROR)
			packet->quote_offset = cursor->offset;
	}
	packet->key.icmp_type = type;
	return 0;
}

static __always_inline void fragment_key_set(struct fragment_key *key, const struct addresses *addresses, __u32 id,
					     __u8 protocol)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->source, addresses->source, 16);
	__builtin_memcpy(key->destination, addresses->destination, 16);
	key->id = id;
	key->protocol = protocol;
}

/* How one IP packet is cut up. */
struct fragmentation {
	__u32 id;
	bool later; /* not the first piece: it has no transport header */
	bool more;  /* not the last piece */
};

static __always_inline int packet_join_fragment(struct packet *packet, const struct addresses *addresses,
						const struct fragmentation *cut)
{
	struct fragment_key key;
	struct fragment *first;

	fragment_key_set(&key, addresses, cut->id, packet->key.protocol);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first)
		return TALLY_FRAGMENT_UNJOINED;
	packet->key.icmp_type = first->icmp_type;
	packet_key_set(packet, addresses, first->source_port, first->destination_port);
	return 0;
}

static __always_inline void packet_remember_fragment(const struct packet *packet, const struct addresses *addresses,
						     const struct fragmentation *cut, __u16 source_port,
						     __u16 destination_port)
{
	struct fragment_key key;
	struct fragment first = {};

	fragment_key_set(&key, addresses, cut->id, packet->key.protocol);
	first.source_port = source_port;
	first.destination_port = destination_port;
	first.icmp_type = packet->key.icmp_type;
	bpf_map_update_elem(&fragments, &key, &first, BPF_ANY);
}

/* `end`: where the IP packet ends within the frame (a frame may be padded). */
static __always_inline int packet_parse_transport(struct cursor *cursor, struct packet *packet,
						  const struct addresses *addresses, const struct fragmentation *cut,
						  __u32 end)
{
	__u16 source_port = 0, destination_port = 0;
	struct port_header *ports;
	int result = 0;

	packet->payload_offset = cursor->offset;
	if (cut->later)
		return packet_join_fragment(packet, addresses, cut);

	switch (packet->key.protocol) {
	case PROTOCOL_TCP:
		result = packet_parse_tcp(cursor, packet, &source_port, &destination_port);
		break;
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
	case PROTOCOL_SCTP:
		ports = cursor_take(cursor, sizeof(*ports), &result);
		if (!ports)
			return result;
		source_port = bpf_ntohs(ports->source);
		destination_port = bpf_ntohs(ports->destination);
		/* The rest of the header: UDP 8 bytes in all, SCTP 12. */
		cursor->offset += packet->key.protocol == PROTOCOL_SCTP ? 8 : 4;
		break;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMPV6:
		result = packet_parse_icmp(cursor, packet, &source_port, &destination_port);
		break;
	}
	if (result)
		return result;
	if (cursor->offset > end)
		return TALLY_MALFORMED;

	packet->payload_offset = cursor->offset;
	packet->payload_bytes = end - cursor->offset;
	if (cut->more)
		packet_remember_fragment(packet, addresses, cut, source_port, destination_port);
	packet_key_set(packet, addresses, source_port, destination_port);
	return 0;
}

static __always_inline int packet_parse_ipv4(struct cursor *cursor, struct packet *packet, bool quoted)
{
	__u32 start = cursor->offset, header_bytes, total_bytes, fragment;
	struct fragmentation cut = {};
	struct addresses addresses;
	struct ipv4_header *ip;
	int result = 0;

	ip = cursor_take(cursor, sizeof(*ip), &result);
	if (!ip)
		return result;
	header_bytes = (ip->version_ihl & 0x0f) * 4;
	if (ip->version_ihl >> 4 != 4 || header_bytes < sizeof(*ip))
		return TALLY_MALFORMED;

	/* A segmentation-offload packet beyond 64 KiB has no length (BIG TCP, Linux 6.3). */
	total_bytes = bpf_ntohs(ip->total_length);
	if (!total_bytes || quoted)
		total_bytes = cursor->length - start;
	if (total_bytes < header_bytes)
		return TALLY_MALFORMED;
	if (start + total_bytes > cursor->length)
		return TALLY_TRUNCATED;
	cursor->offset += header_bytes - sizeof(*ip);

	addresses.source[0] = 0;
	addresses.source[1] = ipv4_mapped(ip->source);
	addresses.destination[0] = 0;
	addresses.destination[1] = ipv4_mapped(ip->destination);
	packet->key.protocol = ip->protocol;
	fragment = bpf_ntohs(ip->fragment);
	cut.later = fragment & 0x1fff;
	cut.more = fragment & 0x2000;
	cut.id = bpf_ntohs(ip->id);
	return packet_parse_transport(cursor, packet, &addresses, &cut, start + total_bytes);
}

static __always_inline int packet_parse_ipv6(struct cursor *cursor, struct packet *packet, bool quoted)
{
	__u32 start = cursor->offset, payload_bytes, offset_flags, i;
	struct ipv6_extension_header *extension;
	struct ipv6_fragment_header *fragment;
	struct fragmentation cut = {};
	struct addresses addresses;
	struct ipv6_header *ip;
	int result = 0;
	__u8 next;

	ip = cursor_take(cursor, sizeof(*ip), &result);
	if (!ip)
		return result;
	if (bpf_ntohl(ip->version_class_label) >> 28 != 6)
		return TALLY_MALFORMED;
	addresses.source[0] = ip->source[0];
	addresses.source[1] = ip->source[1];
	addresses.destination[0] = ip->destination[0];
	addresses.destination[1] = ip->destination[1];

	/* 0: a jumbogram (RFC 2675), which is how BIG TCP looks. */
	payload_bytes = bpf_ntohs(ip->payload_length);
	if (!payload_bytes || quoted)
		payload_bytes = cursor->length - start - sizeof(*ip);
	if (start + sizeof(*ip) + payload_bytes > cursor->length)
		return TALLY_TRUNCATED;

	next = ip->next_header;
	for (i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		if (next == PROTOCOL_FRAGMENT) {
			fragment = cursor_take(cursor, sizeof(*fragment), &result);
			if (!fragment)
				return result;
			offset_flags = bpf_ntohs(fragment->offset_flags);
			cut.later = offset_flags & 0xfff8;
			cut.more = offset_flags & 0x0001;
			cut.id = bpf_ntohl(fragment->id);
			next = fragment->next_header;
			if (cut.later)
				break;
		} else if (next == PROTOCOL_HOP_BY_HOP || next == PROTOCOL_ROUTING ||
			   next == PROTOCOL_DESTINATION_OPTIONS || next == PROTOCOL_MOBILITY) {
			extension = cursor_take(cursor, sizeof(*extension), &result);
			if (!extension)
				return result;
			next = extension->next_header;
			cursor->offset += extension->length * 8;
		} else if (next == PROTOCOL_AUTHENTICATION) {
			extension = cursor_take(cursor, sizeof(*extension), &result);
			if (!extension)
				return result;
			next = extension->next_header;
			cursor->offset += extension->length * 4; /* counted in 4 bytes, less two (RFC 4302) */
		} else {
			break;
		}
	}
	if (i == EXTENSION_HEADERS_MAX)
		return TALLY_HEADERS_TOO_DEEP;

	packet->key.protocol = next;
	return packet_parse_transport(cursor, packet, &addresses, &cut, start + sizeof(*ip) + payload_bytes);
}

/* 0 and packet->key, or a tally_reason, or PARSE_SHORT. `link_layer`: the frame
 * begins with an Ethernet header; without one, the kernel says what it is. */
static __always_inline int packet_parse(struct __sk_buff *skb, struct packet *packet, bool link_layer)
{
	struct cursor cursor = {
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
		.length = skb->len,
	};
	struct ethernet_header *ethernet;
	struct vlan_header *vlan;
	__u16 ethertype;
	int result = 0;

	if (link_layer) {
		ethernet = cursor_take(&cursor, sizeof(*ethernet), &result);
		if (!ethernet)
			return result;
		ethertype = bpf_ntohs(ethernet->ethertype);
#pragma unroll
		for (int i = 0; i < VLAN_TAGS_MAX; i++) {
			if (ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ)
				break;
			vlan = cursor_take(&cursor, sizeof(*vlan), &result);
			if (!vlan)
				return result;
			ethertype = bpf_ntohs(vlan->ethertype);
		}
	} else {
		ethertype = bpf_ntohs(skb->protocol);
	}

	switch (ethertype) {
	case ETHERTYPE_IPV4:
		return packet_parse_ipv4(&cursor, packet, false);
	case ETHERTYPE_IPV6:
		return packet_parse_ipv6(&cursor, packet, false);
	case ETHERTYPE_ARP:
		return TALLY_ARP;
	case ETHERTYPE_VLAN:
	case ETHERTYPE_QINQ:
		return TALLY_HEADERS_TOO_DEEP;
	default:
		return TALLY_NON_IP;
	}
}

/* The flow key of the packet that an ICMP error quotes; the same results. Not
 * inlined: rare, and it would double the program. */
static __noinline int packet_parse_quote(struct __sk_buff *skb, struct packet *quote, __u32 offset, bool ipv6)
{
	struct cursor cursor = {
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
		.length = skb->len,
		.offset = offset,
	};

	if (!quote)
		return TALLY_MALFORMED;
	return ipv6 ? packet_parse_ipv6(&cursor, quote, true) : packet_parse_ipv4(&cursor, quote, true);
}

#endif
