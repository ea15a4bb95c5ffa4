/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The contract between the kernel side and user space: every struct, enum and
 * limit that both of them see. User space reads these definitions from the BTF
 * of abi.bpf.o, so there is no second copy to keep in step.
 *
 * Rules: fixed-width integers, explicit padding, no bool, bitfield, union or
 * pointer. Addresses are 16 bytes in network order, IPv4 mapped (::ffff:a.b.c.d).
 * Ports are in host order. Times are CLOCK_MONOTONIC nanoseconds.
 *
 * A change here needs: ABI_VERSION, docs/architecture.md, and testdata/abi.txt,
 * which crates/kernel/tests/abi.rs holds it against.
 *
 * What is pinned is carried over to another version member by member, by their names
 * (crates/kernel/src/carry.rs): a member that says something else gets another name, and
 * 0 must be right in a new one.
 */
#ifndef WEIR_ABI_H
#define WEIR_ABI_H

#define ABI_VERSION 8

/* Where a packet was seen, from the point of view of the device that the
 * program is attached to. At the host side of a container's veth, ingress is
 * what the container sends and egress is what it is sent. */
enum hook {
	HOOK_INGRESS = 1,
	HOOK_EGRESS = 2,
};

/* The life of a flow. Protocols without a close of their own stay in
 * NEW (one direction seen) or ESTABLISHED (both seen) until they are idle. */
enum flow_state {
	FLOW_NEW = 0,
	FLOW_ESTABLISHED = 1,
	FLOW_CLOSING = 2, /* a FIN was seen */
	FLOW_CLOSED = 3,  /* both FINs were seen and acknowledged */
	FLOW_RESET = 4,
};

enum event_kind {
	EVENT_OPEN = 1,
	EVENT_REOPEN = 2,
	EVENT_CLOSE = 3,
	EVENT_PACKET = 4,
	EVENT_DNS = 5,
	EVENT_PAYLOAD = 6, /* in a ring of its own */
	EVENT_KINDS = 7,   /* size of arrays indexed by event_kind */
};

/* Whether a flow's payload is copied for user space (`weir audit`). Decided
 * once in a flow's life. */
enum capture_state {
	CAPTURE_UNDECIDED = 0, /* nothing was said yet that could be understood */
	CAPTURE_ON = 1,
	CAPTURE_OFF_ASKED = 2,	    /* user space wants no more of it */
	CAPTURE_NOT_UNDERSTOOD = 3, /* neither end begins like a protocol that weir reads */
	CAPTURE_OVERLOAD = 4,	    /* it began when the ring was nearly full */
};

/* Why a packet is not in the counters of a flow. Each is counted per interface
 * and hook in the map `tally`, so that what an interface counted equals what
 * the flows hold plus what stands here. */
enum tally_reason {
	/* Counted as what it is; not a flow by its nature. */
	TALLY_ARP = 1,
	TALLY_NEIGHBOR_DISCOVERY = 2, /* ICMPv6 ND, MLD */
	TALLY_NON_IP = 3,
	/* Already in its flow, twice: this is a third hook on its way. */
	TALLY_FURTHER_HOOK = 4,
	/* Losses. */
	TALLY_MALFORMED = 5,	     /* a header contradicts itself */
	TALLY_TRUNCATED = 6,	     /* a header reaches past the end of the packet */
	TALLY_FRAGMENT_UNJOINED = 7, /* later fragment, first one unknown */
	TALLY_TABLE_FULL = 8,	     /* no room in the flow table */
	TALLY_HEADERS_TOO_DEEP = 9,  /* more VLAN tags or extension headers than we walk */
	TALLY_REDIRECT_REFUSED = 10, /* a redirect could not be done; dropped */
	TALLY_REASONS = 11,
};

/* One connection, whichever way its packets go: the lower end stands first.
 * Ends are ordered by address, then port, as big-endian numbers. */
struct flow_key {
	__u8 address[2][16];
	__u16 port[2];	/* ICMP echo: both are the identifier. Other ICMP: both are the code */
	__u8 protocol;	/* IANA protocol number */
	__u8 icmp_type; /* ICMP only; an echo reply carries the type of its request */
	__u8 way;	/* enum way, in keys of `translations`; else 0 */
	__u8 pad;
};

/* What one hook saw of one direction of a flow. */
struct flow_point {
	__u64 packets;
	__u64 bytes; /* frames as the device counts them, link layer included */
	__u64 owner; /* ifindex, and above it (bit 32 on) enum hook: claimed as one word. 0: nobody yet */
};

/*
 * One direction of a flow: [0] is what end 0 of the key sends. 64 bytes, a cache line:
 * the two are written by different processors as a rule, packet by packet.
 */
