#include "gate/refusal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gate/github.h"

#define PATH_SHOWN 120 /* bytes of a path in a text */
#define TEXT_MAX 1024
#define REPLY_MAX (16 << 10) /* what is written to a token endpoint included */

/* How each login is repaired on the host. */
static const char *sign_in(enum ph_kind kind)
{
	switch (kind) {
	case PH_CLAUDE_A:
	case PH_CLAUDE_R:
		return "the host is signed out of Claude, or its login file cannot be used; run `claude` on the host and sign in";
	case PH_CODEX_A:
	case PH_CODEX_R:
	case PH_CODEX_ID:
	case PH_OPENCODE_A:
	case PH_OPENCODE_R:
	case PH_OPENCODE_ID:
		return "the host is signed out of OpenAI, or its login file cannot be used; run `codex login` on the host";
	case PH_GH:
		return "the host has no GitHub login; run `gh auth login` on the host";
	case PH_COPILOT:
		return "the host has no login that Copilot takes; run `gh auth login` on the host";
	default:
		return "the key is no longer on the host, or its file cannot be used; put it back there, and the session uses it again";
	}
}

struct refusal refusal_by_vault(enum refusal_code code, enum ph_kind kind)
{
	struct refusal r = { .status = 502, .code = code, .kind = kind, .has_kind = kind < PH_KINDS };

	switch (code) {
	case REFUSAL_CREDENTIAL_UNAVAILABLE:
		r.status = 503;
		r.why = sign_in(kind);
		break;
	case REFUSAL_REFRESH_PENDING:
		r.status = 503;
		r.why = "the login is being renewed on the host; try again in a few seconds";
		break;
	case REFUSAL_PATH_DENIED:
	case REFUSAL_SLOT:
	case REFUSAL_WRONG_HOST:
		r.status = 403;
		r.why = "the session's login is not sent with this request";
		break;
	case REFUSAL_LIMIT:
		r.status = 503;
		r.why = "too many requests are under way in this session; try again when some have ended";
		break;
	case REFUSAL_ENCODING:
		r.why = "the host coded its answer although it was asked not to, so it cannot be looked through";
		break;
	case REFUSAL_UPSTREAM_FRAMING:
		r.why = "the host's answer is not well-formed HTTP";
		break;
	default:
		r.code = REFUSAL_UPSTREAM;
		r.why = "the host cannot be reached or broke off";
		break;
	}
	return r;
}

void refusal_text(const struct refusal *r, enum prov_host_id host, struct span path, char *out, size_t size)
{
	size_t shown = path.n > PATH_SHOWN ? PATH_SHOWN : path.n;
	int n = snprintf(out, size, "%s", r->why);

	/* A program that signs in shows this to the user as it is. */
	if (r->code == REFUSAL_LOGIN_INSIDE)
		return;
	n = snprintf(out, size, "refused by sandbox (%s): %s", refusal_code_str[r->code], r->why);

	if (r->code == REFUSAL_PATH_DENIED && n > 0 && (size_t)n < size) {
		n += snprintf(out + n, size - (size_t)n, ": %.*s%s at %s", (int)shown, (const char *)path.p,
			      shown < path.n ? "..." : "", host < HOSTS ? prov_hosts[host].name : "this host");
		if (r->class == CLASS_NEVER && (size_t)n < size)
			n += snprintf(out + n, size - (size_t)n, " is not on its list; the agent works without it");
		else if (r->class != CLASS_DEFAULT && host < HOSTS && (size_t)n < size)
			n += snprintf(out + n, size - (size_t)n,
				      " is of class %s, which is off; start with --api %s=%s", prov_class_str[r->class],
				      prov_str[prov_hosts[host].prov], prov_class_str[r->class]);
	}
	if (r->has_kind && n > 0 && (size_t)n < size)
		n += snprintf(out + n, size - (size_t)n, " (login: %s)", ph_kind_str[r->kind]);
	if (r->code != REFUSAL_FOREIGN_CRED || host >= HOSTS || n <= 0 || (size_t)n >= size)
		return;
	if (prov_hosts[host].role == HOST_GITHUB)
		(void)snprintf(out + n, size - (size_t)n,
			       ", or start with --github foreign-credentials=anon, which takes it off");
	else
		(void)snprintf(out + n, size - (size_t)n, ", or start with --api %s=foreign",
			       prov_str[prov_hosts[host].prov]);
}

