#include "proto/httpmsg.h"

#include <errno.h>
#include <stddef.h>

#include "base/macros.h"
#include "proto/refusal.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "messages are little endian, as netmsg.h's");
static_assert(offsetof(struct httpmsg_request_wire, head) == 0 && offsetof(struct httpmsg_answer_wire, head) == 0,
	      "head");

const char *const refusal_code_str[REFUSAL_CODES] = {
	[REFUSAL_NONE] = "",
	[REFUSAL_FRAMING] = "framing",
	[REFUSAL_VERSION] = "version",
	[REFUSAL_METHOD] = "method",
	[REFUSAL_PATH] = "path",
	[REFUSAL_HOST] = "host",
	[REFUSAL_LIMIT] = "limit",
	[REFUSAL_CRED_TWICE] = "cred-twice",
	[REFUSAL_SLOT] = "slot",
	[REFUSAL_WRONG_HOST] = "wrong-host",
	[REFUSAL_STALE] = "stale",
	[REFUSAL_FOREIGN_CRED] = "foreign-cred",
	[REFUSAL_PATH_DENIED] = "path-denied",
	[REFUSAL_UPGRADE] = "upgrade",
	[REFUSAL_LOGIN_INSIDE] = "login-inside",
	[REFUSAL_CREDENTIAL_UNAVAILABLE] = "credential-unavailable",
	[REFUSAL_REFRESH_PENDING] = "refresh-pending",
	[REFUSAL_ENCODING] = "encoding",
	[REFUSAL_UPSTREAM] = "upstream",
	[REFUSAL_UPSTREAM_FRAMING] = "upstream-framing",
	[REFUSAL_OFFLIST_WRITE] = "offlist-write",
	[REFUSAL_CLASS_ADMIN] = "class-admin",
	[REFUSAL_CLASS_NEVER] = "class-never",
	[REFUSAL_GQL_PARSE] = "gql-parse",
	[REFUSAL_GQL_FIELD] = "gql-field",
	[REFUSAL_GQL_ROOT] = "gql-root",
	[REFUSAL_GQL_ID] = "gql-id",
	[REFUSAL_GQL_MUTATION] = "gql-mutation",
	[REFUSAL_SEARCH_SCOPE] = "search-scope",
	[REFUSAL_HEAD_SCOPE] = "head-scope",
	[REFUSAL_MCP_TOOL] = "mcp-tool",
	[REFUSAL_SELF_TEST] = "self-test",
};

int httpmsg_request_begin(struct buf *out, const struct httpmsg_request_wire *w, struct span path, struct span query)
{
	struct httpmsg_request_wire m = *w;

	m.head.version = NET_VERSION;
	m.head.type = HTTPMSG_REQUEST;
	m.path_len = (uint32_t)path.n;
	m.query_len = (uint32_t)query.n;
	if (buf_put(out, &m, sizeof(m)) < 0 || buf_put(out, path.p, path.n) < 0)
		return -ENOBUFS;
	return buf_put(out, query.p, query.n);
}

int httpmsg_answer_begin(struct buf *out, const struct httpmsg_answer_wire *w)
{
	struct httpmsg_answer_wire m = *w;

	m.head.version = NET_VERSION;
	m.head.type = HTTPMSG_ANSWER;
	return buf_put(out, &m, sizeof(m));
}

ssize_t httpmsg_field_begin(struct buf *out, struct span name)
{
	if (buf_put_u16(out, (uint16_t)name.n) < 0 || buf_put_u32(out, 0) < 0 || buf_put(out, name.p, name.n) < 0)
		return -ENOBUFS;
	return (ssize_t)(out->n - name.n - sizeof(uint32_t));
}

void httpmsg_field_end(struct buf *out, size_t at)
{
	struct span name = buf_span(out);
	uint16_t n = (uint16_t)(name.p[at - 2] | name.p[at - 1] << 8);

	buf_set_u32(out, at, (uint32_t)(out->n - at - sizeof(uint32_t) - n));
}

int httpmsg_field(struct buf *out, struct span name, struct span value)
{
	ssize_t at = httpmsg_field_begin(out, name);

	if (at < 0 || buf_put(out, value.p, value.n) < 0)
		return -ENOBUFS;
	httpmsg_field_end(out, (size_t)at);
	return 0;
}

