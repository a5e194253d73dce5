/* How many window updates of HTTP/2 are no flood: gate counts those of the guest, vault those of a service. */
#pragma once

#include <stddef.h>

#define H2UPDATES_MAX (1 << 16)

/* A DATA frame of ours with @n bytes may be answered by so many more: Go's clients and servers send two for 4 KiB. */
static inline void h2updates_earn(unsigned *updates, size_t n)
{
	if (*updates < H2UPDATES_MAX)
		*updates += 4 + (unsigned)(n / 2048);
}
