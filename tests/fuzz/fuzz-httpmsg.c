/* A message between gate and vault, as a hostile peer might write it. What is read can be written again, byte for byte,
 * and what vault's check lets through makes a head of lines that nobody can read in two ways. */
#include "fuzz.h"

#include <string.h>

#include "agents/providers.h"
#include "base/buf.h"
#include "vault/recheck.h"
#include "vault/reqhead.h"

static const char secret[] = "CANARY-secret-0123456789";

static size_t count(struct span s, const char *what)
{
	const uint8_t *at;
	size_t n = 0;

	while (s.n > 0 && (at = memmem(s.p, s.n, what, strlen(what)))) {
		n++;
		s = SPAN(at + 1, s.n - 1 - (size_t)(at - s.p));
	}
	return n;
}

static void send_it(const struct httpmsg_request *m)
{
	static uint8_t out[REQHEAD_MAX];
	const struct prov_launch launch = { .lent = PH_ALL };
	struct span secrets[HTTPMSG_CREDS] = { span_str(secret), span_str(secret) };
	size_t creds = (size_t)(m->w.kind[0] != HTTPMSG_NO_CRED) + (size_t)(m->w.kind[1] != HTTPMSG_NO_CRED), plain;
	ssize_t n;

	if (recheck(&launch, m) != REFUSAL_NONE)
		return;
	n = reqhead_write(m, secrets, span_str("account"), out, sizeof(out));
	MUST(n > 0);
	MUST(count(SPAN(out, (size_t)n), "\r\n\r\n") == 1 && memcmp(out + n - 4, "\r\n\r\n", 4) == 0);
	MUST(count(SPAN(out, (size_t)n), "\n") == count(SPAN(out, (size_t)n), "\r\n"));
	plain = count(SPAN(out, (size_t)n), secret);
	/* The message may hold the same text by chance of the fuzzer, so only more than its own is wrong. */
	MUST(plain <= creds + count(m->path, secret) + count(m->query, secret) + m->w.n_fields * 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct httpmsg_request m;
	static struct httpmsg_answer a;
	struct buf b;

	buf_init(&b, HTTPMSG_MAX);
	if (httpmsg_request_parse(SPAN(p, n), &m) == 0) {
		MUST(httpmsg_request_begin(&b, &m.w, m.path, m.query) == 0);
		for (size_t i = 0; i < m.w.n_fields; i++)
			MUST(httpmsg_field(&b, m.f[i].name, m.f[i].value) == 0);
		httpmsg_end(&b, m.w.n_fields);
		MUST(b.n == n && memcmp(buf_span(&b).p, p, n) == 0);
		send_it(&m);
	} else if (httpmsg_answer_parse(SPAN(p, n), &a) == 0) {
		MUST(httpmsg_answer_begin(&b, &a.w) == 0);
		for (size_t i = 0; i < a.w.n_fields; i++)
			MUST(httpmsg_field(&b, a.f[i].name, a.f[i].value) == 0);
		httpmsg_end(&b, a.w.n_fields);
		MUST(b.n == n && memcmp(buf_span(&b).p, p, n) == 0);
	}
	buf_done(&b);
	return 0;
}
