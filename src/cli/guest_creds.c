#include "cli/guest_creds.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/base64.h"
#include "base/macros.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"
#include "vault/guestfile.h"

/* One failure is enough: the buffer's maximum was passed. */
#define TRY(call)                        \
	do {                             \
		if ((call) < 0)          \
			return -ENOBUFS; \
	} while (0)

const char *guest_creds_ca(const struct network *n, const struct upstream *u)
{
	return u->host_ca ? GC_CA_EXTRA : n->ca_n > 0 ? GC_CA_PEM : NULL;
}

/* RFC 7468: lines of 64 characters. */
static int put_pem(const uint8_t *der, size_t n, struct buf *out)
{
	static const char begin[] = "-----BEGIN CERTIFICATE-----\n", end[] = "-----END CERTIFICATE-----\n";
	char line[65];
	size_t k;

	TRY(buf_put(out, begin, strlen(begin)));
	for (size_t i = 0; i < n; i += 48) {
		k = base64_encode(BASE64_STD, SPAN(der + i, MIN(n - i, 48)), line);
		line[k] = '\n';
		TRY(buf_put(out, line, k + 1));
	}
	return buf_put(out, end, strlen(end));
}

int guest_creds_put_ca(const struct network *n, const struct upstream *u, struct buf *out)
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

/* Text of a login file, or NULL when the host has nothing for it. -ENOBUFS is a bug: the texts are bounded. */
static char *text_of(struct buf *b, int r)
{
	char *text = r == 0 ? xstrndup((const char *)buf_span(b).p, b->n) : NULL;

	assert(r == 0 || r == -ENOENT);
	buf_done(b);
	return text;
}

static char *codex_file(const struct creds *c, int64_t now_s)
{
	const struct creds_source *s = creds_source(c, SOURCE_OPENAI);
	struct buf b;

	buf_init(&b, GUESTFILE_MAX);
	/* Its program does not look at the variable. */
	return text_of(&b, s ? guestfile_codex(&s->info, &c->set, now_s, &b)
			     : guestfile_codex_key(PH_OPENAI_KEY, &c->set, &b));
}

static char *opencode_file(const struct creds *c, int64_t now_s)
{
	const struct creds_source *s = creds_source(c, SOURCE_OPENAI);
	const struct login_info *info = s && s->info.mode == LOGIN_CHATGPT ? &s->info : NULL;
	struct buf b;

	buf_init(&b, GUESTFILE_MAX);
	return text_of(&b, info || creds_source(c, SOURCE_OPENCODE)
				   ? guestfile_opencode(info, c->opencode_ids, &c->set, now_s, &b)
				   : -ENOENT);
}

static char *claude_file(const struct creds *c)
{
	const struct creds_source *s = creds_source(c, SOURCE_ANTHROPIC);
	struct buf b;

	buf_init(&b, GUESTFILE_MAX);
	return text_of(&b, s ? guestfile_claude(&s->info, &c->set, &b) : -ENOENT);
}

static const char *value_of(const struct creds *c, enum ph_kind kind)
{
	return c->set.v[kind][0] ? c->set.v[kind] : NULL;
}

void guest_creds_logins(const struct creds *c, struct agent_logins *ret)
{
	const char *key = value_of(c, PH_ANTHROPIC_KEY);
	int64_t now_s = time(NULL);

	*ret = (struct agent_logins){
		.claude_file = claude_file(c),
		.codex_file = codex_file(c, now_s),
		.opencode_file = opencode_file(c, now_s),
		.api_key_tail = key ? key + strlen(key) - GC_TAIL : NULL,
		.github = value_of(c, PH_GH),
		.copilot = value_of(c, PH_COPILOT),
		.opencode_openai = value_of(c, PH_OPENCODE_A) || value_of(c, PH_OPENAI_KEY),
	};
}

void guest_creds_logins_done(struct agent_logins *l)
{
	free((char *)(uintptr_t)l->claude_file);
	free((char *)(uintptr_t)l->codex_file);
	free((char *)(uintptr_t)l->opencode_file);
	*l = (struct agent_logins){ 0 };
}
