/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * From bytes to a flow key: a cursor that checks, advances and hands out one
 * header at a time. It reads the linear part of a packet in place and never
 * copies; headers that lie outside it are rare, and pulled in.
 */
#ifndef WEIR_PACKET_H
#define WEIR_PACKET_H

#include "maps.h"
#include "wire.h"

/* Two tags are QinQ; nothing on a container host carries more. */
#define VLAN_TAGS_MAX 2
/* RFC 8200 names five extension headers that stand before the payload, one of
 * them possibly twice. */
#define EXTENSION_HEADERS_MAX 6
/* All of a packet's headers, the link layer's included. */
#define HEADERS_BYTES_MAX 1024

/* Beside 0 (a flow key was found) and the reasons of enum tally_reason. */
#define PARSE_SHORT -1

/* Always 0, but the verifier does not know: what it is added to is any number
 * to it, and paths that differ in that number only are one path again. */
volatile __u32 zero = 0;

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
	__u16 ip_offset;	/* of the IP header, from the start of the frame */
	__u16 transport_offset; /* of what follows it and its extension headers */
	__u8 tcp_flags;
	__u8 source;	     /* which end of the key sent it: 0 or 1 */
	__u8 later_fragment; /* 1: its transport header is in another packet */
	__u8 ipv6;
};

struct cursor {
	void *data;
	void *end;
	__u32 offset; /* from the start of the frame */
	__u32 length; /* of the frame; more than end - data when it is not linear */
};

/* What both versions of IP say, each in its way. */
struct ip_layer {
	__be64 source[2];
	__be64 destination[2];
	__u32 end; /* of the IP packet within the frame, which may be padded */
	__u32 fragment_id;
	__u16 fragment_offset; /* in 8 bytes; 0 and no more fragments: not a fragment */
	__u16 more_fragments;
	__u8 protocol;
	bool quoted; /* in an ICMP error: it may be cut anywhere */
};

/* What the transport header, or the first fragment's, gives to the flow key. */
struct ports {
	__u16 source;
	__u16 destination;
	__u8 icmp_type;
};

/* The next `size` bytes, or NULL with *result saying which kind of end it is. */
static __always_inline void *cursor_take(struct cursor *cursor, __u32 size, int *result)
{
	__u32 offset = cursor->offset;
	void *at;

	/* Compared and added must be one register: verifiers to Linux 6.1 know no bounds
	 * of a number that was on the stack in between. */
	asm volatile("" : "+r"(offset));
	if (offset > HEADERS_BYTES_MAX - size) {
		*result = TALLY_HEADERS_TOO_DEEP;
		return NULL;
	}
	at = cursor->data + offset;
	if (at + size > cursor->end) {
		*result = offset + size > cursor->length ? TALLY_TRUNCATED : PARSE_SHORT;
		return NULL;
	}
	cursor->offset = offset + size;
	return at;
}

static __always_inline __be64 ipv4_mapped(__be32 address)
{
	return bpf_cpu_to_be64(0xffff00000000ULL | bpf_ntohl(address));
}

static __always_inline void packet_key_set(struct packet *packet, const struct ip_layer *ip, const struct ports *ports)
{
	__be64 *low = (__be64 *)packet->key.address[0];
	__be64 *high = (__be64 *)packet->key.address[1];
	bool source_is_low;

	if (ip->source[0] != ip->destination[0])
		source_is_low = bpf_be64_to_cpu(ip->source[0]) < bpf_be64_to_cpu(ip->destination[0]);
	else if (ip->source[1] != ip->destination[1])
		source_is_low = bpf_be64_to_cpu(ip->source[1]) < bpf_be64_to_cpu(ip->destination[1]);
	else
		source_is_low = ports->source <= ports->destination;

	packet->source = !source_is_low;
	packet->source_port = ports->source;
	packet->key.protocol = ip->protocol;
	packet->key.icmp_type = ports->icmp_type;
	if (source_is_low) {
		low[0] = ip->source[0];
		low[1] = ip->source[1];
		high[0] = ip->destination[0];
		high[1] = ip->destination[1];
		packet->key.port[0] = ports->source;
		packet->key.port[1] = ports->destination;
	} else {
		low[0] = ip->destination[0];
		low[1] = ip->destination[1];
		high[0] = ip->source[0];
		high[1] = ip->source[1];
		packet->key.port[0] = ports->destination;
		packet->key.port[1] = ports->source;
	}
}

static __always_inline void fragment_key_set(struct fragment_key *key, const struct ip_layer *ip)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->source, ip->source, sizeof(key->source));
	__builtin_memcpy(key->destination, ip->destination, sizeof(key->destination));
	key->id = ip->fragment_id;
	key->protocol = ip->protocol;
}

