#include "gate/request.h"

#include <errno.h>

#include "base/base64.h"
#include "base/macros.h"

#define WS_KEY 24 /* RFC 6455 section 4.1: 16 bytes as base64 */

static const struct refusal bad_framing = {
	.status = 400,
	.code = REFUSAL_FRAMING,
	.close = true,
	.why = "the request is not well-formed HTTP; send it again as RFC 9112 says"
};

void request_fault(struct request *r, enum stage stage, struct refusal fault)
{
	bool close = fault.close || r->fault.close;

	if (r->fault.status == 0 || stage < r->stage) {
		r->stage = stage;
		r->fault = fault;
	}
	r->fault.close = close;
}

/* A fault that leaves the next request readable. */
static void fault(struct request *r, enum stage stage, uint16_t status, enum refusal_code code, const char *why)
{
	request_fault(r, stage, (struct refusal){ .status = status, .code = code, .why = why });
}

static void broken(struct request *r, enum stage stage, const char *why)
{
	struct refusal b = bad_framing;

	b.why = why;
	request_fault(r, stage, b);
}

static void unclear_target(struct request *r)
{
	fault(r, STAGE_TARGET, 400, REFUSAL_PATH,
	      "the target has bytes or segments that could be read in two ways; send a plain path without dot or empty "
	      "segments and encoded twice nowhere");
}

void request_set_target(struct request *r, struct span target)
{
	static const char https[] = "https://";
	const uint8_t *slash;

	if (target.n > HTTP_TARGET_MAX) {
		request_fault(
			r, STAGE_TARGET,
			(struct refusal){ .status = 414,
					  .code = REFUSAL_LIMIT,
					  .close = true,
					  .why = "the request's target is longer than 16 KiB; send it in a body" });
		return;
	}
	if (http_begins(target, https)) {
		target = SPAN(target.p + strlen(https), target.n - strlen(https));
		slash = target.n > 0 ? memchr(target.p, '/', target.n) : NULL;
		r->authority = SPAN(target.p, slash ? (size_t)(slash - target.p) : target.n);
		target = slash ? SPAN(slash, target.n - r->authority.n) : span_str("/");
		if (r->authority.n == 0) {
			fault(r, STAGE_TARGET, 400, REFUSAL_FRAMING, "the target is an https URL without a host");
			return;
		}
	}
	if (target.n == 0 || target.p[0] != '/') {
		fault(r, STAGE_TARGET, 400, REFUSAL_FRAMING,
		      "the target is neither a path nor an https URL of this host; write it as in GET /path");
		return;
	}
	r->target = target;
	if (http_target_check(target, &r->path, &r->query, &r->has_query) < 0) {
		r->path = r->query = SPAN(NULL, 0);
		unclear_target(r);
	}
}

static void check_slashes(struct request *r, struct span sni)
{
	enum prov_host_id host = prov_host_find(sni);

	if ((host == HOSTS || prov_hosts[host].role != HOST_GITHUB) && r->path.n > 0 && http_has_coded_slash(r->path))
		unclear_target(r);
}

#define PORT_HTTPS ":443"
#define PORT_HTTP ":80"

/* Host and the like: the name itself, in any case, and perhaps the port of the scheme. */
static bool is_host(struct span s, struct span name, const char *port)
{
	if (s.n == name.n + strlen(port) && memcmp(s.p + name.n, port, strlen(port)) == 0)
		s.n = name.n;
	return s.n == name.n && strncasecmp((const char *)s.p, (const char *)name.p, name.n) == 0;
}

struct span request_host(const struct request *r)
{
	for (size_t i = 0; i < r->n; i++) {
		struct span v = r->f[i].value;

		if (!http_is(r->f[i].name, "host"))
			continue;
		if (v.n > strlen(PORT_HTTP) && memcmp(v.p + v.n - strlen(PORT_HTTP), PORT_HTTP, strlen(PORT_HTTP)) == 0)
			v.n -= strlen(PORT_HTTP);
		return v;
	}
	return SPAN("", 0);
}

/* The single field of a name: 0 and NULL if there is none, -EBADMSG if there are several. */
static int only(const struct request *r, const char *name, const struct span **ret)
{
	*ret = NULL;
	for (size_t i = 0; i < r->n; i++) {
		if (!http_is(r->f[i].name, name))
			continue;
		if (*ret)
			return -EBADMSG;
		*ret = &r->f[i].value;
	}
	return 0;
}

static void check_host(struct request *r, struct span sni, const char *port)
{
	static const char why[] = "the request names another host than the connection; open a connection to that host";
	const struct span *host;

	if (only(r, "host", &host) < 0 || !host)
		broken(r, STAGE_HOST, "a request has exactly one Host field");
	else if (!is_host(*host, sni, port))
		fault(r, STAGE_HOST, 421, REFUSAL_HOST, why);
	if (r->authority.p && !is_host(r->authority, sni, PORT_HTTPS))
		fault(r, STAGE_HOST, 421, REFUSAL_HOST, why);
}

