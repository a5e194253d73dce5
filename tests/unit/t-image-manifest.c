/* Documents of registries: what is chosen and what is refused. Every reader over every input is the fuzz target's. */
#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "base/str.h"
#include "image/manifest.h"

#define OCI "application/vnd.oci.image."

static char *entry(char c, const char *platform)
{
	char hex[IM_DIGEST + 1];

	memset(hex, c, IM_DIGEST);
	hex[IM_DIGEST] = '\0';
	return xasprintf("{\"mediaType\":\"" OCI "manifest.v1+json\",\"digest\":\"sha256:%s\",\"size\":%d%s%s}", hex, c,
			 *platform ? ",\"platform\":" : "", platform);
}

/* An index of two entries, a and b. */
static int pick(const char *arch, const char *a, const char *b, char *ret, struct err *err)
{
	AUTO_FREE(char, one);
	AUTO_FREE(char, two);
	AUTO_FREE(char, text);
	enum manifest_kind kind;
	struct descriptor d;
	int r;

	one = entry('a', a);
	two = entry('b', b);
	text = xasprintf("{\"manifests\":[%s,%s]}", one, two);
	r = index_pick(text, strlen(text), arch, &d, &kind, err);
	if (r == 0) {
		*ret = d.hex[0];
		CHECK_INT(kind, ==, MANIFEST_IMAGE);
		CHECK_INT(d.bytes, ==, *ret);
	}
	return r;
}

#define P(os, arch) "{\"os\":\"" os "\",\"architecture\":\"" arch "\"}"
#define PV(arch, v) "{\"os\":\"linux\",\"architecture\":\"" arch "\",\"variant\":\"" v "\"}"

TEST(the_entry_of_this_machine_is_chosen)
{
	static const struct {
		const char *arch, *a, *b;
		char want; /* 0: none */
	} cases[] = {
		{ "amd64", P("linux", "arm64"), P("linux", "amd64"), 'b' },
		{ "amd64", P("linux", "amd64"), P("linux", "amd64"), 'a' },
		{ "amd64", P("windows", "amd64"), P("linux", "amd64"), 'b' },
		{ "amd64", PV("amd64", "v3"), PV("amd64", "v1"), 'b' },
		{ "amd64", PV("amd64", ""), P("linux", "amd64"), 'a' },
		{ "amd64", P("unknown", "unknown"), P("linux", "amd64"), 'b' },
		{ "amd64", "", P("linux", "amd64"), 'b' },
		{ "amd64", "", "", 0 },
		{ "amd64", PV("amd64", "v2"), P("linux", "386"), 0 },
		{ "arm64", PV("arm64", "v8"), P("linux", "amd64"), 'a' },
		{ "arm64", PV("arm64", "v9"), P("linux", "arm64"), 'b' },
		{ "arm64", PV("arm", "v8"), PV("arm64", "v1"), 0 },
	};
	struct err err;
	char got;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = pick(cases[i].arch, cases[i].a, cases[i].b, &got, &err);

		if (cases[i].want ? r != 0 || got != cases[i].want : r != -ENOEXEC)
			fail_msg("case %zu: %d %s", i, r, r < 0 ? err.text : "");
	}
	CHECK_INT(pick("amd64", P("linux", "arm64"), P("unknown", "unknown"), &got, &err), ==, -ENOEXEC);
	CHECK(strstr(err.text, "only for linux/arm64;"));
}

static int one_layer(const char *type, const char *more, struct manifest *m, struct err *err)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, c);

	c = entry('c', "");
	text = xasprintf("{\"config\":{\"mediaType\":\"" OCI "config.v1+json\",\"digest\":\"sha256:%.64s\",\"size\":1},"
			 "\"layers\":[{\"mediaType\":\"%s\",\"digest\":\"sha256:%.64s\",\"size\":5%s}]}",
			 strstr(c, "sha256:") + 7, type, strstr(c, "sha256:") + 7, more);
	return manifest_parse(text, strlen(text), m, err);
}

