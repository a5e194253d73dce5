#include "gate/policy/github/decide.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/macros.h"

#define TARGET_MAX (8 << 10)
#define HEAD_MAX (32 << 10)

/* What comes from a request is shown as text that needs no escape anywhere. */
static void make_plain(char *s)
{
	for (; *s; s++)
		if (*s < 0x20 || *s > 0x7e || *s == '"' || *s == '\\')
			*s = '?';
}

void gh_refuse(struct gh_decision *d, enum refusal_code code, const char *how, const char *what, ...)
{
	va_list ap;

	d->verdict = GH_REFUSE;
	d->code = code;
	/* Inside git's protocol and JSON-RPC the answer is a good one, which tells of the failure. */
	d->status = d->form == GH_FORM_PUSH || d->form == GH_FORM_FETCH || d->form == GH_FORM_MCP ? 200 : 403;
	va_start(ap, what);
	(void)vsnprintf(d->what, sizeof(d->what), what, ap);
	va_end(ap);
	(void)snprintf(d->how, sizeof(d->how), "%s", how ? how : "");
	make_plain(d->what);
	make_plain(d->how);
}

void gh_refuse_unlisted(struct gh_decision *d, const struct gh_place *p)
{
	char how[GH_TEXT_MAX] = "";

	if (p->kind == GH_BY_NAME && gh_is_owner(p->slug.owner) && gh_is_name(p->slug.name)) {
		(void)snprintf(how, sizeof(how), "start with --repo %.*s/%.*s", (int)p->slug.owner.n,
			       (const char *)p->slug.owner.p, (int)p->slug.name.n, (const char *)p->slug.name.p);
		gh_refuse(d, REFUSAL_OFFLIST_WRITE, how,
			  "%.*s/%.*s is not on this sandbox's GitHub list, so it is not written to",
			  (int)p->slug.owner.n, (const char *)p->slug.owner.p, (int)p->slug.name.n,
			  (const char *)p->slug.name.p);
	} else {
		gh_refuse(
			d, REFUSAL_OFFLIST_WRITE, "name the repository as OWNER/NAME",
			"the repository of this request is not on this sandbox's GitHub list, so it is not written to");
	}
}

void gh_refuse_reader(struct gh_decision *d)
{
	char how[GH_TEXT_MAX];

	(void)snprintf(how, sizeof(how), "start with --repo %s/%s=write", d->repo->owner, d->repo->name);
	gh_refuse(d, REFUSAL_OFFLIST_WRITE, how, "%s/%s is listed for reading only", d->repo->owner, d->repo->name);
}

void gh_refuse_workflow(struct gh_decision *d)
{
	gh_refuse(d, REFUSAL_CLASS_ADMIN, "start with --github protect-workflows=off",
		  "workflows are not written from this sandbox");
}

bool gh_decide_repo(const struct gh_scope *s, const struct gh_place *p, bool writes, struct gh_decision *d)
{
	d->repo = gh_place_repo(s, p);
	if (p->kind == GH_ODD) {
		gh_refuse(d, REFUSAL_PATH, "write owner and name as they are, without percent signs",
			  "the repository in this path is not written plainly");
		return false;
	}
	if (d->repo && p->wiki && !gh_scope_has(s, GH_WIKI))
		d->repo = NULL;
	if (d->repo && (!writes || d->repo->level >= GH_WRITE))
		return true;
	if (d->repo) {
		gh_refuse_reader(d);
	} else if (!writes) {
		d->verdict = GH_ANONYMOUS;
		d->reply = GH_REPLY_HINT;
		if (p->kind == GH_BY_NAME && gh_is_owner(p->slug.owner) && gh_is_name(p->slug.name))
			(void)snprintf(d->what, sizeof(d->what), "%.*s/%.*s", (int)p->slug.owner.n,
				       (const char *)p->slug.owner.p, (int)p->slug.name.n,
				       (const char *)p->slug.name.p);
		d->rule = "read of a repository that is not listed";
	} else if (gh_place_repo(s, p)) {
		gh_refuse(d, REFUSAL_CLASS_ADMIN, "start with --github wiki=on", "wikis are closed in this sandbox");
	} else {
		gh_refuse_unlisted(d, p);
	}
	return false;
}

