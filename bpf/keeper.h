/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Whether a process is there for programs that may outlive theirs. */
#ifndef WEIR_KEEPER_H
#define WEIR_KEEPER_H

#include "clock.h"
#include "config.h"
#include "maps.h"

#define SECOND_NS 1000000000ULL
/* A keeper speaks every 10 s. */
#define KEEPER_SILENT_NS (30 * SECOND_NS)

/* Whether nobody keeps what is pinned. To the tick: the time that flow_count() has just set
 * will do. */
static __always_inline bool keeper_is_gone(void)
{
	return config.tended_flows &&
	       *(volatile __u64 *)&clock_tick_ns > *(volatile __u64 *)&keeper_ns + KEEPER_SILENT_NS;
}

#endif
