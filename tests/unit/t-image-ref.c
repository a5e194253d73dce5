#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "image/ref.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

TEST(references_get_their_full_form)
{
	static const char *const cases[][2] = {
		{ "debian", "docker.io/library/debian:latest" },
		{ "a/b", "docker.io/a/b:latest" },
		{ "a/b:t", "docker.io/a/b:t" },
		{ "docker.io/debian:12", "docker.io/library/debian:12" },
		{ "index.docker.io/a/b", "docker.io/a/b:latest" },
		{ "localhost/agent-vm", "localhost/agent-vm:latest" },
		{ "localhost/agent-vm:minimal", "localhost/agent-vm:minimal" },
		{ "localhost:5000/x", "localhost:5000/x:latest" },
		{ "ghcr.io/o/r:1.2", "ghcr.io/o/r:1.2" },
		{ "[::1]:5000/x:y", "[::1]:5000/x:y" },
		{ "h.example/a__b/c-d--e.f:T", "h.example/a__b/c-d--e.f:T" },
		{ "h.example/x@sha256:" HEX, "h.example/x@sha256:" HEX },
		{ "h.example/x:t@sha256:" HEX, "h.example/x:t@sha256:" HEX },
	};
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *s = NULL;

		CHECK_INT(ref_normalise(cases[i][0], &s, &err), ==, 0);
		CHECK_STR(s, cases[i][1]);
		free(s);
	}
}

TEST(what_is_no_reference_is_refused)
{
	static const char *const cases[] = {
		"", "/", "a/", "/a", "a//b", "A", "a/B", "a:", "a:-x", "a: b", "a b", "a\nb", "a@", "a@sha256:12", ("a@md5:" HEX),
		"https://h.example/x", "h.example:/x", "h.example:123456/x", "h.example:65536/x", "h.example:0/x", "h.example:00000/x",
		"[::1]:/x", "[::1]:99999/x", "[::1]5/x", "a___b", "a..b", "-a", "a-", "h..x./y/Z",
		"../x", "a/../b",
	};
	struct err err;
	char *s = NULL, longer[5000];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (ref_normalise(cases[i], &s, &err) != -EINVAL)
			fail_msg("taken: %s", cases[i]);
	memset(longer, 'a', sizeof(longer));
	longer[4999] = '\0';
	CHECK_INT(ref_normalise(longer, &s, &err), ==, -EINVAL);
	longer[300] = '\0';
	CHECK_INT(ref_normalise(longer, &s, &err), ==, -EINVAL);
	CHECK(!s);
	/* The limit is that of the full form: docker.io/library/ goes in front. */
	longer[REF_NAME_MAX - strlen("docker.io/library/")] = '\0';
	CHECK_INT(ref_normalise(longer, &s, &err), ==, 0);
	free(s);
	s = NULL;
	longer[REF_NAME_MAX - strlen("docker.io/library/")] = 'a';
	longer[REF_NAME_MAX - strlen("docker.io/library/") + 1] = '\0';
	CHECK_INT(ref_normalise(longer, &s, &err), ==, -EINVAL);
	CHECK(!s);
}

TEST(a_wrong_port_is_named)
{
	struct err err;
	char *s = NULL;

	CHECK_INT(ref_normalise("127.0.0.1:99999/x/y:z", &s, &err), ==, -EINVAL);
	CHECK_STR(err.text, "image 127.0.0.1:99999/x/y:z: its port is not a number from 1 to 65535");
	CHECK_INT(ref_normalise("h.example:65535/x", &s, &err), ==, 0);
	free(s);
}

TEST(a_reference_comes_in_parts)
{
	struct ref r;
	struct err err;

	CHECK_INT(ref_parse("debian", &r, &err), ==, 0);
	CHECK_STR(r.domain, "docker.io");
	CHECK_STR(r.path, "library/debian");
	CHECK_STR(r.tag, "latest");
	CHECK(!r.digest);
	CHECK_STR(ref_api_host(&r), "registry-1.docker.io");
	ref_done(&r);
	CHECK_INT(ref_parse("[::1]:5000/a/b@sha256:" HEX, &r, &err), ==, 0);
	CHECK_STR(r.domain, "[::1]:5000");
	CHECK_STR(r.path, "a/b");
	CHECK(!r.tag);
	CHECK_STR(r.digest, "sha256:" HEX);
	CHECK_STR(ref_api_host(&r), "[::1]:5000");
	ref_done(&r);
}

TEST(the_corrected_form_is_told_when_it_is_obvious)
{
	static const char *const cases[][2] = {
		{ "https://ghcr.io/o/r:1", "; write ghcr.io/o/r:1" },
		{ "docker://debian", "; write debian" },
		{ "ghcr.io/Owner/Repo:Tag", "; write ghcr.io/owner/repo:Tag" },
		{ "Debian", "; write debian" },
		{ "a//b", "; write a/b" },
		{ "a/b/", "; write a/b" },
		{ "a/b/:t", "; write a/b:t" },
	};
	static const char *const none[] = { "a b", "a:", "x@sha256:12", "a___b", "\033[31m" };
	struct err err;
	char *s = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CHECK_INT(ref_normalise(cases[i][0], &s, &err), ==, -EINVAL);
		if (!strstr(err.text, cases[i][1]))
			fail_msg("%s", err.text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		CHECK_INT(ref_normalise(none[i], &s, &err), ==, -EINVAL);
		CHECK(!strstr(err.text, "; write"));
		CHECK(!strchr(err.text, '\033'));
	}
}
