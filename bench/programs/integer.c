/* Integer: SHA-256 of zeros, a sort of pseudo-random words, and a small machine that interprets bytecode.
 *
 * Usage: integer MIB WORDS TURNS. Prints the first word of the hash, a sum that depends on the order of
 * the sorted words, and what the machine leaves in its first register.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- SHA-256. Source: FIPS 180-4 ------------------------------------------------------------------ */

static uint32_t constants[64], hash[8];

/* The first 32 bits of the fractional part of the `power`-th root of n, by bisection in integers. */
static uint32_t root_fraction(uint64_t n, int power)
{
	__uint128_t low = 0, high = (__uint128_t)1 << 36; /* root times 2^32 */
	while (high - low > 1) {
		__uint128_t middle = (low + high) / 2;
		__uint128_t value = middle * middle;
		int too_much = power == 2 ? value > (__uint128_t)n << 64
					  : value * middle > (__uint128_t)n << 96;
		*(too_much ? &high : &low) = middle;
	}
	return (uint32_t)low;
}

static void sha_start(void)
{
	int found = 0;
	for (uint64_t n = 2; found < 64; n++) {
		int is_prime = 1;
		for (uint64_t d = 2; d * d <= n; d++)
			is_prime &= n % d != 0;
		if (!is_prime)
			continue;
		if (found < 8)
			hash[found] = root_fraction(n, 2);
		constants[found++] = root_fraction(n, 3);
	}
}

static uint32_t right(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

#define ROUND(a, b, c, d, e, f, g, h, i)                                                               \
	h += (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i]; \
	d += h;                                                                                        \
	h += (right(a, 2) ^ right(a, 13) ^ right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))

static void sha_block(const unsigned char *data)
{
	uint32_t w[64];
	for (int i = 0; i < 16; i++, data += 4)
		w[i] = (uint32_t)data[0] << 24 | data[1] << 16 | data[2] << 8 | data[3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];
		w[i] = w[i - 16] + (right(a, 7) ^ right(a, 18) ^ a >> 3) + w[i - 7] +
		       (right(b, 17) ^ right(b, 19) ^ b >> 10);
	}
	uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3];
	uint32_t e = hash[4], f = hash[5], g = hash[6], h = hash[7];
	for (int i = 0; i < 64; i += 8) { /* the names of the words move on, not the words */
		ROUND(a, b, c, d, e, f, g, h, i);
		ROUND(h, a, b, c, d, e, f, g, i + 1);
		ROUND(g, h, a, b, c, d, e, f, i + 2);
		ROUND(f, g, h, a, b, c, d, e, i + 3);
		ROUND(e, f, g, h, a, b, c, d, i + 4);
		ROUND(d, e, f, g, h, a, b, c, i + 5);
		ROUND(c, d, e, f, g, h, a, b, i + 6);
		ROUND(b, c, d, e, f, g, h, a, i + 7);
	}
	uint32_t after[8] = { a, b, c, d, e, f, g, h };
	for (int i = 0; i < 8; i++)
		hash[i] += after[i];
}

static uint32_t sha_of_zeros(uint64_t mib)
{
	static unsigned char block[64];
	sha_start();
	for (uint64_t i = 0; i < mib << 14; i++)
		sha_block(block);
	block[0] = 0x80;
	for (int i = 0; i < 8; i++)
		block[63 - i] = (unsigned char)((mib << 23) >> 8 * i);
	sha_block(block);
	return hash[0];
}

/* -- sort: quicksort down to short runs, then insertion -------------------------------------------- */

static void sort(uint64_t *words, long count)
{
	while (count > 16) {
		uint64_t pivot = words[count / 2];
		long i = 0, j = count - 1;
		while (i <= j) {
			while (words[i] < pivot)
				i++;
			while (words[j] > pivot)
				j--;
			if (i <= j) {
				uint64_t word = words[i];
				words[i++] = words[j];
				words[j--] = word;
			}
		}
		if (j + 1 < count - i) {
			sort(words, j + 1);
			words += i;
			count -= i;
		} else {
			sort(words + i, count - i);
			count = j + 1;
		}
	}
	for (long i = 1; i < count; i++) {
		uint64_t word = words[i];
		long j = i;
		for (; j > 0 && words[j - 1] > word; j--)
			words[j] = words[j - 1];
		words[j] = word;
	}
}

static uint64_t sorted_sum(long count)
{
	uint64_t *words = malloc((size_t)count * sizeof *words), state = 88172645463325252u, sum = 0;
	if (!words)
		exit(1);
	for (long i = 0; i < count; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		words[i] = state ^= state << 17;
	}
	sort(words, count);
	for (long i = 0; i < count; i++)
		sum = sum * 31 + words[i];
	free(words);
	return sum;
}

/* -- bytecode ------------------------------------------------------------------------------------- */

enum { ADD, XOR, SHIFT, LOAD, STORE, LESS, JUMP, COUNT, STOP };

/* Four bytes an instruction: operation, target register, source register, constant. */
static const unsigned char program[] = {
	ADD,   0, 1, 7,  /* r0 += r1 + 7 */
	SHIFT, 2, 0, 5,  /* r2 = r0 >> 5 */
	XOR,   0, 2, 0,  /* r0 ^= r2 */
	LOAD,  3, 0, 0,  /* r3 = memory[r0] */
	ADD,   3, 0, 1,  /* r3 += r0 + 1 */
	STORE, 3, 0, 0,  /* memory[r0] = r3 */
	LESS,  4, 3, 90, /* r4 = (r3 & 255) < 90 */
	JUMP,  4, 0, 9,  /* if r4: to the count */
	XOR,   1, 3, 3,  /* r1 ^= r3 + 3 */
	COUNT, 0, 0, 0,  /* another turn? to 0 */
	STOP,  0, 0, 0,
};

static uint32_t interpret(long turns)
{
	static uint32_t memory[256];
	uint32_t r[8] = { 1 };
	for (const unsigned char *at = program;; at += 4) {
		switch (at[0]) {
		case ADD: r[at[1]] += r[at[2]] + at[3]; break;
		case XOR: r[at[1]] ^= r[at[2]] + at[3]; break;
		case SHIFT: r[at[1]] = r[at[2]] >> at[3]; break;
		case LOAD: r[at[1]] = memory[r[at[2]] & 255]; break;
		case STORE: memory[r[at[2]] & 255] = r[at[1]]; break;
		case LESS: r[at[1]] = (r[at[2]] & 255) < at[3]; break;
		case JUMP: if (r[at[1]]) at = program + 4 * at[3] - 4; break;
		case COUNT: if (--turns > 0) at = program - 4; break;
		default: return r[0];
		}
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	printf("%08" PRIx32, sha_of_zeros(strtoull(argv[1], NULL, 10)));
	printf("-%016" PRIx64, sorted_sum(atol(argv[2])));
	printf("-%08" PRIx32 "\n", interpret(atol(argv[3])));
	return 0;
}
