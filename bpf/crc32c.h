/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * SCTP's checksum, by difference (RFC 9260, 6.8 and appendix A). A CRC is a remainder of
 * polynomials over one bit each: what changes in a message changes its CRC by an amount in
 * which neither the rest of the message nor the CRC's beginning and end have a part. A
 * word that changes at the front of n bytes counts x^(8n) times, so what this costs does
 * not depend on what the packet carries, and hardly on how much.
 */
#ifndef WEIR_CRC32C_H
#define WEIR_CRC32C_H

/* Castagnoli's polynomial. Lowest bit: x^31; highest: x^0, as CRC32c has its bits. */
#define CRC32C_POLYNOMIAL 0x82f63b78U
/* Longer than any IP packet with a length of its own. */
#define CRC32C_BYTES_MAX 0xffff
#define CRC32C_DIGITS 4

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the CRC is read and written as it stands in the packet");

/* By digits of a number of bytes, base 16, the lowest first: digit d at place p stands for
 * x^(8 * d * 16^p), modulo the polynomial. */
static const __u32 crc32c_shifts[CRC32C_DIGITS][16] = {
	{ 0x80000000, 0x00800000, 0x00008000, 0x00000080, 0x82f63b78, 0xfbc3faf9, 0x8b277743, 0x52a0c93f, 0x6ea2d55c,
	  0x1c08b7d6, 0xf56e0ef4, 0x34019664, 0xa66805eb, 0x7a1f6b24, 0xe75d06aa, 0xc94ec098 },
	{ 0x80000000, 0x18b8ea18, 0x510ac59a, 0xb2dea967, 0xb82be955, 0x36c41f1c, 0x19b29a35, 0xc9e90b9e, 0xb8fdb1e7,
	  0xe55ef1f3, 0x1fe0b5c3, 0xe0553f1e, 0x18e4a304, 0x2b830011, 0x56993a31, 0x0246e2e6 },
	{ 0x80000000, 0x88e56f72, 0x74c360a4, 0x631bb273, 0xe4172b16, 0x71892b1b, 0x835305c9, 0x196b1eae, 0x0d65762a,
	  0xafc81338, 0xb5a50ab7, 0xf373c3ac, 0x5f60970f, 0xd46d3063, 0x3a5275ea, 0x02331c01 },
	{ 0x80000000, 0x35d73a62, 0x28461564, 0x43eefc9f, 0xbf455269, 0x5edcdeb9, 0x65059450, 0x4e6f41a4, 0xe2ea32dc,
	  0xf5b95b32, 0x695a4c87, 0xf204502c, 0x9a4f01b6, 0x941a0916, 0x4303cb97, 0x4c3d3d65 },
};

/* The product of two polynomials, modulo CRC32c's. Without a jump but the loop's, so that
 * the verifier walks it once. */
static __always_inline __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 32; i++) {
		product = (product >> 1) ^ (CRC32C_POLYNOMIAL & -(product & 1));
		product ^= b & -(a & 1);
		a >>= 1;
	}
	return product;
}

/*
 * By how much (exclusive or) the CRC32c of `bytes` bytes changes when their first four do by
 * `difference`. `bytes` is at most CRC32C_BYTES_MAX. Not static, so that the verifier walks it
 * once, and not for each packet's state.
 */
__noinline __u32 crc32c_change(__u32 difference, __u32 bytes)
{
	__u32 digit;

#pragma clang loop unroll(disable)
	for (__u32 place = 0; place < CRC32C_DIGITS && bytes; place++) {
		digit = bytes & 15;
		if (digit)
			difference = crc32c_multiply(difference, crc32c_shifts[place][digit]);
		bytes >>= 4;
	}
	return difference;
}

#endif