struct flow_direction {
	/* [0] is the hook that saw the direction first: it counts the flow and
	 * follows its TCP state. [1] is the hook at the other end of the way
	 * within this host, if there is one: it tells what was delivered. */
	struct flow_point point[2];
	__u32 next_seq; /* TCP: highest sequence number seen, plus one */
	/* For captures of payload: what this end had heard (its acknowledgement number) when its turn began. A turn is
	 * what an end says until it hears the other one. */
	__u32 turn_ack;
	__u8 tcp_flags; /* all that were seen, ORed */
	__u8 fin_acked; /* 1: the other end has acknowledged this end's FIN */
	/* What follows is for captures of payload. */
	__u8 turns_looked_at; /* in search of a protocol, without finding one */
	__u8 frame_state;     /* enum frame_state, in frames.h */
	__u32 turn_bytes;     /* payload in its latest turn */
};

/* Frames of HTTP/2 in one direction, which are followed from header to header: a chain. */
struct flow_frames {
	__u32 seq;   /* where the latest one begins */
	__u32 head;  /* what has come of its first 4 bytes: length and type */
	__u32 chain; /* number of the chain: another one after each break */
};

/*
 * Counters only ever grow, over all incarnations: user space subtracts the base that
 * EVENT_REOPEN gave it. No packet falls between two.
 *
 * In the table each direction has a cache line of its own (crates/kernel/src/abi.rs sees to it); what stands
 * before them is read much and written rarely. What is read of every packet stands first, more than a line
 * away from both: processors fetch a line's neighbour too.
 */
struct flow {
	struct bpf_spin_lock lock; /* held to claim a flow_point or to start a new incarnation */
	__u32 incarnation;	   /* goes up when a closed connection's addresses and ports are used again */
	__u64 first_ns;
	__u64 last_ns;	    /* resolution: one scheduler tick; may lie that much before first_ns */
	__u8 state;	    /* enum flow_state */
	__u8 initiator;	    /* which end of the key opened it: 0 or 1 */
	__u8 midstream;	    /* 1: TCP, and its beginning was not seen */
	__u8 capture;	    /* enum capture_state */
	__u8 superseded;    /* 1: ended, or hardly begun; its key may be one in `translations` now */
	__u8 asked_source;  /* which end of `asked` is the client */
	__u8 syn_seen[2];   /* TCP, by end of the key: 1: it sent a SYN */
	__u32 first_seq[2]; /* TCP: sequence number of the first byte that was seen, or would follow the SYN */
	/* The hooks that translate it, by enum way, as flow_point.owner. The client is
	 * the initiator. 0: it is not translated, and `rule` and `asked` say nothing. */
	__u64 edge[2];
	/* --accelerate: by sender, the host's end of the veth at whose other end its
	 * packets are received at once; 0: they are not. */
	__u32 shortcut[2];
	__u64 syn_ns; /* 0: no SYN seen, or it was sent twice (no round trip can be told) */
	__u32 rtt_us; /* TCP handshake, SYN to its last ACK; 0: not known */
	__u32 resets;
	__u32 icmp_errors;    /* ICMP errors that quote this flow */
	__u32 rule;	      /* that redirected it; 0: none, it only got another port */
	__u32 retransmits[2]; /* by direction, as the next */
	__u32 zero_windows[2];
	struct flow_direction direction[2];
	struct flow_key asked; /* its name as its client sees it */
	struct flow_frames frames[2];
};

/* Begins every record of the ring buffer. */
struct event {
	__u64 time_ns;
	__u32 ifindex;
	__u8 kind; /* enum event_kind */
	__u8 hook; /* enum hook */
	__u8 pad[2];
	struct flow_key key;
};

struct event_open {
	struct event event;
	__u32 incarnation;
	__u32 length_bytes; /* of the first packet */
	__u8 state;
	__u8 initiator;
	__u8 source; /* which end of the key sent the first packet */
	__u8 midstream;
	__u8 tcp_flags;
	__u8 pad[3];
};

/* A closed connection's key is used again: `before` is the entry as it stood. */
struct event_reopen {
	struct event_open open;
	struct flow before;
};

/* The connection ended; user space reads the final counters from the table. */
struct event_close {
	struct event event;
	__u32 incarnation;
	__u8 state; /* FLOW_CLOSED or FLOW_RESET */
	__u8 pad[3];
};

/* With --packets only. */
struct event_packet {
	struct event event;
	__u32 length_bytes;
	__u32 tcp_seq;
	__u32 tcp_ack;
	__u32 payload_bytes;
	__u16 tcp_window;
	__u8 tcp_flags;
	__u8 source;  /* which end of the key sent it */
	__u8 counted; /* 1: this hook counts the flow's direction */
	__u8 pad[3];
};

