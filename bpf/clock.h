/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Time to the tick (1 to 10 ms), for what needs no better. */
#ifndef WEIR_CLOCK_H
#define WEIR_CLOCK_H

/* The kernel's clock as it stood when this tick was first seen. */
__u64 clock_tick = 0;
__u64 clock_tick_ns = 0;

/*
 * Asking the kernel for the time, even for its coarse time, costs more than to
 * parse a packet; the number of the tick costs nothing. So one packet a tick asks
 * for all that follow it. CPUs that race here write times a tick apart at most,
 * and the next packet repairs what they wrote.
 */
static __always_inline __u64 clock_coarse_ns(void)
{
	volatile __u64 *tick = &clock_tick, *tick_ns = &clock_tick_ns;
	__u64 now = bpf_jiffies64();

	if (*tick != now) {
		*tick_ns = bpf_ktime_get_ns();
		*tick = now;
	}
	return *tick_ns;
}

#endif
