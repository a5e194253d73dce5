/* Heads from the guest through gate's parser and judge, the message, vault's check and the head that goes out: never a
 * secret outside its slot, never a placeholder, never two requests where one was judged. The first byte chooses the
 * host; in the rest "\1K" stands for the placeholder of the kind with number K - "a", so that a fuzzer finds slots. */
#include "fuzz.h"

#include <string.h>

#include "gate/http1.h"
#include "gate/judge.h"
#include "vault/recheck.h"
#include "vault/reqhead.h"

static const char secret[] = "CANARY-secret-0123456789";
static const uint8_t seed[PH_SEED] = "fuzz";

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

/* The field that a byte of the head stands in begins with one of the slots' lines. */
static void in_slot(struct span out)
{
	static const char *const lines[] = { "\r\nAuthorization: Bearer CANARY", "\r\nx-api-key: CANARY" };
	size_t good = 0;

	for (size_t i = 0; i < 2; i++)
		good += count(out, lines[i]);
	MUST(good == count(out, secret));
}

static void forwarded(const struct judge *j, const struct judged *d, const struct request *r)
{
	static uint8_t out[REQHEAD_MAX];
	static struct httpmsg_request m;
	struct span secrets[HTTPMSG_CREDS] = { span_str(secret), span_str(secret) };
	struct buf msg;
	ssize_t n;

	buf_init(&msg, HTTPMSG_MAX);
	MUST(judge_message(d, r, 1, 2, &msg) == 0);
	MUST(httpmsg_request_parse(buf_span(&msg), &m) == 0);
	/* What gate lets through, vault lets through: two tables that disagree would be a request that never works. */
	MUST(recheck(&j->launch, &m) == REFUSAL_NONE);
	n = reqhead_write(&m, secrets, span_str("account"), out, sizeof(out));
	MUST(n > 0);
	MUST(count(SPAN(out, (size_t)n), "\r\n\r\n") == 1 &&
	     count(SPAN(out, (size_t)n), "\n") == count(SPAN(out, (size_t)n), "\r\n"));
	MUST(ph_find(&j->set, SPAN(out, (size_t)n), NULL) != PH_OURS);
	in_slot(SPAN(out, (size_t)n));
	MUST(count(SPAN(out, (size_t)n), secret) == d->use.n || d->use.slot[0] == SLOT_BASIC);
	buf_done(&msg);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct ph_set set; /* drawn once */
	static struct gh_scope listed;
	struct judge j = { .launch = { .lent = PH_ALL }, .github = &listed };
	const struct ph_claims claims = { .exp = 1 };
	enum prov_host_id host;
	struct span in, body;
	struct http1 h;
	struct buf text;

	if (n == 0)
		return 0;
	MUST(set.v[0][0] != '\0' || ph_draw(seed, PH_ALL, &set) == 0);
	j.set = set;
	gh_scope_init(&listed);
	MUST(gh_scope_add(&listed, (struct gh_slug){ span_str("acme"), span_str("app") }, GH_WRITE) == 0);
	if (p[0] & 0x80)
		j.launch.opened[PROV_ANTHROPIC] = j.launch.opened[PROV_OPENAI] = 0xff & ~(1 << CLASS_FOREIGN);
	host = (enum prov_host_id)((p[0] & 0x7f) % HOSTS);
	buf_init(&text, 1 << 20);
	for (size_t i = 1; i < n; i++) {
		if (p[i] == 1 && i + 1 < n && p[i + 1] >= 'a' && p[i + 1] < 'a' + PH_KINDS)
			(void)ph_write(&j.set, (enum ph_kind)(p[++i] - 'a'), &claims, &text);
		else if (buf_put_u8(&text, p[i]) < 0)
			break;
	}
	/* A canary of the guest's own would be no finding. */
	if (text.n > 0 && !memmem(buf_span(&text).p, text.n, "CANARY", 6)) {
		in = buf_span(&text);
		http1_init(&h, span_str(prov_hosts[host].name));
		for (enum http1_event ev; (ev = http1_feed(&h, &in, &body)) != HTTP1_MORE;) {
			struct judged d;

			if (ev == HTTP1_HEAD && judge_request(&j, host, true, &h.req, &d) == JUDGE_FORWARD)
				forwarded(&j, &d, &h.req);
			if (ev == HTTP1_DONE)
				http1_next(&h);
		}
		http1_done(&h);
	}
	buf_done(&text);
	return 0;
}
