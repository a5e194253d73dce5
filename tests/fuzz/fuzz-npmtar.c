/* A package's tar and the layer made of it: places lie in the tar, no name leads out, a layer's names are sorted and single,
 * and each has a header. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "base/span.h"
#include "image/pack.h"

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
	MUST(*name && *name != '/' && strlen(name) <= NPMTAR_NAME_MAX + 4 && strcmp(name, "..") != 0 && strncmp(name, "../", 3) != 0 &&
	     !strstr(name, "/../") && !strstr(name, "//"));
}

static void make_layer(const struct npmtar *t)
{
	struct strv rules = { NULL, 0 };
	uint8_t h[PACK_HEADER];
	struct pack_list l;
	struct err err;

	strv_add(&rules, "take package/ out/");
	strv_add(&rules, "leave package/left/");
	if (pack_select(t, &rules, &l, &err) == 0) {
		for (size_t i = 0; i < l.n; i++) {
			is_inside(l.v[i].name);
			MUST(i == 0 || strcmp(l.v[i - 1].name, l.v[i].name) < 0);
			MUST(strncmp(l.v[i].name, "out", 3) == 0 && strncmp(l.v[i].name, "out/left/", 9) != 0);
			(void)pack_header(&l.v[i], 1, h, &err);
		}
		pack_list_done(&l);
	}
	strv_done(&rules);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct span in = SPAN(p, n);
	struct err err = { 0 };
	struct npmtar t;

	if (npmtar_index(read_at, &in, n, &t, &err) < 0) {
		MUST(err.text[0]);
		return 0;
	}
	for (size_t i = 0; i < t.n; i++) {
		MUST(t.files[i].at <= n && t.files[i].bytes <= n - t.files[i].at);
		is_inside(t.files[i].name);
	}
	make_layer(&t);
	npmtar_done(&t);
	return 0;
}