/* RFC 9112 section 6.3, strictly: every doubt about where the body ends is a refusal. */
static void check_body(struct request *r)
{
	const struct span *length, *coding;

	if (only(r, "content-length", &length) < 0 || only(r, "transfer-encoding", &coding) < 0 || (length && coding)) {
		broken(r, STAGE_FRAMING,
		       "the body's length is told more than once; send one Content-Length, or one "
		       "Transfer-Encoding: chunked");
		return;
	}
	if (coding) {
		if (!http_is(*coding, "chunked"))
			broken(r, STAGE_FRAMING, "the only Transfer-Encoding is chunked");
		r->body = HTTP_BODY_STREAM;
	} else if (length) {
		if (http_length(*length, &r->body_len) < 0)
			broken(r, STAGE_FRAMING, "Content-Length is no plain decimal number");
		r->body = HTTP_BODY_LENGTH;
	}
}

/* Fields whose removal by Connection would change what was judged. */
static bool is_read(struct span name)
{
	static const char *const names[] = {
		"authorization",
		"host",
		"content-length",
		"content-type",
		"content-encoding",
		"cookie",
		"x-api-key",
		"api-key",
		"x-goog-api-key",
		"transfer-encoding",
		"accept-encoding",
		"git-protocol",
		"range",
		"chatgpt-account-id",
		"expect",
		"sec-websocket-key",
		"sec-websocket-version",
	};

	return http_is_one_of(name, names, ARRAY_SIZE(names));
}

/* Walks all Connection fields; returns whether one of them says upgrade. Whoever asks later walks no more than was let
 * in. */
static bool check_connection(struct request *r)
{
	bool upgrade = false;
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++) {
		struct span list = r->f[i].value, item;

		if (!http_is(r->f[i].name, "connection"))
			continue;
		while (http_next_item(&list, &item)) {
			if (n++ == HTTP_FIELDS_MAX) {
				fault(r, STAGE_FIELDS, 431, REFUSAL_LIMIT, "Connection names more than 128 fields");
				return upgrade;
			}
			if (item.n > 0 && (!http_is_token(item) || is_read(item)))
				fault(r, STAGE_FRAMING, 400, REFUSAL_FRAMING,
				      "Connection names a field that belongs to the request itself; leave it out");
			upgrade = upgrade || http_is(item, "upgrade");
			r->last = r->last || http_is(item, "close");
		}
	}
	return upgrade;
}

static void check_upgrade(struct request *r, bool asked)
{
	const struct span *to, *version = NULL, *key = NULL;
	uint8_t bytes[16];
	int e = only(r, "upgrade", &to);

	if (e == 0 && !to)
		return;
	if (e < 0 || !http_is(*to, "websocket")) {
		fault(r, STAGE_FRAMING, 400, REFUSAL_FRAMING,
		      "the only upgrade is to websocket; HTTP/2 is chosen by ALPN");
		return;
	}
	r->websocket = asked && r->method == METHOD_GET &&
		       !request_has_body(r) &&
		       only(r, "sec-websocket-version", &version) == 0 && version && span_is(*version, "13") &&
		       only(r, "sec-websocket-key", &key) == 0 && key && key->n == WS_KEY &&
		       base64_decode(BASE64_STD, *key, bytes, sizeof(bytes)) == sizeof(bytes);
	if (!r->websocket)
		fault(r, STAGE_FRAMING, 400, REFUSAL_FRAMING,
		      "an upgrade to websocket is a GET without body, with Connection: Upgrade, version 13 and one "
		      "key");
}

#define ADDED_MAX 27 /* by judge_message(): Accept-Encoding: identity; a head for GitHub, which gets a type as well, is smaller or loses more */

/* A service gets each field with ": " and its cookies with "; ", which may be more than came: "a:b" is a byte longer. Vault takes a
 * message that is larger than a head may be for one of a broken gate. Host is not in it, so a head that came in the usual form fits. */
static void check_size(struct request *r)
{
	size_t lines = ADDED_MAX;

	for (size_t i = 0; i < r->n; i++) {
		struct span value = r->f[i].value;

		if (http_is(r->f[i].name, "host"))
			continue;
		lines += r->f[i].name.n + value.n + 4;
		for (size_t k = 0; http_is(r->f[i].name, "cookie") && k < value.n; k++)
			lines += value.p[k] == ';';
	}
	if (lines > HTTP_HEAD_MAX)
		fault(r, STAGE_FIELDS, 431, REFUSAL_LIMIT, "the head is larger than 64 KiB");
}

static void check_fields(struct request *r)
{
	check_size(r);
	for (size_t i = 0; i < r->n; i++) {
		struct span name = r->f[i].name;

		if (http_is(name, "expect")) {
			r->expects = true;
			if (!http_is(r->f[i].value, "100-continue"))
				fault(r, STAGE_FRAMING, 417, REFUSAL_FRAMING, "the only expectation is 100-continue");
		}
		if (http_sets_method(name))
			fault(r, STAGE_FIELDS, 400, REFUSAL_METHOD,
			      "a field asks for another method than the request line; send that method itself");
		if (http_sets_path(name))
			fault(r, STAGE_FIELDS, 400, REFUSAL_PATH,
			      "a field asks for another path than the request line; send that path itself");
	}
}