int refusal_body(const struct refusal *r, enum prov_host_id host, struct span path, struct buf *out,
		 const char **ret_type)
{
	char m[TEXT_MAX], body[2 * TEXT_MAX + 256];
	const char *code = refusal_code_str[r->code];
	enum prov prov = host < HOSTS ? prov_hosts[host].prov : PROVS;
	int n;

	if (r->github)
		return github_denial(r->github, out, ret_type);
	/* No word of ours, no code and no byte that a path may have needs an escape. */
	refusal_text(r, host, path, m, sizeof(m));
	*ret_type = "application/json";
	if (host < HOSTS && prov_hosts[host].role == HOST_TOKEN) {
		n = snprintf(body, sizeof(body), "{\"error\":\"%s\",\"error_description\":\"%s\",\"message\":\"%s\"}",
			     r->status >= 500 ? "temporarily_unavailable" : "invalid_request", m, m);
	} else if (prov == PROV_ANTHROPIC) {
		n = snprintf(body, sizeof(body), "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"%s\"}}",
			     r->status == 403	? "permission_error"
			     : r->status >= 500 ? "api_error"
						: "invalid_request_error",
			     m);
	} else if (prov == PROV_COPILOT) {
		n = snprintf(body, sizeof(body), "{\"error\":{\"message\":\"%s\",\"code\":\"%s\"},\"message\":\"%s\"}",
			     m, code, m);
	} else if (prov == PROV_GITHUB && (host == HOST_GITHUB_API || host == HOST_GITHUB_UPLOADS)) {
		n = snprintf(body, sizeof(body),
			     "{\"message\":\"%s (sandbox policy "
			     "%s)\",\"documentation_url\":\"https://docs.github.com/rest\",\"status\":\"%u\"}",
			     m, code, r->status);
		*ret_type = "application/json; charset=utf-8";
	} else if (prov == PROV_GITHUB) {
		n = snprintf(body, sizeof(body), "%s\nsandbox policy %s\n", m, code);
		*ret_type = "text/plain; charset=utf-8";
	} else {
		n = snprintf(body, sizeof(body),
			     "{\"error\":{\"message\":\"%s\",\"type\":\"sandbox_policy\",\"code\":\"%s\",\"param\":"
			     "null},\"detail\":\"%s\"}",
			     m, code, m);
	}
	return buf_put(out, body, (size_t)n);
}

int reply_refusal(const struct refusal *r, enum prov_host_id host, struct span path, struct reply *ret)
{
	bool token = host < HOSTS && prov_hosts[host].role == HOST_TOKEN;

	*ret = (struct reply){ .status = r->status, .code = r->code, .close = r->close };
	/* What RFC 9110 asks of these two statuses. */
	if (r->status == 405)
		ret->allow = token ? "POST" : "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
	if (r->status == 426)
		ret->upgrade = "websocket";
	buf_init(&ret->body, REPLY_MAX);
	return refusal_body(r, host, path, &ret->body, &ret->type);
}

void reply_done(struct reply *r)
{
	buf_done(&r->body);
}

static int field(struct buf *out, const char *name, const char *value)
{
	char line[512];
	int n = value ? snprintf(line, sizeof(line), "%s: %s\r\n", name, value) : 0;

	return buf_put(out, line, (size_t)n);
}

int reply_http1(const struct reply *r, bool is_head, struct buf *out)
{
	char line[64], length[24];

	(void)snprintf(line, sizeof(line), "HTTP/1.1 %u %s\r\n", r->status,
		       r->code		  ? "refused by sandbox"
		       : r->status == 200 ? "OK"
					  : "");
	(void)snprintf(length, sizeof(length), "%zu", r->body.n);
	if (buf_put(out, line, strlen(line)) < 0 ||
	    field(out, "x-sandbox-policy", r->code ? refusal_code_str[r->code] : NULL) < 0 ||
	    field(out, "Content-Type", r->type) < 0 || field(out, "Content-Length", length) < 0 ||
	    field(out, "Cache-Control", "no-store") < 0 || field(out, "Allow", r->allow) < 0 ||
	    field(out, "Upgrade", r->upgrade) < 0 || field(out, "Connection", r->close ? "close" : NULL) < 0 ||
	    buf_put(out, "\r\n", 2) < 0)
		return -ENOBUFS;
	return is_head ? 0 : buf_put(out, buf_span(&r->body).p, r->body.n);
}

int refusal_http1(const struct refusal *r, enum prov_host_id host, struct span path, bool is_head, struct buf *out)
{
	struct reply reply;
	int e = reply_refusal(r, host, path, &reply);

	if (e == 0)
		e = reply_http1(&reply, is_head, out);
	reply_done(&reply);
	return e;
}

int refusal_to_https(const char *host, struct span target, struct buf *out)
{
	static const char end[] = "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
	char head[256];
	int n = snprintf(head, sizeof(head), "HTTP/1.1 301 Moved Permanently\r\nLocation: https://%s", host);

	if (buf_put(out, head, (size_t)n) < 0 || buf_put(out, target.p, target.n) < 0)
		return -ENOBUFS;
	return buf_put(out, end, strlen(end));
}