/* Whether the transport header has a word in the key. */
static __always_inline bool packet_has_ports(__u8 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_UDPLITE ||
	       protocol == PROTOCOL_SCTP || protocol == PROTOCOL_ICMP || protocol == PROTOCOL_ICMPV6;
}

/* A later fragment has no transport header: the first one left word. */
static __always_inline int packet_join_fragment(const struct ip_layer *ip, struct ports *ports)
{
	struct fragment_key key;
	struct fragment *first;

	fragment_key_set(&key, ip);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first)
		return packet_has_ports(ip->protocol) ? TALLY_FRAGMENT_UNJOINED : 0;
	ports->source = first->source_port;
	ports->destination = first->destination_port;
	ports->icmp_type = first->icmp_type;
	return 0;
}

static __always_inline void packet_remember_fragment(const struct ip_layer *ip, const struct ports *ports)
{
	struct fragment first = {
		.source_port = ports->source,
		.destination_port = ports->destination,
		.icmp_type = ports->icmp_type,
	};
	struct fragment_key key;

	fragment_key_set(&key, ip);
	bpf_map_update_elem(&fragments, &key, &first, BPF_ANY);
}

static __always_inline int packet_parse_tcp(struct cursor *cursor, struct packet *packet)
{
	struct tcp_header *tcp;
	__u32 header_bytes;
	int result = 0;

	tcp = cursor_take(cursor, sizeof(*tcp), &result);
	if (!tcp)
		return result;
	header_bytes = (tcp->data_offset >> 4) * 4;
	if (header_bytes < TCP_HEADER_BYTES)
		return TALLY_MALFORMED;
	packet->tcp_seq = bpf_ntohl(tcp->seq);
	packet->tcp_ack = bpf_ntohl(tcp->ack);
	packet->tcp_window = bpf_ntohs(tcp->window);
	packet->tcp_flags = tcp->flags;
	cursor->offset += header_bytes - TCP_HEADER_BYTES;
	return 0;
}

/* What stands for the ports of ICMP: an identifier, or else the code. A reply
 * belongs to the flow of its request. */
static __always_inline int packet_parse_icmp(struct cursor *cursor, struct packet *packet, __u8 protocol,
					     struct ports *ports)
{
	struct icmp_header *icmp;
	__u16 number;
	__u8 type;
	int result = 0;

	icmp = cursor_take(cursor, sizeof(*icmp), &result);
	if (!icmp)
		return result;
	type = icmp->type;
	number = icmp->code;
	if (protocol == PROTOCOL_ICMP) {
		if (type == ICMP_ECHO_REPLY)
			type = ICMP_ECHO;
		else if (type == ICMP_TIMESTAMP_REPLY)
			type = ICMP_TIMESTAMP;
		if (type == ICMP_ECHO || type == ICMP_TIMESTAMP)
			number = bpf_ntohs(icmp->id);
		else if (type == ICMP_UNREACHABLE || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
			 type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM)
			packet->quote_offset = cursor->offset;
	} else {
		if ((type >= ICMPV6_MLD_FIRST && type <= ICMPV6_ND_LAST) || type == ICMPV6_MLDV2_REPORT)
			return TALLY_NEIGHBOR_DISCOVERY;
		if (type == ICMPV6_ECHO_REPLY)
			type = ICMPV6_ECHO;
		if (type == ICMPV6_ECHO)
			number = bpf_ntohs(icmp->id);
		else if (type <= ICMPV6_LAST_ERROR)
			packet->quote_offset = cursor->offset;
	}
	ports->source = ports->destination = number;
	ports->icmp_type = type;
	return 0;
}

/* The transport header of a packet that has one of its own. */
static __always_inline int packet_parse_ports(struct cursor *cursor, struct packet *packet, const struct ip_layer *ip,
					      struct ports *ports)
{
	struct port_header *header;
	int result = 0;

	switch (ip->protocol) {
	case PROTOCOL_TCP:
	case PROTOCOL_UDP:
	case PROTOCOL_UDPLITE:
	case PROTOCOL_SCTP:
		header = cursor_take(cursor, sizeof(*header), &result);
		if (!header)
			return result;
		ports->source = bpf_ntohs(header->source);
		ports->destination = bpf_ntohs(header->destination);
		/* A quote may end here, and nothing else is asked of it. */
		if (ip->quoted)
			return 0;
		if (ip->protocol == PROTOCOL_TCP)
			return packet_parse_tcp(cursor, packet);
		cursor->offset += ip->protocol == PROTOCOL_SCTP ? SCTP_HEADER_BYTES - sizeof(*header)
								: UDP_HEADER_BYTES - sizeof(*header);
		return 0;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMPV6:
		return packet_parse_icmp(cursor, packet, ip->protocol, ports);
	}
	return 0;
}

