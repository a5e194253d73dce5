#include "gate/policy/github/decide.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/jread.h"
#include "gate/policy/github/push.h"

#define LIST_SHOWN 200
#define OUT_MAX 2048
#define DOCS "https://docs.github.com/rest"

static int put(struct buf *out, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int put(struct buf *out, const char *fmt, ...)
{
	char text[OUT_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return n < 0 || (size_t)n >= sizeof(text) ? -ENOBUFS : buf_put(out, text, (size_t)n);
}

static int push_answer(const struct gh_decision *d, struct buf *out)
{
	struct gh_push p;
	bool read = gh_push_scan(d->seen, &p) == GH_PUSH_ENOUGH && p.n > 0;

	return gh_push_answer(read ? &p : NULL, read ? MIN(d->bad_ref, p.n) : 0, d->what, d->how, out);
}

/* The id of the call, if it has one that JSON-RPC knows. */
static struct span call_id(struct span body)
{
	struct span o, id;

	if (jread_check(body, 64, &o) == 0 && jread_type(o) == JREAD_OBJECT && jread_member(o, "id", &id) &&
	    (jread_type(id) == JREAD_STRING || jread_type(id) == JREAD_NUMBER) && id.n <= 128)
		return id;
	return span_str("null");
}

int gh_denial(const struct gh_decision *d, struct buf *out, const char **ret_type)
{
	const char *code = refusal_code_str[d->code], *how = d->how[0] ? d->how : "it stays closed";
	char list[LIST_SHOWN];
	struct span id;

	switch (d->form) {
	case GH_FORM_TEXT:
		*ret_type = "text/plain; charset=utf-8";
		return put(out, "%s (sandbox policy %s)\n%s\n", d->what, code, how);
	case GH_FORM_PUSH:
		*ret_type = "application/x-git-receive-pack-result";
		return push_answer(d, out);
	case GH_FORM_FETCH:
		*ret_type = "application/x-git-upload-pack-result";
		return gh_fetch_answer(d->what, out);
	case GH_FORM_LFS:
		*ret_type = GH_LFS_TYPE;
		return put(out, "{\"message\":\"%s (sandbox policy %s); %s\"}", d->what, code, how);
	case GH_FORM_MCP:
		*ret_type = "application/json";
		id = call_id(d->seen);
		return put(out,
			   "{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"error\":{\"code\":-32602,\"message\":\"%s (sandbox "
			   "policy %s); "
			   "%s\"}}",
			   (int)id.n, (const char *)id.p, d->what, code, how);
	default:
		gh_scope_print(d->scope, list, sizeof(list));
		*ret_type = "application/json; charset=utf-8";
		return put(
			out,
			"{\"message\":\"%s (sandbox policy %s)\\nallowed: %s\\nhow: %s\",\"documentation_url\":\"" DOCS
			"\",\"status\":\"%u\"}",
			d->what, code, list, how, d->status);
	}
}

int gh_hint(const struct gh_decision *d, uint16_t status, struct buf *out, uint16_t *ret_status, const char **ret_type)
{
	char text[3 * GH_TEXT_MAX];
	int e;

	if (d->verdict != GH_ANONYMOUS || (d->reply != GH_REPLY_HINT && d->reply != GH_REPLY_HINT_GIT) || !d->what[0] ||
	    (status != 401 && status != 403 && status != 404 && status != 429))
		return 0;
	(void)snprintf(text, sizeof(text),
		       "sandbox: %s is not on this sandbox's GitHub list; the request was sent without credentials; "
		       "start with "
		       "--repo %s",
		       d->what, d->what);
	/* git asks for a password at 401, and gh advises to sign in. */
	*ret_status = status == 401 || d->reply == GH_REPLY_HINT_GIT ? 403 : status;
	switch (d->form) {
	case GH_FORM_REST:
		*ret_type = "application/json; charset=utf-8";
		e = put(out, "{\"message\":\"%s (%s)\",\"documentation_url\":\"" DOCS "\",\"status\":\"%u\"}",
			status == 404 ? "Not Found" : "Refused", text, *ret_status);
		break;
	case GH_FORM_LFS:
		/* Of anything else git-lfs shows nothing. */
		*ret_type = GH_LFS_TYPE;
		e = put(out, "{\"message\":\"%s\"}", text);
		break;
	default:
		*ret_type = "text/plain; charset=utf-8";
		e = put(out, "%s\n", text);
		break;
	}
	return e < 0 ? e : 1;
}