void httpmsg_end(struct buf *out, uint16_t n_fields)
{
	struct net_head head;
	size_t at;

	memcpy(&head, buf_span(out).p, sizeof(head));
	buf_set_u32(out, offsetof(struct net_head, length), (uint32_t)out->n);
	at = head.type == HTTPMSG_REQUEST ? offsetof(struct httpmsg_request_wire, n_fields)
					  : offsetof(struct httpmsg_answer_wire, n_fields);
	out->mem[out->head + at] = (uint8_t)n_fields;
	out->mem[out->head + at + 1] = (uint8_t)(n_fields >> 8);
}

static bool is_zero(const uint8_t *p, size_t n)
{
	while (n > 0 && p[n - 1] == 0)
		n--;
	return n == 0;
}

static int take_wire(struct span *in, uint16_t type, void *ret, size_t size)
{
	struct net_head head;
	struct span s;

	if (in->n > HTTPMSG_MAX || span_take(in, size, &s) < 0)
		return -EBADMSG;
	memcpy(&head, s.p, sizeof(head));
	if (head.version != NET_VERSION || head.type != type || head.length != size + in->n)
		return -EBADMSG;
	memcpy(ret, s.p, size);
	return 0;
}

int httpmsg_take_field(struct span *in, struct http_field *ret)
{
	struct http_field f;
	uint16_t name;
	uint32_t value;

	if (span_u16(in, &name) < 0 || span_u32(in, &value) < 0 || name > HTTP_NAME_MAX ||
	    span_take(in, name, &f.name) < 0 || span_take(in, value, &f.value) < 0 || !http_is_token(f.name) ||
	    !http_is_value(f.value))
		return -EBADMSG;
	*ret = f;
	return 0;
}

static int take_fields(struct span *in, size_t n, size_t line, struct http_field *ret)
{
	size_t lines = 0;

	if (n > HTTP_FIELDS_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		if (httpmsg_take_field(in, &ret[i]) < 0)
			return -EBADMSG;
		lines += ret[i].name.n + ret[i].value.n + line;
	}
	return in->n == 0 && lines <= HTTP_HEAD_MAX ? 0 : -EBADMSG;
}

static bool body_is_sane(uint8_t body, uint64_t len)
{
	return body < HTTP_BODIES && len <= HTTP_LENGTH_MAX && (body == HTTP_BODY_LENGTH || len == 0);
}

int httpmsg_request_parse(struct span in, struct httpmsg_request *ret)
{
	struct httpmsg_request_wire *w = &ret->w;
	struct span path, query;
	uint64_t n;
	bool has_query;

	if (take_wire(&in, HTTPMSG_REQUEST, w, sizeof(*w)) < 0 || w->flags & ~HTTPMSG_FLAGS ||
	    !body_is_sane(w->body, w->body_len) || !is_zero(w->zero, sizeof(w->zero)))
		return -EBADMSG;
	for (int i = 0; i < HTTPMSG_CREDS; i++)
		if ((w->kind[i] == HTTPMSG_NO_CRED) != (w->slot[i] == HTTPMSG_NO_CRED) ||
		    (i > 0 && w->kind[i] != HTTPMSG_NO_CRED && w->kind[i - 1] == HTTPMSG_NO_CRED))
			return -EBADMSG;
	n = (uint64_t)w->path_len + w->query_len;
	if (n > HTTP_TARGET_MAX || span_take(&in, w->path_len, &ret->path) < 0 ||
	    span_take(&in, w->query_len, &ret->query) < 0)
		return -EBADMSG;
	if (http_target_check(ret->path, &path, &query, &has_query) < 0 || has_query || !http_is_target(ret->query) ||
	    (!(w->flags & HTTPMSG_HAS_QUERY) && ret->query.n > 0))
		return -EBADMSG;
	return take_fields(&in, w->n_fields, HTTPMSG_LINE_REQUEST, ret->f);
}

int httpmsg_answer_parse(struct span in, struct httpmsg_answer *ret)
{
	struct httpmsg_answer_wire *w = &ret->w;

	if (take_wire(&in, HTTPMSG_ANSWER, w, sizeof(*w)) < 0 || !body_is_sane(w->body, w->body_len) ||
	    (w->status != 101 && (w->status < 200 || w->status > 599)) || !is_zero(w->zero, sizeof(w->zero)) ||
	    w->code >= REFUSAL_CODES || (w->code != 0 && (w->body != HTTP_BODY_NONE || w->n_fields != 0)))
		return -EBADMSG;
	return take_fields(&in, w->n_fields, HTTPMSG_LINE_ANSWER, ret->f);
}
