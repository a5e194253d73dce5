/* Liveness of gate and of vault, each alone in this process: its real loop, streams and TLS over socket pairs, and both
 * of its neighbours played by the same thread. A case is a seed. In its first half the neighbours read and write in
 * bursts, or stand still; in the second everyone goes on. The clock stands, so nothing is saved by a time limit: what
 * has not ended when nobody can move any more stands still for ever, and is a fault. There is no waiting and no race: a
 * seed is the same in every run.
 *
 *   live-gate [SEED] COUNT    cases from SEED (1) on; the first that fails tells its seed and aborts */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/span.h"

#define ALL (1u << 20) /* as much as there is */

static uint64_t live_seed, live_state;

#define HOLDS(cond)                                                                                                   \
	do {                                                                                                          \
		if (!(cond)) {                                                                                        \
			(void)fprintf(stderr, "seed %llu: %s:%d: does not hold: %s\n", (unsigned long long)live_seed, \
				      __FILE__, __LINE__, #cond);                                                     \
			live_tell();                                                                                  \
			abort();                                                                                      \
		}                                                                                                     \
	} while (0)

/* What stands where, for whoever looks into a seed. */
static void live_tell(void);

/* 0..n-1; splitmix64. */
static uint32_t dice(uint32_t n)
{
	uint64_t z = live_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ z >> 31) % n);
}

static bool once_in(uint32_t n)
{
	return dice(n) == 0;
}

/* What buffers are filled by exactly, give or take a byte, more often than anything else. */
static uint64_t some_length(void)
{
	static const struct {
		uint32_t unit, n;
	} sizes[] = { { 16384, 40 }, { 65536, 10 }, { 262144, 3 }, { 4096, 16 } };
	uint32_t k = dice(8);

	if (k < 2)
		return dice(k == 0 ? 3 : 2000);
	if (k == 2)
		return dice(100000);
	k = dice(ARRAY_SIZE(sizes));
	return (uint64_t)sizes[k].unit * (1 + dice(sizes[k].n)) + dice(3) - 1;
}

static size_t some_burst(void)
{
	static const uint32_t most[] = { 16, 300, 5000, 20000, 70000, 300000 };

	return 1 + dice(most[dice(ARRAY_SIZE(most))]);
}

/* Of what is left, and at most @most. */
__attribute__((unused)) static size_t some_piece(uint64_t left, size_t most)
{
	size_t n = some_burst();

	n = MIN(n, most);
	return (size_t)MIN(left, (uint64_t)n);
}

/* The bytes of a body: those at @at, of the direction @who; up to BODY_PIECE of them lie behind each other. */
#define BODY_PERIOD 65521
#define BODY_PIECE (64 << 10)

static const uint8_t *body_at(unsigned who, uint64_t at)
{
	static uint8_t letters[BODY_PERIOD + BODY_PIECE];

	if (letters[0] == 0)
		for (size_t i = 0; i < sizeof(letters); i++)
			letters[i] = (uint8_t)(0x80 | (i % BODY_PERIOD * 2654435761u >> 16));
	return letters + (at + who * 7919u) % BODY_PERIOD;
}

static bool body_is(unsigned who, uint64_t at, struct span s)
{
	while (s.n > 0) {
		size_t n = MIN(s.n, (size_t)BODY_PIECE);

		if (memcmp(s.p, body_at(who, at), n) != 0)
			return false;
		at += n;
		s = SPAN(s.p + n, s.n - n);
	}
	return true;
}

/* A pair whose ends hold as little, or as much, as the dice say. */
static void some_pair(int pair[2])
{
	static const int sizes[] = { 0, 0, 1, 20000, 70000 };
	int n;

	HOLDS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	for (int i = 0; i < 2; i++) {
		n = sizes[dice(ARRAY_SIZE(sizes))];
		if (n > 0)
			(void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &n, sizeof(n));
	}
}

/* Of each program: one look of the loop, true if there was something to do; whether all has ended; and what its
 * neighbours do, each by its number: how far it came. */
static bool turn(void);
static bool over(void);
static size_t acts(uint32_t who, size_t n);

#define TURNS_MAX 100000

static bool eager;	/* everyone goes on */
static int64_t idle_ns; /* while nobody could */

static bool settle(void)
{
	int i = 0;

	while (turn())
		HOLDS(i++ < TURNS_MAX);
	return i > 0;
}

static void play(uint32_t actors)
{
	bool stopped[8] = { false };
	size_t moved;

	eager = false;
	idle_ns = 0;
	for (uint32_t steps = dice(400); steps > 0 && !over(); steps--) {
		uint32_t who = dice(actors);

		if (once_in(8))
			stopped[who] = !stopped[who];
		if (!stopped[who])
			(void)acts(who, some_burst());
		if (once_in(4))
			(void)settle();
		else
			(void)turn();
	}
	/* A part of a handshake does not show, nor an acknowledgement that waits for 10 ms for an answer to ride on. */
	eager = true;
	for (int idle = 0; !over(); idle = moved > 0 ? 0 : idle + 1) {
		moved = settle();
		for (uint32_t who = 0; who < actors; who++)
			moved += acts(who, ALL);
		idle_ns += moved > 0 ? 0 : 10000000;
		HOLDS(idle < 4);
	}
}

static int live_main(int argc, char **argv, void (*run)(void))
{
	uint64_t first = argc > 2 ? strtoull(argv[1], NULL, 10) : 1;
	uint64_t count = argc > 1 ? strtoull(argv[argc - 1], NULL, 10) : 100;

	log_open("live", 2, LOG_LV_INFO);
	(void)signal(SIGPIPE, SIG_IGN);
	for (live_seed = first; live_seed < first + count; live_seed++) {
		live_state = live_seed * 0xd1342543de82ef95u;
		run();
	}
	(void)printf("%llu cases from seed %llu\n", (unsigned long long)count, (unsigned long long)first);
	return 0;
}
