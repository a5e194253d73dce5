/* The index of an archive: every place lies in it, no name leads out, every lookup ends. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "base/span.h"
#include "image/tarindex.h"

static ssize_t read_at(void *ctx, uint64_t at, void *p, size_t n)
{
	const struct span *s = ctx;

	MUST(at <= s->n);
	n = MIN(n, s->n - at);
	n = MIN(n, (size_t)700); /* short reads */
	memcpy(p, s->p + at, n);
	return (ssize_t)n;
}

static void is_inside(const char *name)
{
	MUST(*name != '/' && strcmp(name, "..") != 0 && strncmp(name, "../", 3) != 0 && !strstr(name, "/../"));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct span in = SPAN(p, n);
	const struct tar_entry *e;
	struct tar_index t;
	struct err err;
	int r = tar_index_build(read_at, &in, n, &t, &err);

	if (r < 0) {
		MUST(r == -EBADMSG && err.text[0]);
		return 0;
	}
	MUST(t.n > 0 && t.n <= TAR_ENTRIES_MAX);
	for (size_t i = 0; i < t.n; i++) {
		MUST(t.entries[i].at <= n && t.entries[i].bytes <= n - t.entries[i].at);
		is_inside(t.entries[i].name);
		if (t.entries[i].link)
			is_inside(t.entries[i].link);
	}
	for (size_t i = 0; i < MIN(t.n, (size_t)50); i++) {
		e = tar_find(&t, t.entries[i].name);
		MUST(!e || !e->link);
	}
	tar_index_done(&t);
	return 0;
}
