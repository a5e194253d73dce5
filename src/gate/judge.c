#include "gate/judge.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/macros.h"

static void deny(struct request *r, uint16_t status, enum refusal_code code, const char *why)
{
	request_fault(r, STAGE_POLICY, (struct refusal){ .status = status, .code = code, .why = why });
}

static const char *const token_paths[] = {
	[HOST_CLAUDE_TOKEN] = "/v1/oauth/token",
	[HOST_CONSOLE_TOKEN] = "/v1/oauth/token",
	[HOST_OPENAI_TOKEN] = "/oauth/token",
};
static const char *const revoke_paths[] = {
	[HOST_CLAUDE_TOKEN] = "/v1/oauth/token/revoke",
	[HOST_CONSOLE_TOKEN] = "/v1/oauth/token/revoke",
	[HOST_OPENAI_TOKEN] = "/oauth/revoke",
};

/* The path, or the path and one "/" more. */
static bool is_path(struct span path, const char *lit)
{
	size_t n = strlen(lit);

	return path.n >= n && memcmp(path.p, lit, n) == 0 && (path.n == n || (path.n == n + 1 && path.p[n] == '/'));
}

static enum verdict token_host(const struct judge *j, enum prov_host_id host, struct request *r)
{
	bool token = is_path(r->path, token_paths[host]), revoke = is_path(r->path, revoke_paths[host]);

	if (!token && !revoke) {
		/* Here nothing has a slot; what was let pass as foreign may go on. */
		if (r->method == METHOD_GET || r->method == METHOD_HEAD || prov_foreign(&j->launch, host))
			return JUDGE_FORWARD;
		deny(r, 403, REFUSAL_LOGIN_INSIDE, prov_login_text(prov_hosts[host].prov));
	} else if (r->has_query || r->path.p[r->path.n - 1] == '/') {
		deny(r, 404, REFUSAL_PATH, "the token endpoint has no query and no trailing slash");
	} else if (r->method != METHOD_POST) {
		deny(r, 405, REFUSAL_METHOD, "the token endpoint takes POST");
	} else {
		return token ? JUDGE_TOKEN : JUDGE_REVOKE;
	}
	return JUDGE_REFUSE;
}

static void path_denied(struct request *r, enum ph_kind kind, enum prov_class class)
{
	request_fault(r, STAGE_POLICY,
		      (struct refusal){ .status = 403,
					.code = REFUSAL_PATH_DENIED,
					.has_kind = true,
					.kind = kind,
					.class = class,
					.why = "the session's login is not sent with this request" });
}

/* What GitHub's rules decided, put in place of what the guest asked for: they say whether the user's token goes out,
 * and it goes in the slot of the host. */
static enum verdict by_github(const struct judge *j, struct judged *ret)
{
	const struct gh_decision *d = &ret->github;
	struct slot_use *use = &ret->use;

	if (d->verdict == GH_REFUSE)
		return JUDGE_REFUSE;
	if (d->verdict == GH_BODY)
		return JUDGE_BODY;
	*use = (struct slot_use){ .foreign = use->foreign };
	/* Who the user is, and what the rules open without a repository, is nothing to a launch that has none. */
	if (d->verdict == GH_CREDENTIAL && j->github && j->github->n > 0 && j->launch.lent & PH_BIT(PH_GH) && !use->foreign)
		*use = (struct slot_use){ .n = 1, .kind = { PH_GH }, .slot = { github_slot(ret->host) } };
	/* git's own transfers are not scanned, so they may be coded. */
	ret->identity = use->n > 0 && (ret->host == HOST_GITHUB_API || ret->host == HOST_GITHUB_UPLOADS);
	return JUDGE_FORWARD;
}

/* Copilot's token asks who it is at api.github.com, and is taken off everywhere else there. */
static enum verdict github_host(const struct judge *j, enum prov_host_id host, struct request *r, struct judged *ret)
{
	bool copilot = ret->use.n > 0 && ret->use.kind[0] == PH_COPILOT &&
		       prov_allows(&j->launch, PH_COPILOT, host, r->method, r->path, false, NULL);

	if (copilot && r->method != METHOD_POST) {
		ret->identity = true;
		return JUDGE_FORWARD;
	}
	if (prov_closed(host, r->path)) {
		path_denied(r, PH_COPILOT, CLASS_NEVER);
		return JUDGE_REFUSE;
	}
	github_judge(j->github, host, r, &ret->github);
	ret->copilot = copilot && ret->github.body == GH_BODY_GRAPHQL;
	return by_github(j, ret);
}

