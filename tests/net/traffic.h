/* What the programs of the network tests send each other.
 *
 * A connection begins with a head of 16 bytes: what it is, and a number. The byte at place o of a stream is
 * table[o % TABLE], whose length is prime, so that a lost, doubled or moved piece is seen. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TABLE 1048573u
#define PIECE (256u << 10)

/* LAZY: as BOTH, but the server reads nothing before it has sent all. */
enum what { SINK = 1, SOURCE, BOTH, ECHO, RESET, LAZY };

struct head {
	uint64_t what, n;
};

/* The answer of a sink at the end. */
struct sunk {
	uint64_t in, counted, ns, bad;
};

static uint8_t table[TABLE + PIECE];

static inline void table_make(void)
{
	uint64_t x = 88172645463325252u;

	for (size_t i = 0; i < TABLE; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		table[i] = (uint8_t)x;
	}
	memcpy(table + TABLE, table, PIECE);
}

static inline int64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static inline _Noreturn void wrong(const char *what, uint64_t a, uint64_t b)
{
	(void)printf("wrong: %s (%llu, %llu)\n", what, (unsigned long long)a, (unsigned long long)b);
	(void)fflush(stdout);
	_exit(1);
}
