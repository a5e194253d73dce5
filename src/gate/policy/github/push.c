#include "gate/policy/github/push.h"

#include <errno.h>
#include <stdio.h>

#include "base/macros.h"

#define PKT_MAX 65520  /* with its four digits */
#define BAND_MAX 65000 /* of one packet of a band, with room for its own digits */
#define OID_MIN 40     /* SHA-1 in hex */
#define OID_MAX 64     /* SHA-256 */

static int hex(uint8_t c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* The next pkt-line: 1 with its bytes, 0 for a flush, -EAGAIN when more must come, -EBADMSG. */
static int next_pkt(struct span *in, struct span *ret)
{
	unsigned n = 0;

	for (size_t i = 0; i < 4; i++) {
		int h = i < in->n ? hex(in->p[i]) : 0;

		if (h < 0)
			return -EBADMSG;
		n = n << 4 | (unsigned)h;
	}
	if (in->n < 4)
		return -EAGAIN;
	if (n == 0) {
		*in = SPAN(in->p + 4, in->n - 4);
		return 0;
	}
	/* 1 to 3 are marks of protocol 2, which has no push. */
	if (n <= 4 || n > PKT_MAX)
		return -EBADMSG;
	if (in->n < n)
		return -EAGAIN;
	*ret = SPAN(in->p + 4, n - 4);
	*in = SPAN(in->p + n, in->n - n);
	return 1;
}

static bool take_word(struct span *s, struct span *ret)
{
	const uint8_t *space = s->n > 0 ? memchr(s->p, ' ', s->n) : NULL;

	if (!space)
		return false;
	*ret = SPAN(s->p, (size_t)(space - s->p));
	*s = SPAN(space + 1, s->n - ret->n - 1);
	return true;
}

static bool is_oid(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (hex(s.p[i]) < 0)
			return false;
	return s.n == OID_MIN || s.n == OID_MAX;
}

static bool is_zero(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != '0')
			return false;
	return true;
}

/* What a ref may consist of, as far as it matters here: git's own rules are the server's to keep. */
static bool is_ref(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] == 0x7f)
			return false;
	return s.n > 0;
}

static void capabilities(struct span s, struct gh_push *p)
{
	while (s.n > 0) {
		struct span word;

		if (!take_word(&s, &word)) {
			word = s;
			s.n = 0;
		}
		if (word.n > 0 && word.p[word.n - 1] == '\n')
			word.n--;
		p->report = p->report || span_is(word, "report-status") || span_is(word, "report-status-v2");
		p->sideband = p->sideband || span_is(word, "side-band-64k");
	}
}

static bool command(struct span line, bool first, struct gh_push *p)
{
	static const char shallow[] = "shallow ";
	const uint8_t *nul = line.n > 0 ? memchr(line.p, '\0', line.n) : NULL;
	struct span old, new, ref = line, caps = { 0 };

	if (nul) {
		caps = SPAN(nul + 1, line.n - (size_t)(nul - line.p) - 1);
		ref.n = (size_t)(nul - line.p);
		if (!first)
			return false;
	}
	if (ref.n > 0 && ref.p[ref.n - 1] == '\n')
		ref.n--;
	if (ref.n > strlen(shallow) && memcmp(ref.p, shallow, strlen(shallow)) == 0)
		return !nul && is_oid(SPAN(ref.p + strlen(shallow), ref.n - strlen(shallow)));
	if (p->n == GH_PUSH_REFS_MAX || !take_word(&ref, &old) || !take_word(&ref, &new) || !is_oid(old) ||
	    !is_oid(new) || !is_ref(ref))
		return false;
	p->cmd[p->n].ref = ref;
	p->cmd[p->n++].deletes = is_zero(new);
	capabilities(caps, p);
	return true;
}

enum gh_push_scan gh_push_scan(struct span in, struct gh_push *ret)
{
	struct span line;

	ret->n = 0;
	ret->report = ret->sideband = false;
	for (;;) {
		switch (next_pkt(&in, &line)) {
		case 1:
			if (!command(line, ret->n == 0, ret))
				return GH_PUSH_BAD;
			break;
		case 0:
			return GH_PUSH_ENOUGH;
		case -EAGAIN:
			return GH_PUSH_MORE;
		default:
			return GH_PUSH_BAD;
		}
	}
}

static int put_pkt(struct buf *out, const char *band, struct span s)
{
	char head[8];

	(void)snprintf(head, sizeof(head), "%04zx%s", 4 + strlen(band) + s.n, band);
	return buf_put(out, head, 4 + strlen(band)) < 0 || buf_put(out, s.p, s.n) < 0 ? -ENOBUFS : 0;
}

static int put_line(struct buf *out, const char *kind, struct span what, const char *why)
{
	char front[8], back[128];
	int n = snprintf(back, sizeof(back), "%s%s\n", why[0] ? " " : "", why);
	size_t back_n = MIN((size_t)n, sizeof(back) - 1);

	back[back_n - 1] = '\n';
	(void)snprintf(front, sizeof(front), "%04zx", 4 + strlen(kind) + what.n + back_n);
	return buf_put(out, front, 4) < 0 || buf_put(out, kind, strlen(kind)) < 0 || buf_put(out, what.p, what.n) < 0 ||
			       buf_put(out, back, back_n) < 0
		       ? -ENOBUFS
		       : 0;
}

int gh_push_answer(const struct gh_push *push, size_t bad, const char *why, const char *how, struct buf *out)
{
	struct buf report;
	int e = 0;

	if (!push || !push->report)
		return put_line(out, "unpack", span_str(""), "denied by sandbox policy") < 0 ||
				       buf_put(out, "0000", 4) < 0
			       ? -ENOBUFS
			       : 0;
	buf_init(&report, out->max);
	e = put_line(&report, "unpack ok", span_str(""), "");
	for (size_t i = 0; e == 0 && i < push->n; i++)
		e = put_line(&report, "ng ", push->cmd[i].ref,
			     bad == push->n || i == bad ? "denied by sandbox policy"
							: "not pushed, as another ref is denied");
	if (e == 0)
		e = buf_put(&report, "0000", 4);
	if (e == 0 && push->sideband) {
		char text[1024];
		int n = snprintf(text, sizeof(text), "sandbox: %s%s%s\n", why, how[0] ? "; " : "", how);

		e = put_pkt(out, "\x02", SPAN(text, MIN((size_t)n, sizeof(text) - 1)));
	}
	while (e == 0 && report.n > 0) {
		struct span part = buf_span(&report);

		part.n = push->sideband ? MIN(part.n, (size_t)BAND_MAX) : part.n;
		e = push->sideband ? put_pkt(out, "\x01", part) : buf_put(out, part.p, part.n);
		buf_consume(&report, part.n);
	}
	if (e == 0 && push->sideband)
		e = buf_put(out, "0000", 4);
	buf_done(&report);
	return e;
}

int gh_fetch_answer(const char *why, struct buf *out)
{
	return put_line(out, "ERR sandbox: ", span_str(why), "");
}
