#include "session/mount_spec.h"

#include <errno.h>

#include "files.h"

/* Parses @typed and compares; @host NULL: it must be refused with a text that holds @guest. */
static void check_parse(const char *typed, const char *host, const char *guest, bool ro)
{
	struct findings found = { 0 };
	struct mount_spec m = { 0 };
	int r = mount_spec_parse(typed, &m, &found);

	if (!host) {
		CHECK_INT(r, ==, -EINVAL);
		CHECK_INT(found.n, ==, 1);
		CHECK_INT(found.v[0].kind, ==, FINDING_TYPED);
		CHECK(strstr(found.v[0].text, guest));
		CHECK(!m.host);
	} else {
		CHECK_INT(r, ==, 0);
		CHECK_STR(m.host, host);
		if (guest)
			CHECK_STR(m.guest, guest);
		else
			CHECK(!m.guest);
		CHECK_INT(m.ro, ==, ro);
		CHECK_INT(found.n, ==, 0);
	}
	mount_spec_done(&m);
	findings_done(&found);
}

TEST(grammar)
{
	check_parse("/a", "/a", NULL, false);
	check_parse("/a:ro", "/a", NULL, true);
	check_parse("/a:rw", "/a", NULL, false);
	check_parse("/a:/b", "/a", "/b", false);
	check_parse("/a:/b:ro", "/a", "/b", true);
	check_parse(" /a : /b : ro ", "/a", "/b", true);
	check_parse("/a\\:b:/c", "/a:b", "/c", false);
	check_parse("/a\\:ro", "/a:ro", NULL, false);
	check_parse("/a:/b\\:ro", "/a", "/b:ro", false);
	check_parse("/a\\b", "/a\\b", NULL, false);
	check_parse("/a:/b:c", "/a", "/b:c", false);
	check_parse("ro", "ro", NULL, false);
	check_parse("ro:ro", "ro", NULL, true);
	check_parse("/a:ROX", "/a", "ROX", false);
	check_parse("", NULL, "host side is empty", false);
	check_parse("  ", NULL, "host side is empty", false);
	check_parse(":/b", NULL, "host side is empty", false);
	check_parse(":ro", NULL, "host side is empty", false);
	check_parse("/a:", NULL, "guest side is empty", false);
	check_parse("/a::ro", NULL, "guest side is empty", false);
}

struct place {
	char *dir, *cwd;
	struct findings found;
	struct mount m;
	int r;
};

static void resolve(struct place *p, const char *typed)
{
	struct mount_spec spec;

	mount_done(&p->m);
	findings_done(&p->found);
	CHECK_INT(mount_spec_parse(typed, &spec, &p->found), ==, 0);
	p->r = mount_resolve(&spec, p->cwd, p->dir, &p->m, &p->found);
	CHECK_INT(p->r < 0, ==, p->found.n == 1);
	mount_spec_done(&spec);
}

static void check_wrong(struct place *p, const char *typed, enum finding_kind kind, const char *text)
{
	resolve(p, typed);
	CHECK_INT(p->r, <, 0);
	CHECK_INT(p->found.v[0].kind, ==, kind);
	if (!strstr(p->found.v[0].text, text))
		fail_msg("\"%s\" does not say \"%s\"", p->found.v[0].text, text);
}

