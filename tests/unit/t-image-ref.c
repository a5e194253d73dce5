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
		"https://h.example/x", "h.example:/x", "h.example:123456/x", "a___b", "a..b", "-a", "a-", "h..x./y/Z",
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
}