enum verdict judge_body(const struct judge *j, struct request *r, struct span body, struct judged *judged,
			struct buf *ret_body)
{
	struct gh_decision *d = &judged->github;
	enum github_need need = github_need(r, d, body, true);

	if (need == GITHUB_ENOUGH && judged->copilot && github_copilot_asks(body, d, ret_body)) {
		judged->identity = true;
		return JUDGE_FORWARD;
	}
	if (need == GITHUB_ENOUGH && !github_judge_body(j->github_known, r, body, d, judged->ask, ret_body))
		return JUDGE_ASK;
	return by_github(j, judged);
}

/* A call of GitHub's MCP server, which Copilot's hosts have. It is read for its id, which the refusal bears. */
static bool is_mcp_call(enum prov_host_id host, const struct request *r)
{
	static const char mcp[] = "/mcp";
	size_t n = strlen(mcp);

	return prov_hosts[host].prov == PROV_COPILOT && r->method == METHOD_POST && r->path.n >= n &&
	       memcmp(r->path.p, mcp, n) == 0 && (r->path.n == n || r->path.p[n] == '/');
}

static bool api_host(const struct judge *j, enum prov_host_id host, struct request *r, const struct slot_use *use)
{
	for (size_t i = 0; i < use->n; i++) {
		enum prov_class class;

		if (prov_allows(&j->launch, use->kind[i], host, r->method, r->path, r->websocket, &class))
			continue;
		path_denied(r, use->kind[i], class);
		return false;
	}
	if (prov_closed(host, r->path)) {
		request_fault(r, STAGE_POLICY,
			      (struct refusal){ .status = 403,
						.code = REFUSAL_PATH_DENIED,
						.class = CLASS_NEVER,
						.why = "requests to this part of the host are not let through" });
		return false;
	}
	return true;
}

enum verdict judge_request(const struct judge *j, enum prov_host_id host, bool tls, struct request *r,
			   struct judged *ret)
{
	struct slot_use use = { 0 };

	if (!tls && r->fault.status == 0) {
		if (r->method == METHOD_GET || r->method == METHOD_HEAD)
			return JUDGE_TO_HTTPS;
		deny(r, 403, REFUSAL_HOST, "nothing is sent to this host in clear; use https");
	}
	slot_judge(&j->launch, &j->set, host, j->foreign_anon && prov_hosts[host].role == HOST_GITHUB, r, &use);
	if (r->fault.status != 0)
		return JUDGE_REFUSE;
	if (r->websocket && !prov_ws(&j->launch, host, r->path)) {
		deny(r, 426, REFUSAL_UPGRADE, "no websocket begins on this path; send the request as POST");
		return JUDGE_REFUSE;
	}
	*ret = (struct judged){ .host = host, .use = use };
	if (prov_hosts[host].role == HOST_TOKEN)
		return token_host(j, host, r);
	if (prov_hosts[host].role == HOST_GITHUB)
		return github_host(j, host, r, ret);
	if (is_mcp_call(host, r)) {
		github_judge_mcp(&ret->github);
		return JUDGE_BODY;
	}
	if (!api_host(j, host, r, &use))
		return JUDGE_REFUSE;
	ret->identity = use.n > 0;
	return JUDGE_FORWARD;
}

/* The page on GitHub, 2.2: an allow-list in place of the list of what is dropped. */
static const char *const github_kept[] = {
	"accept",
	"accept-encoding",
	"accept-language",
	"content-type",
	"git-protocol",
	"if-none-match",
	"if-modified-since",
	"range",
	"user-agent",
	"x-github-api-version",
	"x-github-media-type",
	"graphql-features",
	"x-github-next-global-id",
	"time-zone",
};

static bool named_by_connection(const struct request *r, struct span name)
{
	for (size_t i = 0; i < r->n; i++) {
		struct span list = r->f[i].value, item;

		if (!http_is(r->f[i].name, "connection"))
			continue;
		while (http_next_item(&list, &item))
			if (item.n == name.n && strncasecmp((const char *)item.p, (const char *)name.p, name.n) == 0)
				return true;
	}
	return false;
}

static bool is_dropped(const struct judged *d, const struct request *r, struct span name)
{
	if (http_stays_here(name) || (slot_is_credential(name) && !d->use.foreign) || named_by_connection(r, name))
		return true;
	if (prov_hosts[d->host].role == HOST_GITHUB)
		return !http_is_one_of(name, github_kept, ARRAY_SIZE(github_kept)) && !slot_is_credential(name) &&
		       !(http_is(name, "content-encoding") && d->host == HOST_GITHUB_GIT);
	if (d->use.n > 0 && (http_is(name, "range") || http_is(name, "if-range")))
		return true;
	return http_is(name, "cookie") && d->host != HOST_CHATGPT;
}

