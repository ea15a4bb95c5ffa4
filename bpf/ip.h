/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* IPv4 with its options, IPv6 with its extension headers. */
#ifndef WEIR_IP_H
#define WEIR_IP_H

#include "cursor.h"
#include "wire.h"

/* RFC 8200 names five extension headers that stand before the payload, one of
 * them possibly twice. */
#define EXTENSION_HEADERS_MAX 6

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

static __always_inline __be64 ipv4_mapped(__be32 address)
{
	return bpf_cpu_to_be64(0xffff00000000ULL | bpf_ntohl(address));
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

#endif
