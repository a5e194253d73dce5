/* Throughput of the scanner of answers over ordinary text: an event stream with JSON in it, prose, and base64. Usage:
 * bench-echo [MIB]. Prints MB/s a kind, with the needles of a session: six secrets, each in all its forms. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/macros.h"
#include "base/str.h"
#include "vault/echo.h"
#include "vault/secret.h"

#define TEXT (1 << 20)

static const char *const needles[] = {
	"sk-ant-oat01-Zx8kP2mQ7vN4tR1yL6wB3cD9fG5hJ0aS-uEiOpTnXvKqMzWd",
	"sk-ant-ort01-Hs5dF8gK2jL9pO3iU7yT1rE6wQ4aZ0xC-vBnMlKjHgFdSaPo",
	"Q0FOQVJZLW9wZW5haS1hY2Nlc3Mtc2lnbmF0dXJlLTAxMjM0NTY3ODlhYmNkZWY",
	"Q0FOQVJZLW9wZW5haS1pZC1zaWduYXR1cmUtZmVkY2JhOTg3NjU0MzIxMA",
	"rt_7hG2kL9mN4pQ6rS8tV1wX3yZ5aB0cD-eFgHiJkLmNoPqRsTuVwXyZ",
	"gho_16C7e42F292c6912E7710c838347Ae178B4a",
};

static uint32_t seed = 7;

static uint32_t next(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 8;
}

static void fill(uint8_t *p, int kind)
{
	static const char *const words[] = { "the ",	"file ",   "reads ", "const ",	"error ", "in ",
					     "return ", "value; ", "and ",   "Claude ", "100% ",  "sk-" };
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t at = 0;

	while (at < TEXT) {
		char line[256] = "";
		size_t n;

		if (kind == 0)
			(void)snprintf(line, sizeof(line),
				       "event: content_block_delta\ndata: "
				       "{\"type\":\"content_block_delta\",\"index\":%u,\"delta\":{\"type\":"
				       "\"text_delta\",\"text\":\"%s%s\\n\\\"%s\\\"\"}}\n\n",
				       next() % 9, words[next() % 12], words[next() % 12], words[next() % 12]);
		else if (kind == 1)
			(void)snprintf(line, sizeof(line), "%s", words[next() % 12]);
		else
			line[0] = digits[next() % 64];
		n = MIN(strlen(line), TEXT - at);
		memcpy(p + at, line, n);
		at += n;
	}
}

/* Of this process: the machine may have other work. */
static int64_t cpu_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

int main(int argc, char **argv)
{
	static const char *const kinds[] = { "event stream", "prose", "base64" };
	static uint8_t text[TEXT], out[ECHO_HOLD_MAX + ECHO_WINDOW];
	struct span n[ARRAY_SIZE(needles)];
	uint64_t mib = 512;
	struct echo_set *set;
	struct err err;

	if (secret_arena_open(SECRET_ARENA, &err) < 0 || (argc > 1 && str_u64(argv[1], 1 << 20, &mib) < 0))
		return 2;
	for (size_t i = 0; i < ARRAY_SIZE(needles); i++)
		n[i] = span_str(needles[i]);
	set = echo_set_new(n, ARRAY_SIZE(n));
	for (int kind = 0; set && kind < 3; kind++)
		for (size_t step = 1400; step <= ECHO_WINDOW; step = step == 1400 ? ECHO_WINDOW : step + 1) {
			struct echo *e = echo_new(set);
			int64_t began;
			size_t sum = 0;

			if (!e)
				return 2;
			fill(text, kind);
			began = cpu_ns();
			for (uint64_t m = 0; m < mib; m++)
				for (size_t at = 0; at < TEXT; at += step)
					sum += echo_feed(e, SPAN(text + at, MIN(step, TEXT - at)), out);
			(void)printf("%-12s %5zu bytes a piece: %6.0f MB/s\n", kinds[kind], step,
				     (double)(mib * TEXT) * 1000 / (double)(cpu_ns() - began));
			if (sum == 0 || echo_hits(e, ECHO_RAW) > 0)
				return 1;
			echo_free(e);
		}
	echo_set_put(set);
	return set ? 0 : 2;
}
