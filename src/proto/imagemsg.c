#include "proto/imagemsg.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "proto/rec.h"

enum kind { KIND_U64, KIND_DIGEST, KIND_STRING, KIND_SHOWN /* a string as str_escape() leaves it */, KIND_BYTES };

static const struct {
	enum kind kind;
	uint64_t max; /* of the number, or bytes */
} keys[] = {
	[IM_K_SOURCE] = { KIND_STRING, 6000 },
	[IM_K_ARCH] = { KIND_STRING, 32 },
	[IM_K_SERVED] = { KIND_DIGEST, 0 },
	[IM_K_PLATFORM] = { KIND_DIGEST, 0 },
	[IM_K_CONFIG] = { KIND_DIGEST, 0 },
	[IM_K_LAYERS] = { KIND_U64, IM_LAYERS_MAX },
	[IM_K_LAYER] = { KIND_U64, IM_LAYERS_MAX - 1 },
	[IM_K_COMPRESSION] = { KIND_U64, IM_COMPRESSIONS - 1 },
	[IM_K_BLOB] = { KIND_DIGEST, 0 },
	[IM_K_DIFF_ID] = { KIND_DIGEST, 0 },
	[IM_K_BYTES] = { KIND_U64, INT64_MAX },
	[IM_K_EPOCH] = { KIND_U64, INT64_MAX },
	[IM_K_NAME] = { KIND_SHOWN, IM_MSG_MAX },
	[IM_K_ENTRIES] = { KIND_U64, UINT32_MAX },
	[IM_K_USED] = { KIND_U64, INT64_MAX },
	[IM_K_VERSION] = { KIND_BYTES, 32 },
	[IM_K_HAS] = { KIND_U64, 2 * IM_HAS_CHROMIUM - 1 },
	[IM_K_ERRNO] = { KIND_U64, 4095 },
	[IM_K_TEXT] = { KIND_SHOWN, IM_MSG_MAX },
	[IM_K_REGISTRY] = { KIND_STRING, 2000 },
	[IM_K_PACKAGE] = { KIND_SHOWN, 400 },
	[IM_K_INTEGRITY] = { KIND_SHOWN, 128 },
	[IM_K_DEPENDENCY] = { KIND_STRING, 214 },
	[IM_K_RULE] = { KIND_STRING, 1000 },
};
static_assert(ARRAY_SIZE(keys) == IM_KEYS, "keys[] is incomplete");

enum passes { PASSES_NONE, PASSES_MAYBE, PASSES_ONE };

#define K(key) (UINT64_C(1) << IM_K_##key)

static const struct {
	unsigned int ways;
	uint64_t must, may, many; /* many: any number of them */
	enum passes passes;
} forms[] = {
	[IM_FETCH] = { IM_TO_FETCH, K(SOURCE) | K(ARCH), K(REGISTRY) | K(INTEGRITY) | K(BYTES) | K(DEPENDENCY), 0, PASSES_MAYBE },
	[IM_HEAD] = { IM_TO_FETCH, K(SOURCE) | K(ARCH), K(SERVED), 0, PASSES_NONE },
	[IM_GO] = { IM_TO_FETCH, 0, 0, K(LAYER), PASSES_NONE },
	[IM_MANIFEST] = { IM_FROM_FETCH, K(SERVED) | K(PLATFORM) | K(LAYERS), K(CONFIG), K(NAME), PASSES_NONE },
	[IM_PART] = { IM_FROM_FETCH, K(LAYER) | K(BYTES), 0, 0, PASSES_ONE },
	[IM_BLOB] = { IM_FROM_FETCH, K(LAYER), 0, 0, PASSES_NONE },
	[IM_DISK] = { IM_TO_UNPACK, K(BYTES) | K(LAYERS) | K(EPOCH), 0, 0, PASSES_ONE },
	[IM_GROWN] = { IM_TO_UNPACK, K(LAYER) | K(BYTES), 0, 0, PASSES_NONE },
	[IM_LAYER_DONE] = { IM_FROM_UNPACK, K(LAYER) | K(DIFF_ID) | K(BYTES), 0, 0, PASSES_NONE },
	[IM_PACKAGE] = { IM_FROM_FETCH, K(PACKAGE) | K(INTEGRITY) | K(BYTES), 0, 0, PASSES_NONE },
	[IM_RELEASE] = { IM_FROM_FETCH, K(EPOCH) | K(BLOB), 0, 0, PASSES_NONE },
	[IM_PACK] = { IM_TO_PACK, K(BYTES) | K(EPOCH), 0, K(RULE), PASSES_ONE },
	[IM_SCRATCH] = { IM_TO_PACK, 0, 0, 0, PASSES_ONE },
	[IM_PACKED] = { IM_FROM_PACK, K(BLOB) | K(DIFF_ID) | K(BYTES) | K(USED), 0, 0, PASSES_NONE },
	[IM_LAYER] = { IM_FROM_FETCH | IM_TO_UNPACK | IM_TO_PACK, K(LAYER) | K(COMPRESSION), K(BLOB) | K(BYTES) | K(DIFF_ID), 0,
		       PASSES_MAYBE },
	[IM_PROGRESS] = { IM_FROM_FETCH | IM_FROM_UNPACK | IM_FROM_PACK, K(LAYER) | K(BYTES), K(NAME), 0, PASSES_NONE },
	[IM_DONE] = { IM_FROM_FETCH | IM_FROM_UNPACK | IM_FROM_PACK, 0, K(ENTRIES) | K(USED) | K(VERSION) | K(HAS), 0, PASSES_NONE },
	[IM_ERROR] = { IM_FROM_FETCH | IM_FROM_UNPACK | IM_FROM_PACK, K(ERRNO) | K(TEXT), 0, 0, PASSES_NONE },
};
static_assert(ARRAY_SIZE(forms) == IM_MSGS, "forms[] is incomplete");

