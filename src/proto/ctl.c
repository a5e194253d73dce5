#include "proto/ctl.h"

#include <assert.h>
#include <errno.h>

#include "base/macros.h"

#define TO_GUEST 1
#define TO_HOST 2
#define BOTH 3

/* What is in order for each type: the direction, whether it belongs to a stream, the channels and the length. */
struct rule {
	const char *name;
	uint8_t dir;
	uint8_t stream;
	uint8_t channels; /* channel must be below this, 1 means "always 0" */
	uint32_t min, max;
};

static const struct rule rules[] = {
	[CTL_HELLO] = { "HELLO", TO_HOST, 0, 1, 6, CTL_TEXT_MAX },
	[CTL_CONFIG] = { "CONFIG", TO_GUEST, 0, 1, 0, CTL_RECS_MAX },
	[CTL_READY] = { "READY", TO_HOST, 0, 1, 0, CTL_READY_MAX },
	[CTL_FAIL] = { "FAIL", TO_HOST, 0, 1, 0, CTL_TEXT_MAX },
	[CTL_EXEC] = { "EXEC", TO_GUEST, 1, 1, 1, CTL_RECS_MAX },
	[CTL_STARTED] = { "STARTED", TO_HOST, 1, 1, 4, 4 },
	[CTL_DATA] = { "DATA", BOTH, 1, 3, 1, CTL_DATA_MAX },
	[CTL_EOF] = { "EOF", BOTH, 1, 3, 0, 0 },
	[CTL_CREDIT] = { "CREDIT", BOTH, 1, 3, 4, 4 },
	[CTL_RESIZE] = { "RESIZE", TO_GUEST, 1, 1, 8, 8 },
	[CTL_SIGNAL] = { "SIGNAL", TO_GUEST, 1, 1, 4, 4 },
	[CTL_EXIT] = { "EXIT", TO_HOST, 1, 1, 8, CTL_TEXT_MAX },
	[CTL_CLOSE] = { "CLOSE", TO_GUEST, 1, 1, 0, 0 },
	[CTL_PUT] = { "PUT", TO_GUEST, 1, 1, 1, 2 * CTL_TEXT_MAX },
	[CTL_GET] = { "GET", TO_GUEST, 1, 1, 1, 2 * CTL_TEXT_MAX },
	[CTL_FILE] = { "FILE", TO_HOST, 1, 1, 12, 12 },
	[CTL_CLOCK] = { "CLOCK", TO_GUEST, 0, 1, 8, 8 },
	[CTL_PING] = { "PING", BOTH, 0, 1, 8, 8 },
	[CTL_PONG] = { "PONG", BOTH, 0, 1, 8, 8 },
	[CTL_SHUTDOWN] = { "SHUTDOWN", TO_GUEST, 0, 1, 4, 4 },
	[CTL_BYE] = { "BYE", TO_HOST, 0, 1, 0, CTL_TEXT_MAX },
	[CTL_LOG] = { "LOG", TO_HOST, 0, 1, 1, CTL_TEXT_MAX },
	[CTL_PORT] = { "PORT", TO_HOST, 0, 1, 3, 3 },
	[CTL_DIAL] = { "DIAL", TO_GUEST, 1, 1, 1, 64 },
};
static_assert(ARRAY_SIZE(rules) == CTL_TYPES, "rules[] is incomplete");

/* Channel 0 carries bytes to the guest, 1 and 2 to the host; CREDIT for a channel goes the other way. EOF of the host
 * for 1 and 2 says that nobody reads them any more. */
static bool channel_fits(uint8_t type, uint8_t channel, enum ctl_side reader)
{
	if (type == CTL_DATA)
		return (channel == 0) == (reader == CTL_SIDE_GUEST);
	if (type == CTL_EOF)
		return reader == CTL_SIDE_GUEST || channel != 0;
	if (type == CTL_CREDIT)
		return (channel == 0) == (reader == CTL_SIDE_HOST);
	return true;
}

const char *ctl_type_str(enum ctl_type type)
{
	return type >= CTL_HELLO && type < CTL_TYPES ? rules[type].name : "?";
}

int ctl_decode(const struct buf *in, enum ctl_side side, struct ctl_frame *ret, size_t *ret_used)
{
	struct span s = buf_span(in), payload;
	const struct rule *rule;
	uint8_t type, channel;
	uint32_t stream, len;
	uint16_t zero;

	if (s.n < CTL_HEAD)
		return 0;
	(void)span_u8(&s, &type);
	(void)span_u8(&s, &channel);
	(void)span_u16(&s, &zero);
	(void)span_u32(&s, &stream);
	(void)span_u32(&s, &len);
	if (type < CTL_HELLO || type >= CTL_TYPES || zero != 0)
		return -EBADMSG;
	rule = &rules[type];
	if (!(rule->dir & (side == CTL_SIDE_GUEST ? TO_GUEST : TO_HOST)) || (stream != 0) != rule->stream ||
	    channel >= rule->channels || !channel_fits(type, channel, side) || len < rule->min || len > rule->max)
		return -EBADMSG;
	if (span_take(&s, len, &payload) < 0)
		return 0;
	*ret = (struct ctl_frame){ .type = type, .channel = channel, .stream = stream, .payload = payload };
	*ret_used = CTL_HEAD + len;
	return 1;
}

ssize_t ctl_begin(struct buf *out, enum ctl_type type, uint8_t channel, uint32_t stream)
{
	if (!buf_room(out, CTL_HEAD))
		return -ENOBUFS;
	(void)buf_put_u8(out, (uint8_t)type);
	(void)buf_put_u8(out, channel);
	(void)buf_put_u16(out, 0);
	(void)buf_put_u32(out, stream);
	(void)buf_put_u32(out, 0);
	return (ssize_t)out->n;
}

void ctl_end(struct buf *out, size_t at)
{
	buf_set_u32(out, at - 4, (uint32_t)(out->n - at));
}

int ctl_put(struct buf *out, enum ctl_type type, uint8_t channel, uint32_t stream, const void *p, size_t n)
{
	ssize_t at;

	if (!buf_room(out, CTL_HEAD + n))
		return -ENOBUFS;
	at = ctl_begin(out, type, channel, stream);
	(void)buf_put(out, p, n);
	ctl_end(out, (size_t)at);
	return 0;
}

int ctl_put_u32(struct buf *out, enum ctl_type type, uint8_t channel, uint32_t stream, uint32_t v)
{
	uint8_t le[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) };

	return ctl_put(out, type, channel, stream, le, sizeof(le));
}

int ctl_put_u64(struct buf *out, enum ctl_type type, uint32_t stream, uint64_t v)
{
	uint8_t le[8];

	for (size_t i = 0; i < sizeof(le); i++)
		le[i] = (uint8_t)(v >> (8 * i));
	return ctl_put(out, type, 0, stream, le, sizeof(le));
}

int ctl_credit_use(struct ctl_credit *c, size_t n)
{
	if (n == 0 || n > c->left)
		return -EBADMSG;
	c->left -= (uint32_t)n;
	return 0;
}

uint32_t ctl_credit_free(struct ctl_credit *c, size_t n)
{
	uint32_t give;

	c->freed += (uint32_t)n;
	assert(c->freed <= CTL_WINDOW);
	if (c->freed < CTL_WINDOW / 4 && c->left >= CTL_WINDOW / 4)
		return 0;
	give = c->freed;
	c->left += give;
	c->freed = 0;
	return give;
}

int ctl_credit_add(struct ctl_credit *c, uint32_t n)
{
	if (n == 0 || n > CTL_WINDOW - c->left)
		return -EBADMSG;
	c->left += n;
	return 0;
}
