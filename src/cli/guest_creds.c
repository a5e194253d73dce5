#include "cli/guest_creds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/macros.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"
#include "vault/guestfile.h"

/* One failure is enough: the buffer's maximum was passed. */
#define TRY(call)                      \
	do {                           \
		if ((call) < 0)        \
			return -ENOBUFS; \
	} while (0)

const char *guest_creds_ca(const struct network *n, const struct upstream *u)
{
	return u->host_ca ? GC_CA_EXTRA : n->ca_n > 0 ? GC_CA_PEM : NULL;
}

/* RFC 7468: lines of 64 characters. */
static int put_pem(const uint8_t *der, size_t n, struct buf *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	static const char begin[] = "-----BEGIN CERTIFICATE-----\n", end[] = "-----END CERTIFICATE-----\n";
	unsigned column = 0;

	TRY(buf_put(out, begin, strlen(begin)));
	for (size_t i = 0; i < n; i += 3) {
		uint32_t three = (uint32_t)der[i] << 16 | (i + 1 < n ? (uint32_t)der[i + 1] << 8 : 0) | (i + 2 < n ? der[i + 2] : 0);
		char four[5] = { digits[three >> 18], digits[three >> 12 & 63], i + 1 < n ? digits[three >> 6 & 63] : '=',
				 i + 2 < n ? digits[three & 63] : '=', '\n' };

		column += 4;
		TRY(buf_put(out, four, column % 64 == 0 || i + 3 >= n ? 5 : 4));
	}
	return buf_put(out, end, strlen(end));
}

static int put_ca(const struct network *n, const struct upstream *u, struct buf *out)
{
	struct buf pem;
	ssize_t at;
	int r = 0;

	if (!guest_creds_ca(n, u))
		return 0;
	at = rec_begin(out, GC_CA);
	TRY(at);
	if (n->ca_n > 0) {
		buf_init(&pem, 2 * NETWORK_CA_MAX);
		r = put_pem(n->ca, n->ca_n, &pem);
		if (r == 0)
			r = rec_put(out, GC_CA_OWN, buf_span(&pem).p, pem.n);
		buf_done(&pem);
		TRY(r);
		TRY(rec_put_u64(out, GC_CA_HASH, n->ca_hash));
	}
	if (u->host_ca)
		TRY(rec_put_str(out, GC_CA_HOST, u->host_ca));
	rec_end(out, (size_t)at);
	return 0;
}

static int put_file(struct buf *out, const char *state, const char *name, const struct buf *content)
{
	ssize_t at = rec_begin(out, GC_FILE);
	AUTO_FREE(char, path);

	TRY(at);
	path = xasprintf("%s/%s", state, name);
	TRY(rec_put_str(out, GC_PATH, path));
	TRY(rec_put_u64(out, GC_MODE, 0600));
	TRY(rec_put(out, GC_CONTENT, buf_span(content).p, content->n));
	rec_end(out, (size_t)at);
	return 0;
}

enum guest_file { FILE_CLAUDE, FILE_CODEX, FILE_OPENCODE, FILES };

static const char *const names[FILES] = {
	[FILE_CLAUDE] = "claude/.credentials.json", [FILE_CODEX] = "codex/auth.json", [FILE_OPENCODE] = "opencode/auth.json",
};

/* 0; -ENOENT: there is none; -ENOBUFS. */
static int content(const struct creds *c, enum guest_file file, int64_t now_s, struct buf *out)
{
	const struct creds_source *claude = creds_source(c, SOURCE_ANTHROPIC), *codex = creds_source(c, SOURCE_OPENAI),
				  *opencode = creds_source(c, SOURCE_OPENCODE);

	switch (file) {
	case FILE_CLAUDE:
		return claude ? guestfile_claude(&claude->info, &c->set, out) : -ENOENT;
	case FILE_CODEX:
		if (codex)
			return guestfile_codex(&codex->info, &c->set, now_s, out);
		/* Its program does not look at the variable. */
		return guestfile_codex_key(PH_OPENAI_KEY, &c->set, out);
	default:
		break;
	}
	if ((!codex || codex->info.mode != LOGIN_CHATGPT) && !opencode)
		return -ENOENT;
	return guestfile_opencode(codex ? &codex->info : NULL, opencode ? c->launch.lent : 0, &c->set, now_s, out);
}

int guest_creds_put(const struct creds *c, const struct network *n, const struct upstream *u, const char *state, struct buf *out)
{
	TRY(put_ca(n, u, out));
	for (int i = 0; i < FILES; i++) {
		struct buf b;
		int r;

		buf_init(&b, GUESTFILE_MAX);
		r = content(c, (enum guest_file)i, time(NULL), &b);
		if (r == 0)
			r = put_file(out, state, names[i], &b);
		buf_done(&b);
		if (r < 0 && r != -ENOENT)
			return -ENOBUFS;
	}
	return 0;
}