static bool next_cookie(struct span *rest, struct span *ret)
{
	const uint8_t *semi = rest->n > 0 ? memchr(rest->p, ';', rest->n) : NULL;
	size_t n = semi ? (size_t)(semi - rest->p) : rest->n;

	if (rest->n == 0)
		return false;
	*ret = http_trim(SPAN(rest->p, n));
	*rest = semi ? SPAN(semi + 1, rest->n - n - 1) : SPAN(rest->p, 0);
	return true;
}

/* One field of all: HTTP/2 may bring each cookie in its own (RFC 9113 section 8.2.3). */
static int put_cookies(struct buf *out, const struct request *r, uint16_t *n)
{
	ssize_t at = -1;

	for (size_t i = 0; i < r->n; i++) {
		struct span rest = r->f[i].value, one;

		if (!http_is(r->f[i].name, "cookie"))
			continue;
		while (next_cookie(&rest, &one)) {
			if (!prov_cookie_kept(one))
				continue;
			if (at < 0 ? (at = httpmsg_field_begin(out, r->f[i].name)) < 0 : buf_put(out, "; ", 2) < 0)
				return -ENOBUFS;
			if (buf_put(out, one.p, one.n) < 0)
				return -ENOBUFS;
		}
	}
	if (at >= 0) {
		httpmsg_field_end(out, (size_t)at);
		(*n)++;
	}
	return 0;
}

int judge_message(const struct judged *d, const struct request *r, uint32_t slot, uint32_t generation, struct buf *out)
{
	struct httpmsg_request_wire w = {
		.head = { .slot = slot, .generation = generation },
		.host = (uint8_t)d->host,
		.method = (uint8_t)r->method,
		.body = (uint8_t)r->body,
		.body_len = r->body == HTTP_BODY_LENGTH ? r->body_len : 0,
		.flags = (uint8_t)((r->has_query ? HTTPMSG_HAS_QUERY : 0) | (r->websocket ? HTTPMSG_UPGRADE : 0) |
				   (d->use.foreign ? HTTPMSG_FOREIGN : 0) | (r->h2 ? HTTPMSG_H2 : 0)),
	};
	/* As the rules have read the body: whatever the guest calls it, GitHub is not to read it as a form. */
	const char *type = d->use.n == 0 || !request_has_body(r) ? NULL :
			   d->host == HOST_GITHUB_API		 ? "application/json" :
			   d->github.body == GH_BODY_LFS	 ? GH_LFS_TYPE :
								   NULL;
	bool coded = false, cookies_put = false;
	uint16_t n = 0;

	for (size_t i = 0; i < HTTPMSG_CREDS; i++) {
		w.kind[i] = i < d->use.n ? (uint8_t)d->use.kind[i] : HTTPMSG_NO_CRED;
		w.slot[i] = i < d->use.n ? (uint8_t)d->use.slot[i] : HTTPMSG_NO_CRED;
	}
	for (size_t i = 0; i < r->n; i++)
		if (d->host == HOST_CHATGPT && d->use.n > 0 && http_is(r->f[i].name, "chatgpt-account-id"))
			w.flags |= HTTPMSG_ACCOUNT;
	if (httpmsg_request_begin(out, &w, r->path, r->query) < 0)
		return -ENOBUFS;
	for (size_t i = 0; i < r->n; i++) {
		struct http_field f = r->f[i];
		int e;

		if (is_dropped(d, r, f.name) || (type && http_is(f.name, "content-type")) ||
		    (w.flags & HTTPMSG_ACCOUNT && http_is(f.name, "chatgpt-account-id")))
			continue;
		if (http_is(f.name, "cookie")) {
			e = cookies_put ? 0 : put_cookies(out, r, &n);
			cookies_put = true;
		} else if (d->identity && http_is(f.name, "accept-encoding")) {
			e = coded ? 0 : httpmsg_field(out, f.name, span_str("identity"));
			n = (uint16_t)(n + !coded);
			coded = true;
		} else {
			e = httpmsg_field(out, f.name, f.value);
			n++;
		}
		if (e < 0)
			return e;
	}
	if (d->identity && !coded) {
		if (httpmsg_field(out, span_str("Accept-Encoding"), span_str("identity")) < 0)
			return -ENOBUFS;
		n++;
	}
	if (type) {
		if (httpmsg_field(out, span_str("Content-Type"), span_str(type)) < 0)
			return -ENOBUFS;
		n++;
	}
	httpmsg_end(out, n);
	return 0;
}