TEST(layer_types)
{
	static const struct {
		const char *type;
		int want; /* enum im_compression; -1: not supported */
	} cases[] = {
		{ OCI "layer.v1.tar", IM_PLAIN },
		{ OCI "layer.v1.tar+gzip", IM_GZIP },
		{ OCI "layer.v1.tar+zstd", IM_ZSTD },
		{ OCI "layer.nondistributable.v1.tar+gzip", IM_GZIP },
		{ "application/vnd.docker.image.rootfs.diff.tar.gzip", IM_GZIP },
		{ "application/vnd.docker.image.rootfs.diff.tar", IM_PLAIN },
		{ "application/vnd.docker.image.rootfs.diff.tar.zstd", IM_ZSTD },
		{ "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", -1 },
		{ OCI "layer.v1.tar+bzip2", -1 },
		{ OCI "layer.v1.tar+zstd+encrypted", -1 },
		{ "", -1 },
	};
	struct manifest m;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = one_layer(cases[i].type, "", &m, &err);

		if (cases[i].want < 0) {
			CHECK_INT(r, ==, -EPROTONOSUPPORT);
			continue;
		}
		CHECK_INT(r, ==, 0);
		CHECK_INT(m.layers[0].compression, ==, cases[i].want);
		CHECK_INT(m.layers[0].blob.bytes, ==, 5);
		manifest_done(&m);
	}
	CHECK_INT(one_layer(OCI "layer.v1.tar", ",\"urls\":[]", &m, &err), ==, 0);
	manifest_done(&m);
	CHECK_INT(one_layer(OCI "layer.v1.tar", ",\"urls\":[\"https://x\"]", &m, &err), ==, -EPROTONOSUPPORT);
	/* Two readers must not see two images. */
	CHECK_INT(one_layer(OCI "layer.v1.tar", ",\"size\":6", &m, &err), ==, -EBADMSG);
}

TEST(an_environment_that_nothing_can_be_started_with_is_refused)
{
	struct image_config c;
	struct err err;

	for (size_t n = 65530; n <= 65540; n += 10) {
		AUTO_FREE(char, value);
		AUTO_FREE(char, text);
		int r;

		value = xmalloc(n + 1);
		memset(value, 'x', n);
		memcpy(value, "A=", 2);
		value[n] = '\0';
		text = xasprintf("{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"%s\"]},\"rootfs\":{\"type\":"
				 "\"layers\",\"diff_ids\":[]}}", value);
		r = config_parse(text, strlen(text), "amd64", 0, &c, &err);
		CHECK_INT(r, ==, n < 65536 ? 0 : -EBADMSG);
		if (r == 0)
			config_done(&c);
	}
	CHECK_STR(err.text, "config: more than 64 KiB of environment (Env); use another image");
}

TEST(a_config_gives_what_a_launch_uses)
{
	static const char *const good = "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"A=1\",\"noise\",\"=x\","
					"\"B=2=3\"],\"User\":\"me\"},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:"
					"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"]}}";
	struct image_config c;
	struct err err;

	CHECK_INT(config_parse(good, strlen(good), "amd64", 1, &c, &err), ==, 0);
	CHECK_INT(c.env.n, ==, 2);
	CHECK_STR(c.env.v[0], "A=1");
	CHECK_STR(c.env.v[1], "B=2=3");
	CHECK_STR(c.user, "me");
	CHECK_STR(c.diff_ids[0], "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
	config_done(&c);
	CHECK_INT(config_parse(good, strlen(good), "arm64", 1, &c, &err), ==, -ENOEXEC);
	CHECK(strstr(err.text, "linux/amd64") && strstr(err.text, "linux/arm64"));
	CHECK_INT(config_parse(good, strlen(good), "amd64", 2, &c, &err), ==, -EBADMSG);
	CHECK_INT(config_parse(good, strlen(good) - 1, "amd64", 1, &c, &err), ==, -EBADMSG);
}

TEST(digests)
{
	char hex[IM_DIGEST + 1] = "untouched";

	CHECK_INT(digest_parse("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeF", hex), ==, -EBADMSG);
	CHECK_INT(digest_parse("sha256:0123", hex), ==, -EBADMSG);
	CHECK_INT(digest_parse("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", hex), ==, -EBADMSG);
	CHECK_STR(hex, "untouched");
	CHECK_INT(digest_parse("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", hex), ==, 0);
}
