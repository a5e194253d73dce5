/* The host's login files, by the first byte: which one. What is lent fits its grammar; the guest's file is JSON and
 * holds nothing of a secret; nothing stays in the arena. */
#include "fuzz.h"

#include <string.h>

#include "base/jread.h"
#include "vault/guestfile.h"

static void check_secret(const struct secret *s, struct span guest)
{
	for (size_t i = 0; i < s->n; i++)
		MUST(s->p[i] > 0x20 && s->p[i] < 0x7f);
	/* Short ones may be part of a name, and a text of the file's own is no secret that came through. */
	MUST(s->n < 24 || guest.n < s->n || !memmem(guest.p, guest.n, s->p, s->n));
}

static void check_guest(struct buf *b, int r)
{
	struct span v;

	MUST(r < 0 || jread_check(buf_span(b), HOSTFILE_DEPTH, &v) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct ph_set set;
	static bool ready;
	struct host_keys keys = { 0 };
	struct login l = { 0 };
	const char *why = NULL;
	struct buf out;
	uint8_t *whole;
	struct err err;
	int r;

	if (!ready) {
		MUST(secret_arena_open(SECRET_ARENA, &err) == 0);
		for (int k = 0; k < PH_KINDS; k++)
			(void)memset(set.v[k], 'a' + k, PH_S);
		ready = true;
	}
	if (n == 0)
		return 0;
	buf_init(&out, GUESTFILE_MAX);
	if (p[0] == 'C') {
		r = hostfile_copilot(SPAN(p + 1, n - 1), &l, &why);
		MUST(r < 0 || l.access.n > 4);
	} else if (p[0] % 3 == 0) {
		r = hostfile_anthropic(SPAN(p + 1, n - 1), &l, &why);
		if (r == 0)
			check_guest(&out, guestfile_claude(&l.info, &set, &out));
	} else if (p[0] % 3 == 1) {
		r = hostfile_openai(SPAN(p + 1, n - 1), &l, &why);
		if (r == 0)
			check_guest(&out, guestfile_codex(&l.info, &set, 1800000000, &out));
	} else {
		r = hostfile_opencode(SPAN(p + 1, n - 1), &keys, &why);
		if (r == 0)
			check_guest(&out, guestfile_opencode(NULL, keys.id, &set, 1800000000, &out));
		MUST(r < 0 || keys.have != 0);
	}
	MUST(r == 0 || r == -2 || why);
	check_secret(&l.access, buf_span(&out));
	check_secret(&l.refresh, buf_span(&out));
	check_secret(&l.id, buf_span(&out));
	check_secret(&l.key, buf_span(&out));
	login_done(&l);
	host_keys_done(&keys);
	buf_done(&out);
	whole = secret_alloc(SECRET_ARENA);
	MUST(whole);
	secret_free(whole);
	return 0;
}
