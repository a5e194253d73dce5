/* A judged request from gate to vault, and the head of its answer (credentials page 7.4): one canonical form behind
 * HTTP/1.1 and HTTP/2. What is not in it does not go out. Both ends write and read it through these functions, and the
 * reader takes the sender for hostile.
 *
 *   REQUEST  struct httpmsg_request_wire, path, query, fields
 *   ANSWER   struct httpmsg_answer_wire, fields
 *   field    u16 length of the name, u32 length of the value (little endian), name, value
 *
 * The secret is no part of it: a request names credentials as small numbers, and the header that held the placeholder
 * is gone. Bodies travel beside it. */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "proto/http.h"
#include "proto/netmsg.h"

enum httpmsg_type { HTTPMSG_REQUEST = 0x60, HTTPMSG_ANSWER = 0x61 };

#define HTTPMSG_CREDS 2 /* api.anthropic.com takes a login and a key in one request */
#define HTTPMSG_NO_CRED 0xff

/* A head of 64 KiB whose lines became fields: a field needs 6 bytes here and at least 3 there. */
#define HTTPMSG_MAX (HTTP_HEAD_MAX + HTTP_TARGET_MAX + 2048)

enum httpmsg_flag {
	HTTPMSG_HAS_QUERY = 1 << 0,
	HTTPMSG_UPGRADE = 1 << 1, /* to WebSocket: vault writes Connection and Upgrade */
	HTTPMSG_ACCOUNT = 1 << 2, /* it had the account's header: vault writes the host's value */
	HTTPMSG_FOREIGN = 1 << 3, /* a credential header of the guest's own is among the fields */
	HTTPMSG_H2 = 1 << 4,	  /* it came over HTTP/2, so upstream may speak it too; else HTTP/1.1 alone is offered */
	HTTPMSG_FLAGS = (1 << 5) - 1,
};

/* What stands beside name and value in a line: we write ": " and CR LF, a service may leave the space out. */
#define HTTPMSG_LINE_REQUEST 4
#define HTTPMSG_LINE_ANSWER 3

struct httpmsg_request_wire {
	struct net_head head;
	uint64_t body_len; /* for HTTP_BODY_LENGTH, else 0 */
	uint32_t path_len, query_len;
	uint16_t n_fields;
	uint8_t host;		     /* enum prov_host_id */
	uint8_t method;		     /* enum prov_method */
	uint8_t body;		     /* enum http_body */
	uint8_t flags;		     /* enum httpmsg_flag */
	uint8_t kind[HTTPMSG_CREDS]; /* enum ph_kind, or HTTPMSG_NO_CRED; none before a number */
	uint8_t slot[HTTPMSG_CREDS]; /* enum prov_slot, or HTTPMSG_NO_CRED */
	uint8_t zero[6];
};

struct httpmsg_answer_wire {
	struct net_head head;
	uint64_t body_len;
	uint16_t n_fields;
	uint16_t status; /* 200..599; 101 for an upgrade */
	uint8_t body;
	uint8_t code; /* 0: from upstream; else enum refusal_code: vault's own, without fields and body */
	uint8_t zero[2];
};

static_assert(sizeof(struct httpmsg_request_wire) == 48 && sizeof(struct httpmsg_answer_wire) == 32,
	      "messages have no holes");

/* Read and checked; spans lie in the message. */
struct httpmsg_request {
	struct httpmsg_request_wire w;
	struct span path, query;
	struct http_field f[HTTP_FIELDS_MAX];
};

struct httpmsg_answer {
	struct httpmsg_answer_wire w;
	struct http_field f[HTTP_FIELDS_MAX];
};

/* Writing: begin, fields, end. Each returns 0 or -ENOBUFS; after a failure the buffer's content is of no use. A value
 * may come in pieces: httpmsg_field_begin(), buf_put()..., httpmsg_field_end(). */
int httpmsg_request_begin(struct buf *out, const struct httpmsg_request_wire *w, struct span path, struct span query);
int httpmsg_answer_begin(struct buf *out, const struct httpmsg_answer_wire *w);
int httpmsg_field(struct buf *out, struct span name, struct span value);
ssize_t httpmsg_field_begin(struct buf *out, struct span name);
void httpmsg_field_end(struct buf *out, size_t at);
/* Sets the length and the number of fields of the message that @out holds. */
void httpmsg_end(struct buf *out, uint16_t n_fields);

/* Takes one field off the front, with all checks of a field. 0 or -EBADMSG. */
int httpmsg_take_field(struct span *in, struct http_field *ret);

/**
 * httpmsg_request_parse() - Read a message that claims to be a request
 *
 * Checked: version, type, lengths, known flags and body kinds, the target by http_target_check(), each name a token and
 * each value free of control bytes, nothing behind the last field. What host, method and credentials mean is for the
 * reader.
 *
 * Return: 0 or -EBADMSG
 */
int httpmsg_request_parse(struct span in, struct httpmsg_request *ret);
int httpmsg_answer_parse(struct span in, struct httpmsg_answer *ret);
