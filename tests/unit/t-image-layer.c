/* The thread that decompresses: bounds that a role test would need 64 GiB for, and its ends. What layers become is tested on
 * the real program in tests/image. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "image/layer.h"
#include "image/tarhead.h"
#include "test.h"

static int memory_file(size_t n)
{
	int fd = memfd_create("blob", MFD_CLOEXEC);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)n) == 0);
	return fd;
}

/* Read a layer to its end. Bytes, or the error. */
static ssize_t drain(struct layers *l, struct err *err)
{
	const uint8_t *p;
	ssize_t n, sum = 0;

	while ((n = layers_read(l, &p, err)) > 0)
		sum += n;
	return n < 0 ? n : sum;
}

TEST(all_layers_together_have_a_bound)
{
	struct layers *l = layers_new(2, 3 << 20);
	struct layer_spec spec = { .fd = memory_file(2 << 20) };
	struct err err = { 0 };

	CHECK_INT(layers_add(l, 0, &spec, &err), ==, 0);
	spec.fd = memory_file((1 << 20) + 1);
	CHECK_INT(layers_add(l, 1, &spec, &err), ==, 0);
	CHECK_INT(layers_start(l), ==, 0);
	CHECK_INT(drain(l, &err), ==, 2 << 20);
	CHECK_INT(layers_left(l), ==, 1 << 20);
	CHECK_INT(drain(l, &err), ==, -EBADMSG);
	CHECK(strstr(err.text, "unpacked; this image cannot be used") != NULL);
	layers_free(l);
}

TEST(layers_come_in_order_whatever_order_they_are_announced_in)
{
	struct layers *l = layers_new(3, LAYERS_BYTES_MAX);
	struct err err = { 0 };

	CHECK_INT(layers_start(l), ==, 0);
	for (unsigned int i = 3; i-- > 0;) {
		struct layer_spec spec = { .fd = memory_file(1000 * (i + 1)), .sized = true, .bytes = 1000 * (i + 1) };

		CHECK_INT(layers_add(l, i, &spec, &err), ==, 0);
		CHECK_INT(layers_grown(l, i, 500, &err), ==, 0);
		CHECK_INT(layers_grown(l, i, 1000 * (i + 1), &err), ==, 0);
	}
	for (unsigned int i = 0; i < 3; i++) {
		CHECK_INT(drain(l, &err), ==, 1000 * (i + 1));
		CHECK_INT(layers_ended(l)->bytes, ==, 1000 * (i + 1));
		CHECK_INT(layers_consumed(l), ==, 1000 * (i + 1));
	}
	layers_free(l);
}

TEST(what_is_announced_wrongly_is_refused)
{
	struct layers *l = layers_new(1, LAYERS_BYTES_MAX);
	struct layer_spec spec = { .fd = open("/dev/null", O_RDONLY | O_CLOEXEC) };
	struct err err = { 0 };

	CHECK_INT(layers_add(l, 0, &spec, &err), ==, -EBADMSG);
	CHECK_INT(layers_grown(l, 0, 0, &err), ==, -EBADMSG);
	spec = (struct layer_spec){ .fd = memory_file(10), .sized = true, .bytes = 10 };
	CHECK_INT(layers_add(l, 0, &spec, &err), ==, 0);
	spec.fd = memory_file(10);
	CHECK_INT(layers_add(l, 0, &spec, &err), ==, -EBADMSG);
	spec.fd = memory_file(10);
	CHECK_INT(layers_add(l, 1, &spec, &err), ==, -EBADMSG);
	CHECK_INT(layers_grown(l, 0, 5, &err), ==, 0);
	CHECK_INT(layers_grown(l, 0, 4, &err), ==, -EBADMSG);
	CHECK_INT(layers_grown(l, 0, 11, &err), ==, -EBADMSG);
	layers_free(l);
}