TEST(resolution)
{
	struct place p = { .dir = files_tmp("/var/tmp") };
	char *want, *longer;

	p.cwd = files_at(p.dir, "cwd");
	files_sh(p.dir, "mkdir -p cwd other/in && ln -s other lnk && touch file && mkfifo fifo");
	resolve(&p, "../other:ro");
	want = files_at(p.dir, "other");
	CHECK_STR(p.m.host, want);
	CHECK_STR(p.m.guest, want);
	CHECK(p.m.ro);
	/* The guest path keeps the link, the host path does not. */
	resolve(&p, "~/lnk/./in/../");
	CHECK_STR(p.m.host, want);
	free(want);
	want = files_at(p.dir, "lnk");
	CHECK_STR(p.m.guest, want);
	free(want);
	resolve(&p, "~:/h/./x/..//");
	CHECK_STR(p.m.host, p.dir);
	CHECK_STR(p.m.guest, "/h");
	resolve(&p, "../other:/tmp/x");
	CHECK_STR(p.m.guest, "/tmp/x");
	resolve(&p, "../other:/usr/bin/x");
	CHECK_INT(p.r, ==, 0);
	check_wrong(&p, "/nope-at-all", FINDING_WORLD,
		    "--mount /nope-at-all: no such file or directory; create it or correct the path");
	check_wrong(&p, "../file", FINDING_WORLD, "mount the folder that it is in");
	check_wrong(&p, "../fifo", FINDING_WORLD, "is not a folder");
	check_wrong(&p, "../other:rel", FINDING_TYPED, "not absolute");
	check_wrong(&p, "../other:/", FINDING_TYPED, "cannot be replaced");
	check_wrong(&p, "../other:/x/..", FINDING_TYPED, "cannot be replaced");
	check_wrong(&p, "../other:/a\nb", FINDING_TYPED, "control character");
	check_wrong(&p, "../other:/a\xc2\x85", FINDING_TYPED, "control character");
	check_wrong(&p, "../other:/proc/x", FINDING_TYPED, "/proc");
	check_wrong(&p, "../other:/x/../sys", FINDING_TYPED, "/sys");
	check_wrong(&p, "../other:/dev/shm", FINDING_TYPED, "/dev");
	check_wrong(&p, "../other:/boot", FINDING_TYPED, "/boot");
	check_wrong(&p, "../other:/agent-vm-state/x", FINDING_TYPED, "/agent-vm-state");
	check_wrong(&p, "../other:/.msb", FINDING_TYPED, "/.msb");
	check_wrong(&p, "../other:/run/agent-vm/host", FINDING_TYPED, "/run/agent-vm");
	check_wrong(&p, "../other:/tmp", FINDING_TYPED, "/tmp");
	check_wrong(&p, "../other:/usr", FINDING_TYPED, "/usr");
	check_wrong(&p, "../other:/home", FINDING_TYPED, "/home");
	check_wrong(&p, "../other:/root/.claude", FINDING_TYPED, "/root/.claude");
	check_wrong(&p, "/etc", FINDING_TYPED, "/etc");
	longer = xmalloc(5001);
	memset(longer, 'a', 5000);
	longer[0] = '/';
	longer[5000] = '\0';
	check_wrong(&p, longer, FINDING_WORLD, "too long");
	free(longer);
	files_sh(p.dir, "ln -s loop loop");
	check_wrong(&p, "../loop", FINDING_WORLD, "symbolic links");
	check_wrong(&p, "no\x1b[31m", FINDING_WORLD, "\\x1b");
	mount_done(&p.m);
	findings_done(&p.found);
	free(p.cwd);
	files_rm(p.dir);
}

TEST(together)
{
	struct mount v[MOUNTS_MAX + 1];
	struct findings found = { 0 };
	static char guests[MOUNTS_MAX + 1][16];

	for (size_t i = 0; i < MOUNTS_MAX + 1; i++) {
		(void)snprintf(guests[i], sizeof(guests[i]), "/g/%zu", i);
		v[i] = (struct mount){ .typed = guests[i], .host = guests[i], .guest = guests[i], .word = i };
	}
	mounts_check(v, MOUNTS_MAX, "/p", &found);
	CHECK_INT(found.n, ==, 0);
	mounts_check(v, MOUNTS_MAX + 1, "/p", &found);
	CHECK_INT(found.n, ==, 1);
	findings_done(&found);
	mounts_check(v, 3, "/g/1", &found);
	CHECK(found.n == 1 && strstr(found.v[0].text, "the project is at /g/1") && found.v[0].index == 1);
	findings_done(&found);
	v[2].guest = guests[0];
	mounts_check(v, 3, "/p", &found);
	CHECK(found.n == 1 && strstr(found.v[0].text, "--mount /g/0 is at /g/0"));
	findings_done(&found);
}
