#include "gate/hello.h"

#include <errno.h>

#include "base/macros.h"

#define RECORD_HANDSHAKE 22
#define CLIENT_HELLO 1
#define RECORD_MAX (1 << 14) /* RFC 8446 section 5.1 */
#define EXTENSIONS_MAX 128

enum { EXT_SERVER_NAME = 0, EXT_ALPN = 16, EXT_ECH = 0xfe0d };

/* A vector behind its length of @bytes bytes. */
static int take_vector(struct span *s, size_t bytes, size_t min, size_t max, struct span *ret)
{
	struct span rest = *s;
	uint32_t n;

	if (span_be(&rest, bytes, &n) < 0 || n < min || n > max || span_take(&rest, n, ret) < 0)
		return -EBADMSG;
	*s = rest;
	return 0;
}

static int server_name(struct span ext, struct hello *h)
{
	struct span list, name;
	uint32_t type;

	/* One name, of the only type there is. */
	if (take_vector(&ext, 2, 1, UINT16_MAX, &list) < 0 || ext.n > 0 || span_be(&list, 1, &type) < 0 ||
	    type != 0 || take_vector(&list, 2, 1, sizeof(h->sni) - 1, &name) < 0 || list.n > 0)
		return -EBADMSG;
	for (size_t i = 0; i < name.n; i++) {
		uint8_t c = name.p[i];

		if (c >= 'A' && c <= 'Z')
			c |= 0x20;
		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.')
			return -EBADMSG;
		h->sni[i] = (char)c;
	}
	h->sni[name.n] = '\0';
	return 0;
}

static int alpn(struct span ext, struct hello *h)
{
	struct span list, name;

	if (take_vector(&ext, 2, 2, UINT16_MAX, &list) < 0 || ext.n > 0)
		return -EBADMSG;
	while (list.n > 0) {
		if (take_vector(&list, 1, 1, UINT8_MAX, &name) < 0)
			return -EBADMSG;
		h->h2 = h->h2 || span_is(name, "h2");
		h->http1 = h->http1 || span_is(name, "http/1.1");
	}
	h->alpn = true;
	return 0;
}

static int extensions(struct span all, struct hello *h)
{
	uint16_t seen[EXTENSIONS_MAX];
	size_t n = 0;

	while (all.n > 0) {
		struct span ext;
		uint32_t type;

		if (span_be(&all, 2, &type) < 0 || take_vector(&all, 2, 0, UINT16_MAX, &ext) < 0 ||
		    n == EXTENSIONS_MAX)
			return -EBADMSG;
		for (size_t i = 0; i < n; i++)
			if (seen[i] == type)
				return -EBADMSG;
		seen[n++] = (uint16_t)type;
		if ((type == EXT_SERVER_NAME && server_name(ext, h) < 0) || (type == EXT_ALPN && alpn(ext, h) < 0))
			return -EBADMSG;
		h->ech = h->ech || type == EXT_ECH;
	}
	return 0;
}

static enum hello_verdict client_hello(struct span body, struct hello *ret)
{
	struct hello h = { 0 };
	struct span random, session, ciphers, compression, all;
	uint32_t version;

	if (span_be(&body, 2, &version) < 0 || version >> 8 != 3 || span_take(&body, 32, &random) < 0 ||
	    take_vector(&body, 1, 0, 32, &session) < 0 || take_vector(&body, 2, 2, UINT16_MAX, &ciphers) < 0 ||
	    ciphers.n % 2 != 0 || take_vector(&body, 1, 1, UINT8_MAX, &compression) < 0)
		return HELLO_BAD;
	/* Before TLS 1.2 there need not be extensions; then there is no name, either. */
	if (body.n > 0 && (take_vector(&body, 2, 0, UINT16_MAX, &all) < 0 || body.n > 0 || extensions(all, &h) < 0))
		return HELLO_BAD;
	*ret = h;
	return HELLO_OK;
}

enum hello_verdict hello_parse(struct span in, struct hello *ret)
{
	uint8_t message[4 + HELLO_MAX];
	size_t have = 0, want = 0;

	for (int records = 0; records < HELLO_RECORDS_MAX; records++) {
		size_t n, left;

		/* Each byte is judged as soon as it is there. */
		if (in.n > 0 && in.p[0] != RECORD_HANDSHAKE)
			return records == 0 ? HELLO_NOT_TLS : HELLO_BAD;
		if (in.n > 1 && in.p[1] != 3)
			return records == 0 ? HELLO_NOT_TLS : HELLO_BAD;
		if (in.n > 2 && in.p[2] > 4)
			return records == 0 ? HELLO_NOT_TLS : HELLO_BAD;
		if (in.n < 5)
			return HELLO_MORE;
		n = (size_t)in.p[3] << 8 | in.p[4];
		if (n == 0 || n > RECORD_MAX)
			return HELLO_BAD;
		in = SPAN(in.p + 5, in.n - 5);
		left = MIN(n, in.n);
		for (size_t i = 0; i < left; i++) {
			/* Nothing may follow the message in its record. */
			if (want > 0 && have == want)
				return HELLO_BAD;
			message[have++] = in.p[i];
			if (have == 1 && message[0] != CLIENT_HELLO)
				return HELLO_BAD;
			if (have == 4) {
				want = 4 + ((size_t)message[1] << 16 | (size_t)message[2] << 8 | message[3]);
				if (want > sizeof(message) || want == 4)
					return HELLO_BAD;
			}
		}
		/* That the record holds more than the message is known from its length. */
		if (want > 0 && have - left + n > want)
			return HELLO_BAD;
		if (want > 0 && have == want)
			return client_hello(SPAN(message + 4, want - 4), ret);
		if (left < n)
			return HELLO_MORE;
		in = SPAN(in.p + n, in.n - n);
	}
	return HELLO_BAD;
}
