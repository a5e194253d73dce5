/* Messages of agent-vm-image: what a receiver takes and what it refuses. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "proto/imagemsg.h"
#include "proto/rec.h"
#include "test.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct im got;

/* What a receiver makes of the bytes as they are: im_send() would not send a wrong message. */
static int sent(struct buf *b, int pass, enum im_way way)
{
	int s[2], r;

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), ==, 0);
	if (pass >= 0) {
		r = im_send(s[0], b, pass);
	} else {
		struct span v = buf_span(b);

		r = send(s[0], v.p, v.n, 0) < 0 ? -errno : 0;
		buf_done(b);
	}
	CHECK_INT(r, ==, 0);
	r = im_recv(s[1], way, &got);
	(void)close(s[0]);
	(void)close(s[1]);
	return r;
}

TEST(a_good_message_arrives_with_its_values)
{
	AUTO_FREE(char, id);
	struct buf b;

	im_begin(&b, IM_LAYER_DONE);
	(void)rec_put_u64(&b, IM_K_LAYER, 511);
	(void)rec_put_str(&b, IM_K_DIFF_ID, HEX);
	(void)rec_put_u64(&b, IM_K_BYTES, 1ULL << 40);
	CHECK_INT(sent(&b, -1, IM_FROM_UNPACK), ==, 1);
	CHECK(got.type == IM_LAYER_DONE && got.fd == -1);
	CHECK_INT(im_u64(&got, IM_K_LAYER), ==, 511);
	CHECK_INT(im_u64(&got, IM_K_BYTES), ==, 1LL << 40);
	id = im_str(&got, IM_K_DIFF_ID);
	CHECK_STR(id, HEX);
	CHECK(!im_has(&got, IM_K_BLOB) && im_str(&got, IM_K_BLOB) == NULL && im_bytes(&got, IM_K_BLOB).n == 0);
}

TEST(a_message_that_goes_the_other_way_is_refused)
{
	struct buf b;

	im_begin(&b, IM_GROWN);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_BYTES, 5);
	CHECK_INT(sent(&b, -1, IM_FROM_UNPACK), ==, -EBADMSG);
}

TEST(values_out_of_bounds_are_refused)
{
	static const struct {
		uint64_t layer;
		const char *id;
	} bad[] = { { 512, HEX }, { 0, "abc" }, { 0, "ABCDEF" HEX }, { UINT64_MAX, HEX } };
	struct buf b;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		im_begin(&b, IM_LAYER_DONE);
		(void)rec_put_u64(&b, IM_K_LAYER, bad[i].layer);
		(void)rec_put_str(&b, IM_K_DIFF_ID, bad[i].id);
		(void)rec_put_u64(&b, IM_K_BYTES, 1);
		CHECK_INT(sent(&b, -1, IM_FROM_UNPACK), ==, -EBADMSG);
	}
}

TEST(a_key_missing_twice_or_unknown_is_refused)
{
	struct buf b;

	im_begin(&b, IM_GROWN);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	CHECK_INT(sent(&b, -1, IM_TO_UNPACK), ==, -EBADMSG);
	im_begin(&b, IM_GROWN);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_BYTES, 0);
	CHECK_INT(sent(&b, -1, IM_TO_UNPACK), ==, -EBADMSG);
	im_begin(&b, IM_GROWN);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_BYTES, 0);
	(void)rec_put_u64(&b, 77, 0);
	CHECK_INT(sent(&b, -1, IM_TO_UNPACK), ==, -EBADMSG);
}

TEST(a_key_may_repeat_where_it_is_a_list)
{
	struct buf b;

	im_begin(&b, IM_GO);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_LAYER, 7);
	CHECK_INT(sent(&b, -1, IM_TO_FETCH), ==, 1);
}

TEST(text_that_was_not_escaped_is_refused)
{
	static const char *const texts[] = { "a\033[2Jb", "line\nline", "\xff", "\xe2\x80\xae" };
	struct buf b;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		im_begin(&b, IM_ERROR);
		(void)rec_put_u64(&b, IM_K_ERRNO, EIO);
		(void)rec_put_str(&b, IM_K_TEXT, texts[i]);
		CHECK_INT(sent(&b, -1, IM_FROM_FETCH), ==, -EBADMSG);
	}
	im_begin(&b, IM_ERROR);
	(void)rec_put_u64(&b, IM_K_ERRNO, EIO);
	(void)rec_put_str(&b, IM_K_TEXT, "layer 1: gr\xc3\xbc\xc3\x9f \\x1b");
	CHECK_INT(sent(&b, -1, IM_FROM_FETCH), ==, 1);
}

TEST(a_descriptor_comes_only_where_it_belongs)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct buf b;

	im_begin(&b, IM_PART);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_BYTES, 0);
	CHECK_INT(sent(&b, -1, IM_FROM_FETCH), ==, -EBADMSG);
	im_begin(&b, IM_PART);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_BYTES, 0);
	CHECK_INT(sent(&b, null, IM_FROM_FETCH), ==, 1);
	CHECK(got.fd >= 0);
	(void)close(got.fd);
	im_begin(&b, IM_DONE);
	CHECK_INT(sent(&b, null, IM_FROM_FETCH), ==, -EBADMSG);
	(void)close(null);
}

TEST(a_wrong_message_is_not_sent)
{
	struct buf b;

	im_begin(&b, IM_ERROR);
	CHECK_INT(im_send(-1, &b, -1), ==, -EBADMSG);
}

TEST(the_end_of_the_other_side_is_no_message)
{
	int s[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), ==, 0);
	(void)close(s[0]);
	CHECK_INT(im_recv(s[1], IM_FROM_FETCH, &got), ==, 0);
	(void)close(s[1]);
}

TEST(the_last_word_of_a_peer_that_did_not_read_everything_arrives)
{
	struct buf b;
	struct im m;
	int s[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), ==, 0);
	/* never read */
	im_begin(&b, IM_GROWN);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_BYTES, 1);
	CHECK_INT(im_send(s[0], &b, -1), ==, 0);
	im_begin(&b, IM_ERROR);
	(void)rec_put_u64(&b, IM_K_ERRNO, 5);
	(void)rec_put_str(&b, IM_K_TEXT, "why");
	CHECK_INT(im_send(s[1], &b, -1), ==, 0);
	close(s[1]);
	CHECK_INT(im_recv(s[0], IM_FROM_UNPACK, &m), ==, 1);
	CHECK_INT(m.type, ==, IM_ERROR);
	CHECK_INT(im_recv(s[0], IM_FROM_UNPACK, &m), ==, 0);
	close(s[0]);
}