/* EDNS's recommended size (DNS flag day 2020); a longer answer is cut. */
#define DNS_CAPTURE_BYTES 1232

/* A datagram from port 53, for the names in it. */
struct event_dns {
	struct event event;
	__u32 payload_bytes;  /* as sent */
	__u32 captured_bytes; /* at most DNS_CAPTURE_BYTES */
	__u8 payload[DNS_CAPTURE_BYTES];
};

/* Payload of a flow, in the ring `payloads`. What was copied follows this struct. A
 * record without payload_bytes tells where the stream has come to. */
struct event_payload {
	struct event event;
	__u64 flow_first_ns;  /* with the key it names the connection */
	__u32 seq;	      /* TCP: of the first of payload_bytes */
	__u32 ack;	      /* TCP */
	__u32 payload_bytes;  /* as sent */
	__u32 captured_bytes; /* so many of them follow */
	/* TCP, by end of the key: where the stream began, if that end's bit in `begun` is set. */
	__u32 first_seq[2];
	__u32 peer_next_seq; /* TCP: up to here the other end has sent, and maybe more */
	__u8 tcp_flags;
	__u8 source;	/* which end of the key sent it */
	__u8 initiator; /* TCP: which end opened the connection; known if `begun` is not 0 */
	__u8 begun;	/* TCP: bit 0, bit 1: the SYN of this end of the key was seen */
	/* Of what comes after payload_bytes, so many are the content of a frame, and not copied. */
	__u32 left_out_bytes;
	__u32 frame_chain; /* not 0: a frame of this chain is presumed to begin at `seq` */
};

/* What user space wants of a flow; in the map `captures`. Arrays are by end of the key. */
struct capture {
	__u64 flow_first_ns; /* of which connection: others with this key are not meant */
	/* Bytes before this sequence number need not be copied; if that end's `skip` is 1. */
	__u32 skip_until_seq[2];
	/* This end sends frames of HTTP/2, of which long contents need not be copied: one
	 * began at frame_seq, and one was frame_bytes long, header included. 0: as yet, all
	 * of them are wanted. */
	__u32 frame_seq[2];
	__u32 frame_bytes[2];
	/* The frames of this chain really are frames: it met one where user space saw it
	 * begin. 0: none was seen to. */
	__u32 frame_chain[2];
	__u8 skip[2];
	__u8 off; /* 1: nothing more is wanted, of either end */
	__u8 pad[5];
};

/* How far ahead skip_until_seq may be: far enough for user space to renew it in
 * time, near enough for an old one not to be taken for a new one when sequence
 * numbers come round. */
#define SKIP_BYTES_MAX 1073741824

/* Between two records that tell where a skipped stream has come to; a power of 2. */
#define SKIP_TOLD_EVERY_BYTES 268435456

/* What of a turn is copied even when the ring is fuller than half. */
#define TURN_HEAD_BYTES 4096

struct tally_key {
	__u32 ifindex;
	__u8 hook;   /* enum hook */
	__u8 reason; /* enum tally_reason */
	__u8 pad[2];
};

struct tally {
	__u64 packets;
	__u64 bytes;
};

/* Totals that have no interface. One instance, mapped into user space. */
struct kernel_losses {
	__u64 ring_full[EVENT_KINDS]; /* events without room in the ring, by event_kind */
	__u64 tally_full;	      /* packets that could not even be tallied */
	__u64 dns_truncated;	      /* answers longer than DNS_CAPTURE_BYTES */
	__u64 payload_shed_bytes;     /* bodies' bytes that were left out because the ring was half full */
};

/* Load-time switches: why each exists is said in config.h. */
struct config {
	__u8 packet_events;
	__u8 audit;
	__u8 redirect;
	__u8 accelerate;
	__u32 payload_ring_bytes;
	__u32 turn_bytes_max;
	__u32 tended_flows;
};