static __always_inline int packet_parse_transport(struct cursor *cursor, struct packet *packet,
						  const struct ip_layer *ip)
{
	__u32 transport_offset = cursor->offset;
	struct ports ports = {};
	int result;

	if (ip->fragment_offset)
		result = packet_join_fragment(ip, &ports);
	else
		result = packet_parse_ports(cursor, packet, ip, &ports);
	if (result)
		return result;
	if (cursor->offset > ip->end)
		return TALLY_TRUNCATED;

	packet->transport_offset = transport_offset;
	packet->later_fragment = !!ip->fragment_offset;
	packet->payload_offset = cursor->offset;
	packet->payload_bytes = ip->end - cursor->offset;
	if (ip->more_fragments && !ip->fragment_offset && !ip->quoted)
		packet_remember_fragment(ip, &ports);
	packet_key_set(packet, ip, &ports);
	return 0;
}

/* Where an IP packet of `length` bytes that begins at `start` ends in its
 * frame. Segmentation-offload packets beyond 64 KiB have no length of their own
 * (BIG TCP; Linux 5.19 for IPv6, 6.3 for IPv4). A quote ends where its frame does. */
static __always_inline __u32 packet_ip_end(const struct cursor *cursor, __u32 start, __u32 length, bool no_length,
					   bool quoted)
{
	if (quoted || (no_length && cursor->length - start > 0xffff))
		return cursor->length;
	return start + length;
}

static __always_inline int packet_parse_ipv4(struct cursor *cursor, struct ip_layer *ip)
{
	__u32 start = cursor->offset, header_bytes, total_bytes, fragment;
	struct ipv4_header *header;
	int result = 0;

	header = cursor_take(cursor, sizeof(*header), &result);
	if (!header)
		return result;
	header_bytes = (header->version_ihl & 0x0f) * 4;
	if (header->version_ihl >> 4 != 4 || header_bytes < sizeof(*header))
		return TALLY_MALFORMED;
	cursor->offset += header_bytes - sizeof(*header);

	total_bytes = bpf_ntohs(header->total_length);
	ip->end = packet_ip_end(cursor, start, total_bytes, !total_bytes, ip->quoted);
	if (ip->end < start + header_bytes)
		return TALLY_MALFORMED;
	if (ip->end > cursor->length)
		return TALLY_TRUNCATED;

	ip->source[0] = 0;
	ip->source[1] = ipv4_mapped(header->source);
	ip->destination[0] = 0;
	ip->destination[1] = ipv4_mapped(header->destination);
	ip->protocol = header->protocol;
	fragment = bpf_ntohs(header->fragment);
	ip->fragment_offset = fragment & 0x1fff;
	ip->more_fragments = fragment & 0x2000;
	ip->fragment_id = bpf_ntohs(header->id);
	return 0;
}

static __always_inline int packet_parse_ipv6(struct cursor *cursor, struct ip_layer *ip)
{
	struct ipv6_extension_header *extension;
	struct ipv6_fragment_header *fragment;
	__u32 start = cursor->offset, payload_bytes, offset_flags;
	struct ipv6_header *header;
	int result = 0;
	__u8 next;

	header = cursor_take(cursor, sizeof(*header), &result);
	if (!header)
		return result;
	if (bpf_ntohl(header->version_class_label) >> 28 != 6)
		return TALLY_MALFORMED;
	ip->source[0] = header->source[0];
	ip->source[1] = header->source[1];
	ip->destination[0] = header->destination[0];
	ip->destination[1] = header->destination[1];

	payload_bytes = bpf_ntohs(header->payload_length);
	ip->end = packet_ip_end(cursor, start, sizeof(*header) + payload_bytes, !payload_bytes, ip->quoted);
	if (ip->end > cursor->length)
		return TALLY_TRUNCATED;

	next = header->next_header;
	for (int i = 0; i <= EXTENSION_HEADERS_MAX; i++) {
		ip->protocol = next;
		switch (next) {
		case PROTOCOL_FRAGMENT:
			fragment = cursor_take(cursor, sizeof(*fragment), &result);
			if (!fragment)
				return result;
			offset_flags = bpf_ntohs(fragment->offset_flags);
			ip->fragment_offset = offset_flags >> 3;
			ip->more_fragments = offset_flags & 0x0001;
			ip->fragment_id = bpf_ntohl(fragment->id);
			ip->protocol = next = fragment->next_header;
			if (ip->fragment_offset)
				return 0;
			break;
		case PROTOCOL_HOP_BY_HOP:
		case PROTOCOL_ROUTING:
		case PROTOCOL_DESTINATION_OPTIONS:
		case PROTOCOL_MOBILITY:
		case PROTOCOL_AUTHENTICATION:
			extension = cursor_take(cursor, sizeof(*extension), &result);
			if (!extension)
				return result;
			cursor->offset += extension->length * (next == PROTOCOL_AUTHENTICATION ? 4 : 8);
			next = extension->next_header;
			break;
		default:
			return 0;
		}
		cursor->offset += zero;
	}
	return TALLY_HEADERS_TOO_DEEP;
}