void request_check(struct request *r, struct span sni)
{
	/* In clear the name is Host's own, and its port that of http. */
	bool clear = sni.n == 0;

	sni = clear ? request_host(r) : sni;
	check_slashes(r, sni);
	check_host(r, sni, clear ? PORT_HTTP : PORT_HTTPS);
	check_body(r);
	check_fields(r);
	check_upgrade(r, check_connection(r));
}

/* RFC 9113 section 8.2.2. */
static bool is_connection_specific(const struct http_field *f)
{
	static const char *const names[] = { "connection",	  "proxy-connection", "keep-alive",
					     "transfer-encoding", "upgrade",	      "http2-settings" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (span_is(f->name, names[i]))
			return true;
	return span_is(f->name, "te") && !http_is(f->value, "trailers");
}

static bool has_upper(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] >= 'A' && s.p[i] <= 'Z')
			return true;
	return false;
}

enum pseudo { P_METHOD, P_SCHEME, P_AUTHORITY, P_PATH, PSEUDOS };

int request_from_h2(const struct http_field *f, size_t n, bool end, struct span sni, struct request *ret)
{
	static const char *const names[PSEUDOS] = { ":method", ":scheme", ":authority", ":path" };
	struct span pseudo[PSEUDOS] = { 0 };
	const struct span *length, *host;
	struct request *r = ret;
	size_t i = 0, head = 0;

	memset(r, 0, sizeof(*r));
	r->h2 = true;
	for (; i < n && f[i].name.n > 0 && f[i].name.p[0] == ':'; i++) {
		size_t p = 0;

		while (p < PSEUDOS && !span_is(f[i].name, names[p]))
			p++;
		if (p == PSEUDOS || pseudo[p].p || !http_is_value(f[i].value))
			return -EBADMSG;
		pseudo[p] = SPAN(f[i].value.p ? f[i].value.p : (const uint8_t *)"", f[i].value.n);
		head += f[i].name.n + f[i].value.n + 4;
	}
	if (!http_is_token(pseudo[P_METHOD]) ||
	    (!span_is(pseudo[P_METHOD], "CONNECT") && (pseudo[P_SCHEME].n == 0 || pseudo[P_PATH].n == 0)))
		return -EBADMSG;
	r->method = prov_method_find(pseudo[P_METHOD]);
	r->is_head = r->method == METHOD_HEAD;
	if (r->method == METHODS)
		fault(r, STAGE_METHOD, 405, REFUSAL_METHOD, "this method is not let through");
	else if (span_is(pseudo[P_PATH], "*") || pseudo[P_PATH].p[0] != '/')
		fault(r, STAGE_TARGET, 400, REFUSAL_FRAMING, ":path is no path");
	else
		request_set_target(r, pseudo[P_PATH]);
	check_slashes(r, sni);
	if (r->method != METHODS && !span_is(pseudo[P_SCHEME], "https"))
		fault(r, STAGE_TARGET, 400, REFUSAL_FRAMING, "the scheme of this connection is https");

	for (; i < n; i++) {
		if (!http_is_token(f[i].name) || has_upper(f[i].name) || !http_is_value(f[i].value) ||
		    is_connection_specific(&f[i]))
			return -EBADMSG;
		head += f[i].name.n + f[i].value.n + 4;
		if (r->n == HTTP_FIELDS_MAX || f[i].name.n > HTTP_NAME_MAX || head > HTTP_HEAD_MAX) {
			fault(r, STAGE_FIELDS, 431, REFUSAL_LIMIT, "the head is larger than 64 KiB or 128 fields");
			return 0;
		}
		r->f[r->n++] = f[i];
	}
	/* The same head as HTTP/1.1 would have it: what was judged of Host there is judged of :authority here. */
	if (only(r, "content-length", &length) < 0 || (length && http_length(*length, &r->body_len) < 0) ||
	    (end && length && r->body_len > 0))
		return -EBADMSG;
	if (only(r, "host", &host) < 0 || !pseudo[P_AUTHORITY].p)
		fault(r, STAGE_HOST, 400, REFUSAL_FRAMING, "a request has one :authority and at most one host");
	else if (!is_host(pseudo[P_AUTHORITY], sni, PORT_HTTPS) || (host && !is_host(*host, sni, PORT_HTTPS)))
		fault(r, STAGE_HOST, 421, REFUSAL_HOST,
		      "the request names another host than the connection; open a connection to that host");
	check_fields(r);
	r->body = end ? HTTP_BODY_NONE : length ? HTTP_BODY_LENGTH : HTTP_BODY_STREAM;
	return 0;
}
