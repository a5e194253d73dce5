/* Header "DIRC", version, number of entries; each entry:
 *
 *   0  24 bytes of times and numbers	40  20 bytes of object id	62  2 bytes more with flag 0x4000 (version 3)
 *   24 mode				60  flags: 0x0fff length	then the name, and 1 to 8 NULs up to a multiple of 8
 *
 * then extensions (4 letters, length, bytes) and 20 bytes of checksum, which is not looked at. */
#include "session/gitindex.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"

#define FIXED 62
#define MODE_LINK 0160000
#define EXTENDED 0x4000
#define NAME_LEN 0x0fff
#define CHECKSUM 20

static int entry(struct span *in, uint32_t version, struct strv *ret)
{
	struct span at = *in, skip, name;
	const uint8_t *nul;
	uint32_t mode, flags;
	size_t fixed = FIXED, all;

	if (span_take(&at, 24, &skip) < 0 || span_be(&at, 4, &mode) < 0 || span_take(&at, 32, &skip) < 0 ||
	    span_be(&at, 2, &flags) < 0)
		return -EBADMSG;
	if (flags & EXTENDED) {
		if (version < 3 || span_take(&at, 2, &skip) < 0)
			return -EBADMSG;
		fixed += 2;
	}
	nul = at.n ? memchr(at.p, 0, at.n) : NULL;
	if (!nul)
		return -EBADMSG;
	name = SPAN(at.p, (size_t)(nul - at.p));
	/* A repository with longer object ids has something else here. */
	if (name.n == 0 || MIN(name.n, (size_t)NAME_LEN) != (flags & NAME_LEN))
		return -EBADMSG;
	all = (fixed + name.n + 8) & ~(size_t)7;
	if (span_take(in, all, &skip) < 0)
		return -EBADMSG;
	if (mode == MODE_LINK)
		strv_take(ret, xstrndup((const char *)name.p, name.n));
	return 0;
}

int gitindex_links(struct span in, struct strv *ret)
{
	struct strv found = { 0 };
	uint32_t version, n, len;
	struct span what;
	int r = 0;

	if (span_take(&in, 4, &what) < 0 || !span_is(what, "DIRC") || span_be(&in, 4, &version) < 0 || span_be(&in, 4, &n) < 0)
		return -EBADMSG;
	if (version == 4)
		return -ENOTSUP;
	if (version != 2 && version != 3)
		return -EBADMSG;
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = entry(&in, version, &found);
	while (r == 0 && in.n > CHECKSUM) {
		if (span_take(&in, 4, &what) < 0)
			r = -EBADMSG;
		else if (span_is(what, "link"))
			r = -ENOTSUP;
		else if (span_be(&in, 4, &len) < 0 || span_take(&in, len, &what) < 0)
			r = -EBADMSG;
	}
	for (size_t i = 0; r == 0 && i < found.n; i++)
		strv_add(ret, found.v[i]);
	strv_done(&found);
	return r;
}
