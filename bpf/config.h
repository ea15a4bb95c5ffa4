/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every load-time switch. They are constants to the verifier, so that what is
 * switched off costs nothing. */
#ifndef WEIR_CONFIG_H
#define WEIR_CONFIG_H

/* packet_events: one event for each packet (`weir observe --packets`). Off by
 * default: events for all packets cost a twentieth to a tenth of the
 * throughput even when nobody is woken for them.
 *
 * audit: payload of flows that speak a protocol which weir reads (`weir audit`).
 * payload_ring_bytes: size of the ring `payloads`, to tell how full it is.
 * turn_bytes_max: of what one end says before the other one speaks, copy no more
 * than this (0: all).
 *
 * tended_flows: entries of the map `tended`, for programs that outlive their weir
 * (0: none, they go with it).
 *
 * redirect: connections are redirected (`weir redirect`). Off for those who only
 * observe: programs that may write to a packet make sure first that it is theirs
 * alone, and first packets are looked up in more maps.
 *
 * accelerate: packets between two containers of one bridge go past bridge and
 * stack, also where nothing is redirected; and redirected ones between two
 * bridges. Never by itself: what the host's own rules say of such packets is
 * then not asked. */
const volatile struct config config = {};

#endif
