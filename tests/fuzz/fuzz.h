/* One target a program: fuzz_one() takes the bytes. Linked with libFuzzer (-Dfuzz=true, clang), or with replay.c, which runs
 * the files of tests/fuzz/corpus/NAME in every `meson test`. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* assert() with the place, also where asserts might be off. */
#define MUST(cond)                                                                          \
	do {                                                                                \
		if (!(cond)) {                                                              \
			(void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                            \
		}                                                                           \
	} while (0)
