#include "cli/guest_creds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/macros.h"
#include "cli/state_rules.h"
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

/* A login file: its rules are begun when there is the first. */
struct file {
	struct state_rules w;
	const char *path;
	bool begun;
};

/* @r: of making @value; -ENOENT: the host has no such login. */
static void login(struct file *f, int r, const char *const *keys, const struct buf *value, bool alone)
{
	AUTO_FREE(char, text);

	if (r < 0 && r != -ENOENT)
		f->w.failed = true;
	if (f->w.failed || (r < 0 && !alone))
		return;
	if (!f->begun)
		state_begin(&f->w, f->path, 0600, GC_FORM_JSON);
	f->begun = true;
	text = r == 0 ? xstrndup((const char *)buf_span(value).p, value->n) : NULL;
	state_rule(&f->w, GC_RULE_LOGIN, keys, text);
}

static int file_end(struct file *f)
{
	if (f->begun)
		state_end(&f->w);
	return f->w.failed ? -ENOBUFS : 0;
}

static int put_claude(const struct creds *c, bool alone, struct buf *out)
{
	struct file f = { .w = { .out = out }, .path = "claude/.credentials.json" };
	const struct creds_source *s = creds_source(c, SOURCE_ANTHROPIC);
	struct buf b;

	buf_init(&b, GUESTFILE_MAX);
	login(&f, s ? guestfile_claude(&s->info, &c->set, &b) : -ENOENT, STATE_KEYS("claudeAiOauth"), &b, alone);
	buf_done(&b);
	return file_end(&f);
}

static int put_codex(const struct creds *c, bool alone, struct buf *out)
{
	struct file f = { .w = { .out = out }, .path = "codex/auth.json" };
	const struct creds_source *s = creds_source(c, SOURCE_OPENAI);
	struct buf b;
	int r;

	buf_init(&b, GUESTFILE_MAX);
	/* Its program does not look at the variable. */
	r = s ? guestfile_codex(&s->info, &c->set, time(NULL), &b) : guestfile_codex_key(PH_OPENAI_KEY, &c->set, &b);
	login(&f, r, STATE_KEYS("auth_mode", "OPENAI_API_KEY", "tokens", "last_refresh"), &b, alone);
	buf_done(&b);
	return file_end(&f);
}

/* Each id is a login of its own. */
static int put_opencode(const struct creds *c, bool alone, struct buf *out)
{
	struct file f = { .w = { .out = out }, .path = "opencode/auth.json" };
	const struct creds_source *s = creds_source(c, SOURCE_OPENAI), *keys = creds_source(c, SOURCE_OPENCODE);
	struct buf b;

	buf_init(&b, GUESTFILE_MAX);
	login(&f, s && s->info.mode == LOGIN_CHATGPT ? guestfile_opencode(&s->info, 0, &c->set, time(NULL), &b) : -ENOENT,
	      STATE_KEYS("openai"), &b, alone);
	buf_done(&b);
	for (int k = 0; k < PH_KINDS; k++) {
		const char *id = hostfile_opencode_id((enum ph_kind)k);

		if (!id)
			continue;
		buf_init(&b, GUESTFILE_MAX);
		login(&f, keys && c->launch.lent & PH_BIT(k) ? guestfile_opencode(NULL, PH_BIT(k), &c->set, time(NULL), &b) : -ENOENT,
		      STATE_KEYS(id), &b, alone);
		buf_done(&b);
	}
	return file_end(&f);
}

int guest_creds_put(const struct creds *c, const struct network *n, const struct upstream *u, bool alone, struct buf *out)
{
	TRY(put_ca(n, u, out));
	TRY(put_claude(c, alone, out));
	TRY(put_codex(c, alone, out));
	return put_opencode(c, alone, out);
}

static const char *value_of(const struct creds *c, enum ph_kind kind)
{
	return c->set.v[kind][0] ? c->set.v[kind] : NULL;
}

struct agent_logins guest_creds_logins(const struct creds *c)
{
	const char *key = value_of(c, PH_ANTHROPIC_KEY);

	return (struct agent_logins){
		.api_key_tail = key ? key + strlen(key) - GC_TAIL : NULL,
		.copilot = value_of(c, PH_COPILOT),
		.opencode_keys_only = creds_source(c, SOURCE_OPENCODE) && !creds_source(c, SOURCE_OPENAI) && !value_of(c, PH_OPENAI_KEY),
	};
}