static bool digest_is(struct span v)
{
	for (size_t i = 0; i < v.n; i++)
		if (!(v.p[i] >= '0' && v.p[i] <= '9') && !(v.p[i] >= 'a' && v.p[i] <= 'f'))
			return false;
	return v.n == IM_DIGEST;
}

static bool shown_is(struct span v)
{
	AUTO_FREE(char, shown);

	if (memchr(v.p, '\0', v.n))
		return false;
	shown = str_escape(v.p, v.n);
	return strlen(shown) == v.n && memcmp(shown, v.p, v.n) == 0;
}

static bool value_is(enum im_key key, struct span v)
{
	uint64_t n, max = keys[key].max;

	switch (keys[key].kind) {
	case KIND_U64:
		return rec_u64(v, max, &n) == 0;
	case KIND_DIGEST:
		return digest_is(v);
	case KIND_STRING:
		return v.n <= max && !memchr(v.p, '\0', v.n);
	case KIND_SHOWN:
		return v.n <= max && shown_is(v);
	case KIND_BYTES:
		return v.n <= max;
	}
	return false;
}

static int check(struct span in, unsigned int ways, uint32_t *ret_type, struct span *ret_body, uint64_t *ret_seen)
{
	uint64_t seen = 0;
	struct span v;
	uint32_t type;
	uint16_t key;
	int r;

	if (span_u32(&in, &type) < 0 || type >= IM_MSGS || !(forms[type].ways & ways))
		return -EBADMSG;
	*ret_body = in;
	while ((r = rec_next(&in, &key, &v)) == 1) {
		uint64_t bit = key < IM_KEYS ? UINT64_C(1) << key : 0;

		if (!(bit & (forms[type].must | forms[type].may | forms[type].many)) ||
		    (seen & bit & ~forms[type].many) || !value_is((enum im_key)key, v))
			return -EBADMSG;
		seen |= bit;
	}
	if (r < 0 || (forms[type].must & ~seen))
		return -EBADMSG;
	*ret_type = type;
	*ret_seen = seen;
	return 0;
}

int im_parse(struct im *m, size_t n, enum im_way way)
{
	uint32_t type;

	if (check(SPAN(m->mem, n), way, &type, &m->body, &m->seen) < 0)
		return -EBADMSG;
	m->type = (enum im_msg)type;
	return 0;
}

int im_recv(int sock, enum im_way way, struct im *ret)
{
	AUTO_FD(fd);
	ssize_t n;

	/* A peer that ended without having read all that we sent is a reset, which the kernel reports once, before the
	 * messages that the peer sent first: its last word may be among them. */
	for (int tries = 0; tries < 2; tries++) {
		n = fd_recv(sock, ret->mem, sizeof(ret->mem), &fd, 1);
		if (n != -ECONNRESET)
			break;
	}
	if (n == -ECONNRESET)
		n = 0;
	if (n <= 0)
		return (int)n;
	if (im_parse(ret, (size_t)n, way) < 0)
		return -EBADMSG;
	if (forms[ret->type].passes == (fd < 0 ? PASSES_ONE : PASSES_NONE))
		return -EBADMSG;
	ret->fd = TAKE_FD(fd);
	return 1;
}

bool im_has(const struct im *m, enum im_key key)
{
	return m->seen >> key & 1;
}

struct span im_bytes(const struct im *m, enum im_key key)
{
	struct span in = m->body, v;
	uint16_t k;

	while (rec_next(&in, &k, &v) == 1)
		if (k == key)
			return v;
	return SPAN(m->mem, 0);
}

uint64_t im_u64(const struct im *m, enum im_key key)
{
	uint64_t v = 0;

	(void)rec_u64(im_bytes(m, key), keys[key].max, &v);
	return v;
}

char *im_str(const struct im *m, enum im_key key)
{
	struct span v = im_bytes(m, key);

	return im_has(m, key) ? xstrndup((const char *)v.p, v.n) : NULL;
}

void im_begin(struct buf *b, enum im_msg type)
{
	buf_init(b, IM_MSG_MAX);
	(void)buf_put_u32(b, type);
}

int im_send(int sock, struct buf *b, int pass)
{
	struct span s = buf_span(b), body;
	uint64_t seen;
	uint32_t type;
	ssize_t n = check(s, ~0U, &type, &body, &seen);

	if (n == 0)
		n = fd_send(sock, s.p, s.n, &pass, pass >= 0);
	buf_done(b);
	return n < 0 ? (int)n : 0;
}