/* Names later fragments' ports; written by the first one. */
struct fragment_key {
	__u8 source[16];
	__u8 destination[16];
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment {
	__u16 source_port;
	__u16 destination_port;
	__u8 icmp_type;
	__u8 pad[3];
};

/*
 * Redirects. What follows is written by user space and read by the programs,
 * except for `translation`, `redirect_counters` and the bytes in `rule_bytes`.
 */

/* A rule has a number, which no other one ever gets, and ids: one for each address that it
 * is about, counted from RULE_VARIANTS times its number. */
#define RULE_VARIANTS 256

/* Places in `rule_bytes`: a rule has the one that is its number's remainder. Of rules that
 * are there at a time no two have the same. */
#define RULE_PLACES 4096

/* Matches of one address; targets of one rule. */
#define REDIRECT_MATCHES 16
#define REDIRECT_SLOTS 251

struct redirect_match {
	__u32 rule;
	__u16 port_first; /* 0 to 65535: all ports, and protocols without */
	__u16 port_last;
	__u8 protocol; /* IANA protocol number; 0: any */
	__u8 limited;  /* 1: only clients that stand in `redirect_clients` */
	__u8 pad[2];
};

/* By the address that was asked: the most specific match first, rule 0 after the last. */
struct redirect_set {
	struct redirect_match match[REDIRECT_MATCHES];
};

struct redirect_rule {
	__u64 expires_ns; /* CLOCK_MONOTONIC; 0: never */
	__u8 source[16];  /* what the server sees as client; ::: the client itself */
	__u32 fast_path;  /* 1: past bridge and stack, where both ends are on one bridge; or config.accelerate */
	/* Target by hash of the connection. 0: there is none, and it is refused. */
	__u32 slot[REDIRECT_SLOTS];
};

struct redirect_target {
	__u8 address[16];
	__u16 port_first; /* for the match's first port, and so on; 0: as asked */
	__u8 pad[2];
};

/* Longest prefix: 32 bits of rule, then the address. */
struct redirect_client {
	__u32 prefix_bits;
	__u32 rule;
	__u8 address[16];
};

/* Who may ask who has a virtual address, by a rule that is limited to some clients. */
struct redirect_asker {
	__u32 rule;
	__u32 ifindex; /* of a container that has a client's address, the host's end of its veth; 0: the host */
};

/* Where a container's address is. */
struct place {
	__u32 ifindex;	      /* the host's end of its veth */
	__u32 bridge_ifindex; /* or itself, where it is in none */
	__u8 mac[6];	      /* of the container's end */
	__u8 pad[2];
};

struct interface_place {
	__u32 bridge_ifindex; /* or itself, where it is in none */
	__u8 host_mac[6];     /* whom a container there speaks to beyond its bridge */
	__u8 container_side;  /* 1: a container is behind it */
	__u8 pad;
};

/* A forged source, as a server behind this veth may ask for it. */
struct forged_source {
	__u32 ifindex;
	__u8 address[16];
};

/* Why a new connection that a rule is about was not redirected. */
enum refusal {
	REFUSED_NO_TARGET = 0,
	REFUSED_NO_PORT = 1, /* the server would take it for another connection */
	REFUSED_FLOWS_FULL = 2,
	REFUSED_TRANSLATIONS_FULL = 3,
	REFUSALS = 5, /* 4 was another one: tables with its place are taken over */
};

struct redirect_counters {
	__u64 hits; /* connections that were redirected */
	__u64 refused[REFUSALS];
};

/* What a rule's connections have brought, on one processor: what stands in the first point
 * of either direction of their flows, and stays when those go. */
struct rule_bytes {
	__u32 number; /* of the rule whose place it is; 0: nobody's */
	__u32 pad;
	__u64 bytes; /* as in flow_point */
};

/* The two directions of a translated connection. */
enum way {
	WAY_TO_SERVER = 0,
	WAY_TO_CLIENT = 1,
	WAYS = 2,
};

/* How a translated packet leaves its edge. */
enum delivery {
	DELIVERY_ON = 0,      /* as if nothing had happened */
	DELIVERY_EGRESS = 1,  /* sent at an interface */
	DELIVERY_INGRESS = 2, /* received at an interface */
	DELIVERY_PEER = 3,    /* received at the other end of a veth */
};

/*
 * What becomes of one direction of a translated connection. Its key is the flow
 * as its packets name it before they are translated: to the server the flow that
 * the client sees, to the client the one that the server sees, which is the one
 * in `flows`.
 */
struct translation {
	struct flow_key other; /* its name afterwards */
	__u8 source[16];
	__u8 destination[16];
	__u64 edge;	   /* the hook where it is done, as flow_point.owner */
	__u32 address_sum; /* by how much addresses change a checksum: one's complement, */
	__u32 port_sum;	   /* and ports; both in network order */
	__u32 rule;
	__u32 ifindex; /* of delivery */
	__u16 source_port;
	__u16 destination_port;
	__u8 source_mac[6];
	__u8 destination_mac[6];
	__u8 set_source_mac; /* 1: the MAC is written */
	__u8 set_destination_mac;
	__u8 delivery;	   /* enum delivery */
	__u8 sender;	   /* which end of its key sends this direction */
	__u8 other_sender; /* the same of `other` */
	__u8 set_ports;	   /* 1: ports are written, or an ICMP identifier */
	__u8 pad[6];
};

#endif