bool gh_is_json(const struct request *r, bool may_lack)
{
	bool found = false;

	for (size_t i = 0; i < r->n; i++) {
		struct span v = r->f[i].value, charset;
		const uint8_t *semi;

		if (http_is(r->f[i].name, "content-encoding"))
			return false;
		if (!http_is(r->f[i].name, "content-type"))
			continue;
		semi = v.n > 0 ? memchr(v.p, ';', v.n) : NULL;
		charset = semi ? http_trim(SPAN(semi + 1, v.n - (size_t)(semi - v.p) - 1)) : SPAN("", 0);
		if (found || !http_is(http_trim(SPAN(v.p, semi ? (size_t)(semi - v.p) : v.n)), "application/json") ||
		    (charset.n > 0 && !http_is(charset, "charset=utf-8") && !http_is(charset, "charset=\"utf-8\"")))
			return false;
		found = true;
	}
	return found || may_lack;
}

void gh_issues_add(struct gh_issues *k, uint64_t id)
{
	if (id != 0 && !gh_issues_have(k, id))
		k->id[k->n++ % GH_ISSUES_MAX] = id;
}

bool gh_issues_have(const struct gh_issues *k, uint64_t id)
{
	for (size_t i = 0; i < MIN(k->n, GH_ISSUES_MAX); i++)
		if (k->id[i] == id)
			return true;
	return false;
}

void gh_decide_too_long(struct gh_decision *d)
{
	if (d->body == GH_BODY_PUSH)
		gh_refuse(d, REFUSAL_LIMIT, "push fewer refs at a time",
			  "a push of more than %d KiB of refs is not looked through", GH_PUSH_MAX >> 10);
	else
		gh_refuse(d, REFUSAL_LIMIT, "send less in one request",
			  "a body of more than %d KiB is not looked through here", GH_JSON_MAX >> 10);
	if (d->status != 200)
		d->status = 413;
}

/* What holds at every host of GitHub's beyond what holds at every host (2.2). */
static bool front_door(const struct request *r, struct gh_decision *d)
{
	size_t head = r->target.n;
	struct span value;

	for (size_t i = 0; i < r->n; i++)
		head += r->f[i].name.n + r->f[i].value.n + 4;
	if (r->method >= METHODS || r->method == METHOD_OPTIONS) {
		gh_refuse(d, REFUSAL_METHOD, "GET, HEAD, POST, PUT, PATCH and DELETE are",
			  "this method is not let through to GitHub");
		d->status = 405;
	} else if (r->target.n > TARGET_MAX) {
		gh_refuse(d, REFUSAL_LIMIT, NULL, "a target of more than 8 KiB is not sent to GitHub");
		d->status = 414;
	} else if (head > HEAD_MAX) {
		gh_refuse(d, REFUSAL_LIMIT, NULL, "a head of more than 32 KiB is not sent to GitHub");
		d->status = 431;
	} else if (gh_query(r->query, "_method", &value) != 0) {
		gh_refuse(d, REFUSAL_METHOD, "send that method itself",
			  "the query asks for another method than the request line");
		d->status = 400;
	} else {
		return true;
	}
	return false;
}

void gh_decide(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *ret)
{
	static const struct prov_launch lent = { .lent = PH_BIT(PH_GH) };
	bool api = host == HOST_GITHUB_API || host == HOST_GITHUB_UPLOADS;

	*ret = (struct gh_decision){ .scope = s, .form = api ? GH_FORM_REST : GH_FORM_TEXT, .rule = "front door" };
	if (!front_door(r, ret))
		return;
	ret->rule = "nothing names it";
	if (api)
		gh_decide_rest(s, host, r, ret);
	else
		gh_decide_git(s, host, r, ret);
	/* Whether GitHub reads one there is not known, and the rules have read the query alone. */
	if (ret->verdict == GH_CREDENTIAL && (r->method == METHOD_GET || r->method == METHOD_HEAD) &&
	    request_has_body(r))
		gh_refuse(ret, REFUSAL_FRAMING, "write it into the query",
			  "a GET or HEAD with a body gets no login");
	/* Vault lets no other path out with a login: said here, in the client's form. */
	if ((ret->verdict == GH_CREDENTIAL || ret->verdict == GH_BODY) &&
	    !prov_allows(&lent, PH_GH, host, r->method, r->path, false, NULL))
		gh_refuse(ret, REFUSAL_PATH, "write letters as they are, a percent sign not twice, no slash at the end",
			  "a path of this form gets no login");
	if (ret->verdict == GH_REFUSE && ret->code == REFUSAL_NONE)
		gh_refuse(ret, REFUSAL_PATH, NULL, "no rule of the sandbox names this request");
}