/* The link layer: an Ethernet header with its tags, or, on devices without one,
 * what the kernel says. */
static __always_inline int packet_parse_link(struct __sk_buff *skb, struct cursor *cursor, bool ethernet,
					     __u16 *ethertype)
{
	struct ethernet_header *header;
	struct vlan_header *tag;
	int result = 0;

	if (!ethernet) {
		*ethertype = bpf_ntohs(skb->protocol);
		return 0;
	}
	header = cursor_take(cursor, sizeof(*header), &result);
	if (!header)
		return result;
	*ethertype = bpf_ntohs(header->ethertype);
#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		if (*ethertype != ETHERTYPE_VLAN && *ethertype != ETHERTYPE_QINQ)
			return 0;
		tag = cursor_take(cursor, sizeof(*tag), &result);
		if (!tag)
			return result;
		*ethertype = bpf_ntohs(tag->ethertype);
	}
	return 0;
}

static __always_inline int packet_parse_ip(struct cursor *cursor, struct packet *packet, __u16 ethertype, bool quoted)
{
	struct ip_layer ip = { .quoted = quoted };
	int result;

	cursor->offset += zero;
	packet->ip_offset = cursor->offset;
	packet->ipv6 = (ethertype == ETHERTYPE_IPV6) | zero;
	switch (ethertype) {
	case ETHERTYPE_IPV4:
		result = packet_parse_ipv4(cursor, &ip);
		break;
	case ETHERTYPE_IPV6:
		result = packet_parse_ipv6(cursor, &ip);
		break;
	case ETHERTYPE_ARP:
		return TALLY_ARP;
	case ETHERTYPE_VLAN:
	case ETHERTYPE_QINQ:
		return TALLY_HEADERS_TOO_DEEP;
	default:
		return TALLY_NON_IP;
	}
	if (result)
		return result;
	cursor->offset += zero;
	return packet_parse_transport(cursor, packet, &ip);
}

/* Brings all headers into the linear part of the packet. */
static __always_inline bool packet_pull(struct __sk_buff *skb)
{
	return !bpf_skb_pull_data(skb, skb->len < HEADERS_BYTES_MAX ? skb->len : HEADERS_BYTES_MAX);
}

/* 0 and packet->key, PARSE_SHORT, or a tally_reason. */
static __always_inline int packet_parse_linear(struct __sk_buff *skb, struct packet *packet, bool ethernet)
{
	__u16 ethertype = 0;
	int result;
	struct cursor cursor = {
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
		.length = skb->len,
	};

	result = packet_parse_link(skb, &cursor, ethernet, &ethertype);
	if (!result)
		result = packet_parse_ip(&cursor, packet, ethertype, false);
	return result;
}

/* A second copy of the parser, for the rare packet whose headers are scattered.
 * Not a loop around the first one: clang lets its end fall through to its
 * beginning, and verifiers to Linux 6.1 want a jump there ("back-edge"). */
static __noinline int packet_parse_pulled(struct __sk_buff *skb, struct packet *packet, bool ethernet)
{
	int result;

	/* Without memory to gather them, headers are out of reach. */
	if (!packet || !packet_pull(skb))
		return TALLY_HEADERS_TOO_DEEP;
	result = packet_parse_linear(skb, packet, ethernet);
	return result == PARSE_SHORT ? TALLY_HEADERS_TOO_DEEP : result;
}

/* 0 and packet->key, or a tally_reason. */
static __always_inline int packet_parse(struct __sk_buff *skb, struct packet *packet, bool ethernet)
{
	int result = packet_parse_linear(skb, packet, ethernet);

	return result == PARSE_SHORT ? packet_parse_pulled(skb, packet, ethernet) : result;
}

/* The same for the packet that an ICMP error quotes. Not inlined: it is rare,
 * and would double the program. For the same reason it pulls before it looks. */
static __noinline int packet_parse_quote(struct __sk_buff *skb, struct packet *quote, __u32 offset, bool ipv6)
{
	struct cursor cursor = { .offset = offset };
	int result;

	if (!quote || !packet_pull(skb))
		return TALLY_HEADERS_TOO_DEEP;
	cursor.data = (void *)(long)skb->data;
	cursor.end = (void *)(long)skb->data_end;
	cursor.length = skb->len;
	result = packet_parse_ip(&cursor, quote, ipv6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4, true);
	return result == PARSE_SHORT ? TALLY_HEADERS_TOO_DEEP : result;
}

#endif
