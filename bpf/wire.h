/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Numbers and headers as they stand on the wire. */
#ifndef WEIR_WIRE_H
#define WEIR_WIRE_H

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
#define PROTOCOL_MOBILITY 135
#define PROTOCOL_UDPLITE 136

#define TCP_CHECKSUM_OFFSET 16
#define UDP_CHECKSUM_OFFSET 6
#define ICMP_CHECKSUM_OFFSET 2

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define PORT_DNS 53
#define PORT_MDNS 5353

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
	__be64 source[2];
	__be64 destination[2];
};

struct ipv6_extension_header {
	__u8 next_header;
	__u8 length; /* beyond the first 8 bytes, in units of 8 (authentication: of 4) */
	__u8 data[6];
};

struct ipv6_fragment_header {
	__u8 next_header;
	__u8 reserved;
	__be16 offset_flags;
	__be32 id;
};

#define TCP_HEADER_BYTES 20 /* at least */
#define UDP_HEADER_BYTES 8

/* How TCP, UDP, UDP-Lite and SCTP begin. */
struct port_header {
	__be16 source;
	__be16 destination;
};

struct sctp_header {
	__be32 ports;
	__be32 verification_tag;
	__u32 checksum; /* CRC32c, in little-endian order as nothing else on the wire */
};

/* What follows the ports. */
struct tcp_header {
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

#endif
