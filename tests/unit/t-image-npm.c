#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "base/str.h"
#include "image/npm.h"
#include "image/pins.h"

/* openssl dgst -sha512 -binary < /dev/null | base64 -w0 */
#define EMPTY "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="

TEST(names_and_versions)
{
	static const char *const good[][3] = {
		{ "a@1", "a", "1" },
		{ "@o/c@0.169.0-linux-x64", "@o/c", "0.169.0-linux-x64" },
		{ "x-y_z.1@latest", "x-y_z.1", "latest" },
	};
	static const char *const bad[] = {
		"",	"a",	  "@",	   "a@",    "@a@1",  "@a/@1", "@/a@1", "a/b@1", "../a@1", ".a@1", "A@1",
		"a@1/2", "a@../x", "a @1", "a@1 2", "a@1\n", "@a/b/c@1", "a?b@1", "@a/../b@1", "a%2f@1",
	};
	char *name, *version;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		CHECK_INT(npm_spec_parse(good[i][0], &name, &version), ==, 0);
		CHECK_STR(name, good[i][1]);
		CHECK_STR(version, good[i][2]);
		free(name);
		free(version);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (npm_spec_parse(bad[i], &name, &version) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
}

TEST(a_scope_is_escaped_in_an_address)
{
	AUTO_FREE(char, plain);
	AUTO_FREE(char, scoped);

	plain = npm_url("https://r/npm", "a", "1");
	scoped = npm_url("https://r", "@o/c", "1.2");
	CHECK_STR(plain, "https://r/npm/a/1");
	CHECK_STR(scoped, "https://r/@o%2fc/1.2");
}

TEST(integrity_is_read_and_written)
{
	static const char *const bad[] = {
		"", "sha512-", "sha1-" EMPTY, "xsha512-" EMPTY, "sha512-" EMPTY "x", "sha512-z4PhNX7v==",
		/* bits beyond the 64th byte, and a sign of another alphabet */
		"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPh==",
		"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg_SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
	};
	static const uint8_t first[] = { 0xcf, 0x83, 0xe1, 0x35 }, last[] = { 0xfa, 0x3e };
	uint8_t sum[NPM_SHA512];
	char *text;

	CHECK_INT(npm_integrity_parse("sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk= sha512-" EMPTY " sha256-x", sum), ==, 0);
	assert_memory_equal(sum, first, sizeof(first));
	CHECK_INT(sum[63], ==, last[1]);
	text = npm_integrity_text(sum);
	CHECK_STR(text, "sha512-" EMPTY);
	free(text);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (npm_integrity_parse(bad[i], sum) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
}

static int metadata(const char *registry, const char *tarball)
{
	AUTO_FREE(char, text);
	struct npm_version v = { NULL };
	struct err err = { 0 };
	int r;

	text = xasprintf("{\"name\":\"a\",\"version\":\"1\",\"dist\":{\"tarball\":\"%s\",\"integrity\":\"sha512-" EMPTY "\"}}", tarball);
	r = npm_metadata_parse(text, strlen(text), registry, &v, &err);
	CHECK((r == 0) == (v.tarball != NULL) && (r == 0) == (err.text[0] == '\0'));
	npm_version_done(&v);
	return r;
}

TEST(a_tarball_comes_by_https_or_from_the_registry_itself)
{
	CHECK_INT(metadata("https://r", "https://elsewhere/a.tgz"), ==, 0);
	CHECK_INT(metadata("http://127.0.0.1:1", "http://127.0.0.1:1/a.tgz"), ==, 0);
	CHECK_INT(metadata("http://127.0.0.1:1/npm", "http://127.0.0.1:1/x"), ==, 0);
	CHECK_INT(metadata("https://r", "http://r/a.tgz"), ==, -EBADMSG);
	CHECK_INT(metadata("http://127.0.0.1:1", "http://127.0.0.1:12/a.tgz"), ==, -EBADMSG);
	CHECK_INT(metadata("http://127.0.0.1:1", "http://127.0.0.1:1@evil/a.tgz"), ==, -EBADMSG);
	CHECK_INT(metadata("https://r", "https://user@r/a.tgz"), ==, -EBADMSG);
	CHECK_INT(metadata("https://r", "file:///etc/passwd"), ==, -EBADMSG);
	CHECK_INT(metadata("https://r", "https://r/a b"), ==, -EBADMSG);
}

TEST(metadata_without_what_is_needed_is_refused)
{
	static const char *const bad[] = {
		"", "[]", "{}", "{\"name\":\"a\"}", "{\"name\":\"a\",\"version\":\"1\"}",
		"{\"name\":\"a\",\"version\":\"1\",\"dist\":{\"tarball\":\"https://r/a\"}}",
		"{\"name\":\"a\",\"version\":\"1\",\"dist\":{\"tarball\":\"https://r/a\",\"shasum\":\"da39a3ee5e6b4b0d3255bfef95601890afd80709\"}}",
		"{\"name\":\"../a\",\"version\":\"1\",\"dist\":{\"tarball\":\"https://r/a\",\"integrity\":\"sha512-" EMPTY "\"}}",
	};
	struct npm_version v;
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (npm_metadata_parse(bad[i], strlen(bad[i]), "https://r", &v, &err) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
}

TEST(an_optional_dependency_is_a_version_or_another_package)
{
	static const char text[] = "{\"optionalDependencies\":{\"p\":\"1.2.3\",\"@o/x\":\"npm:@o/c@1-x64\",\"r\":\"^1.0.0\",\"e\":\"npm:../a@1\"}}";
	char *name, *version;
	struct err err;

	CHECK_INT(npm_dependency(text, strlen(text), "p", &name, &version, &err), ==, 0);
	CHECK_STR(name, "p");
	CHECK_STR(version, "1.2.3");
	free(name);
	free(version);
	CHECK_INT(npm_dependency(text, strlen(text), "@o/x", &name, &version, &err), ==, 0);
	CHECK_STR(name, "@o/c");
	CHECK_STR(version, "1-x64");
	free(name);
	free(version);
	CHECK_INT(npm_dependency(text, strlen(text), "r", &name, &version, &err), ==, -EBADMSG);
	CHECK_INT(npm_dependency(text, strlen(text), "e", &name, &version, &err), ==, -EBADMSG);
	CHECK_INT(npm_dependency(text, strlen(text), "absent", &name, &version, &err), ==, -EBADMSG);
}

TEST(of_an_npmrc_only_the_registry_line_counts)
{
	static const char *const cases[][2] = {
		{ "", NULL },
		{ "registry=https://a/\n", "https://a/" },
		{ "x=1\n  registry =  \"https://a\"  \r\n", "https://a" },
		{ "registry=https://a\nregistry=https://b", "https://b" },
		{ "@scope:registry=https://a\n#registry=https://a\nregistryx=https://a\nregistry\nregistry=\n", NULL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE(char, found);

		found = npmrc_registry(cases[i][0]);
		if (cases[i][1])
			CHECK_STR(found, cases[i][1]);
		else
			CHECK(!found);
	}
}

TEST(every_program_is_pinned)
{
	static const char *const programs[] = { "codex", "claude", "opencode", "copilot", "chrome-devtools-mcp" };
	uint8_t sum[NPM_SHA512];
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		struct pin p;

		CHECK_INT(pins_find(pins_lock, programs[i], "amd64", &p, &err), ==, 0);
		CHECK_STR(p.program, programs[i]);
		CHECK_INT(npm_integrity_parse(p.integrity, sum), ==, 0);
		CHECK(p.bytes > 1000000 && p.rules.n > 0);
		pin_done(&p);
	}
}

TEST(a_lock_file_of_another_form_is_refused)
{
	struct err err;
	struct pin p;

	CHECK_INT(pins_find(pins_lock, "codex", "riscv64", &p, &err), ==, -ENOENT);
	CHECK_INT(pins_find("{\"format\":2,\"programs\":[]}", "codex", "amd64", &p, &err), ==, -EBADMSG);
	CHECK_INT(pins_find("no JSON", "codex", "amd64", &p, &err), ==, -EBADMSG);
	CHECK_INT(pins_find("{\"format\":1,\"programs\":[{\"program\":\"codex\",\"platforms\":{\"amd64\":{\"package\":\"a\"}}}]}", "codex",
			    "amd64", &p, &err), ==, -EBADMSG);
}
