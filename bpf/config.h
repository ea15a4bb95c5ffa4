/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every load-time switch. They are constants to the verifier, so that what is
 * switched off costs nothing. */
#ifndef WEIR_CONFIG_H
#define WEIR_CONFIG_H

/* packet_events: one event for each packet (`weir observe --packets`). Off by
 * default: events for all packets cost a twentieth to a tenth of the
 * throughput even when nobody is woken for them. */
const volatile struct config config = {};

#endif