TEST(a_thread_that_waits_can_be_ended)
{
	struct layers *l = layers_new(2, LAYERS_BYTES_MAX);
	struct layer_spec spec = { .fd = memory_file(64 << 20) };
	const uint8_t *p;

	CHECK_INT(layers_add(l, 0, &spec, NULL), ==, 0);
	CHECK_INT(layers_start(l), ==, 0);
	CHECK_INT(layers_read(l, &p, NULL), >, 0);
	layers_free(l); /* it waits for room in the ring */
	l = layers_new(1, LAYERS_BYTES_MAX);
	spec = (struct layer_spec){ .fd = memory_file(10), .sized = true, .bytes = 10 };
	CHECK_INT(layers_add(l, 0, &spec, NULL), ==, 0);
	CHECK_INT(layers_start(l), ==, 0);
	layers_free(l); /* it waits for growth */
}

/* --- headers --- */

static uint8_t head[4096];

/* A special header with a body, then a plain one. Bytes. */
static size_t headers(char type, const char *body, size_t n)
{
	memset(head, 0, sizeof(head));
	CHECK(n <= 1 << 20);
	(void)snprintf((char *)head + 124, 12, "%011o", (unsigned int)n & 0x1fffff);
	head[156] = (uint8_t)type;
	memcpy(head + 512, body, n);
	head[512 + (n + 511) / 512 * 512 + 156] = '0';
	return 512 + (n + 511) / 512 * 512 + 512;
}

static const char *judged(char type, const char *body, size_t n)
{
	static struct err err;
	size_t len = headers(type, body, n);

	err.text[0] = '\0';
	CHECK_INT(tarhead_check(head, len, &err), ==, err.text[0] ? -EBADMSG : 0);
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *copy = malloc(cut + 1); /* of its own size, for the sanitizer */

		memcpy(copy, head, cut);
		CHECK_INT(tarhead_check(copy, cut, NULL), ==, -EBADMSG);
		free(copy);
	}
	return err.text;
}

TEST(records_of_pax_headers_are_judged)
{
	static const struct {
		const char *body, *says;
	} cases[] = {
		{ "6 a=b\n", "" },
		{ "5 a=\n", "" },
		{ "6 a=b\n6 c=d\n", "" },
		{ "7 a=b\n", "a PAX header with a broken record" },
		{ "5 a=b\n", "a PAX header with a broken record" },
		{ "6 a=b", "a PAX header with a broken record" },
		{ "6 aab\n", "a PAX header with a broken record" },
		{ " 6 a=b\n", "a PAX header with a broken record" },
		{ "99999999999999999999 a=b\n", "a PAX header with a broken record" },
		{ "0 a=b\n", "a PAX header with a broken record" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		CHECK_STR(judged('x', cases[i].body, strlen(cases[i].body)), cases[i].says);
	CHECK_STR(judged('x', "12 path=a\0b\n", 12), "a name with a zero byte");
	CHECK_STR(judged('g', "16 linkpath=\0ab\n", 16), "a name with a zero byte");
	CHECK_STR(judged('x', "11 user=a\0\n", 11), "");
	CHECK_STR(judged('L', "any\0thing", 9), "");
	CHECK_STR(judged('x', "6 a=b\n\0\0\0", 9), "");
}

TEST(numbers_below_zero_are_refused_in_every_header)
{
	static const size_t fields[] = { 108, 116, 124 };

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		struct err err;
		size_t n = headers('x', "6 a=b\n", 6);

		head[1024 + fields[i]] = 0xff;
		CHECK_INT(tarhead_check(head, n, &err), ==, -EBADMSG);
		CHECK_STR(err.text, "a number below 0");
		head[1024 + fields[i]] = 0x80;
		CHECK_INT(tarhead_check(head, n, &err), ==, 0);
	}
}

TEST(special_headers_have_bounds)
{
	size_t size = 20 * 512;
	uint8_t *many = calloc(1, size);
	struct err err;

	for (size_t i = 0; i < 20; i++)
		many[i * 512 + 156] = 'g';
	many[16 * 512 + 156] = '0';
	CHECK_INT(tarhead_check(many, size, &err), ==, 0);
	many[16 * 512 + 156] = 'g';
	CHECK_INT(tarhead_check(many, size, &err), ==, -EBADMSG);
	CHECK_STR(err.text, "more than 16 special headers");
	(void)headers('x', "", 0);
	(void)snprintf((char *)head + 124, 12, "%011o", (1U << 20) + 1);
	CHECK_INT(tarhead_check(head, sizeof(head), &err), ==, -EBADMSG);
	CHECK_STR(err.text, "a special header of more than 1 MiB");
	free(many);
}
