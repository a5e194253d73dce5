#include "session/guest_path.h"
#include "session/path.h"

#include "test.h"

static void check(const char *path, bool mirrored)
{
	char *why = NULL;

	if (guest_path_mirrored(path, &why) != mirrored)
		fail_msg("%s: %s", path, mirrored ? why : "is mirrored");
	CHECK_INT(why != NULL, ==, !mirrored);
	free(why);
}

TEST(rows_of_the_page)
{
	static const char *const no[] = {
		"/tmp", "/tmp/x", "/run/x", "/var/run/x", "/dev/shm/x", "/proc/1", "/sys", "/boot/x", "/etc/x", "/bin", "/sbin/x",
		"/lib/x", "/lib32", "/lib64/x", "/libx32", "/usr/bin/x", "/usr/sbin", "/usr/lib/x", "/usr/local/bin/x",
		"/opt/agent-vm/x", "/agent-vm-state", "/.msb/x", "/usr", "/usr/local", "/usr/share", "/opt", "/root", "/home",
		"/var", "/var/lib", "/root/.claude", "/root/.claude/x", "/root/.config/gh/x", "/root/.local/share/opencode", "/",
		"/root/.config", "/root/.local", "/root/.local/share", "/usr/local/share", "/usr/local/share/ca-certificates/x",
		"/srv/a\nb", "/srv/a\x7f", "/srv/\xc2\x80", "/srv/\xff", "/srv/\xc2",
	};
	static const char *const yes[] = {
		"/tmpfoo", "/usr/src/x", "/usr/local/src", "/opt/x", "/root/p", "/home/user/p", "/var/lib/x", "/var/tmp/x",
		"/srv/my project", "/srv/a:b,c'd\"e", "/srv/проект", "/srv/🙂", "/root/.claudex", "/root/.config/x", "/runx",
		"/srv/\xc2\xa0x",
	};

	for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++)
		check(no[i], false);
	for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++)
		check(yes[i], true);
}

TEST(no_mount_where_the_guest_writes)
{
	/* At, below and above: what is made in the guest there would be made, or taken away, on the host. */
	static const char *const no[] = {
		"/etc/ssl/certs", "/etc/ssl/certs/x", "/etc/ssl", "/etc/pki", "/etc/pki/tls/certs", "/etc/chromium/policies", "/etc/codex",
		"/etc/claude-code", "/usr/local/share/ca-certificates", "/usr/local/share", "/root/.config", "/root/.local",
		"/root/.local/share", "/root/.config/gh", "/run/agent-vm", "/run",
	};
	static const char *const yes[] = { "/etc/sslx", "/etc/ssl/private", "/etc/x", "/usr/local/share/x", "/root/.config/x", "/root/.local/bin",
					   "/run/x", "/srv" };

	for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++) {
		char *why = guest_path_forbidden(no[i]);

		if (!why)
			fail_msg("%s can be used", no[i]);
		free(why);
	}
	for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++) {
		char *why = guest_path_forbidden(yes[i]);

		if (why)
			fail_msg("%s: %s", yes[i], why);
	}
}

static void check_of(const char *base, const char *path, bool mirrored, const char *want)
{
	char *got = guest_path_of(base, path, mirrored);

	CHECK_STR(got, want);
	free(got);
}

TEST(distances_are_kept)
{
	check_of("/tmp/a", "/tmp/a", false, "/workspace");
	check_of("/tmp/a", "/tmp/a/b/c", false, "/workspace/b/c");
	check_of("/", "/etc/a", false, "/workspace/etc/a");
	check_of("/srv", "/srv/a", true, "/srv/a");
}

static void check_tidy(const char *path, const char *want)
{
	char *got = path_tidy("/base", path);

	CHECK_STR(got, want);
	free(got);
}

static void check_common(const char *a, const char *b, const char *want)
{
	char *got = path_common(a, b);

	CHECK_STR(got, want);
	free(got);
}

TEST(paths)
{
	check_tidy("", "/base");
	check_tidy("a/./b//c/", "/base/a/b/c");
	check_tidy("../../../x", "/x");
	check_tidy("/", "/");
	check_tidy("/..", "/");
	check_tidy("/a/..b/...", "/a/..b/...");
	check_common("/a/b", "/a/bc", "/a");
	check_common("/a/b", "/a/b/c", "/a/b");
	check_common("/a", "/b", "/");
	check_common("/a/b", "/a/b", "/a/b");
	CHECK(path_within("/a", "/a/b") && path_within("/a", "/a") && !path_within("/a", "/ab") && path_within("/", "/x"));
	CHECK(!path_within("/a/b", "/a"));
	CHECK_INT(path_depth("/"), ==, 0);
	CHECK_INT(path_depth("/a/b"), ==, 2);
}
