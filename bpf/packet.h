/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From bytes to a flow key: the link layer, IP, the transport header. */
#ifndef WEIR_PACKET_H
#define WEIR_PACKET_H

#include "cursor.h"
#include "ip.h"
#include "maps.h"
#include "wire.h"

/* Two tags are QinQ; nothing on a container host carries more. */
#define VLAN_TAGS_MAX 2

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
	__u8 first_fragment; /* 1: what follows its transport header is in other packets, too */
	__u8 ipv6;
	__u8 pad[3];
};

/* What the transport header, or the first fragment's, gives to the flow key. */
struct ports {
	__u16 source;
	__u16 destination;
	__u8 icmp_type;
};

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
		cursor->offset += ip->protocol == PROTOCOL_SCTP ? sizeof(struct sctp_header) - sizeof(*header)
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
	packet->first_fragment = (!ip->fragment_offset && ip->more_fragments) | zero;
	packet->payload_offset = cursor->offset;
	packet->payload_bytes = ip->end - cursor->offset;
	if (ip->more_fragments && !ip->fragment_offset && !ip->quoted)
		packet_remember_fragment(ip, &ports);
	packet_key_set(packet, ip, &ports);
	return 0;
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
