#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "image/store.h"

#define REF "localhost/agent-vm:default"

static char root_path[] = "/tmp/agent-vm-test-XXXXXX";
static int root_fd;

static struct store setup(void)
{
	struct store s;
	struct err err;

	strcpy(strrchr(root_path, '-'), "-XXXXXX");
	CHECK(mkdtemp(root_path));
	root_fd = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(root_fd >= 0);
	CHECK_INT(store_open(root_fd, root_path, &s, &err), ==, 0);
	return s;
}

static void teardown(struct store *s)
{
	store_close(s);
	close(root_fd);
	CHECK_INT(file_remove_tree_at(AT_FDCWD, root_path), ==, 0);
}

static struct image_meta meta_of(const char *ref, char digit, uint32_t api)
{
	struct image_meta m = { .reference = ref, .api_version = api, .min_bytes = 4096, .architecture = "amd64" };

	memset(m.key, digit, IMAGE_HEX);
	return m;
}

/* Adds a disk of @size bytes; returns what store_add() returned. */
static int add(struct store *s, const char *ref, char digit, uint32_t api, off_t size, char was[IMAGE_HEX + 1])
{
	struct image_meta m = meta_of(ref, digit, api);
	struct strv env = { 0 };
	struct err err = { 0 };
	char *name = NULL;
	AUTO_FD(fd);
	int r;

	strv_add(&env, "LANG=C.UTF-8");
	m.env = &env;
	CHECK_INT(store_tmp(s, 0, &name, &fd, &err), ==, 0);
	CHECK_INT(ftruncate(fd, size), ==, 0);
	r = store_add(s, name, fd, &m, was, &err);
	strv_done(&env);
	free(name);
	return r;
}

static int count(int dir)
{
	char cmd[64];
	int n = -1;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "ls -A /proc/%d/fd/%d/ | wc -l", getpid(), dir);
	f = popen(cmd, "r");
	CHECK(f && fscanf(f, "%d", &n) == 1);
	pclose(f);
	return n;
}

TEST(what_was_added_is_found_with_all_it_says)
{
	struct store s = setup();
	char was[IMAGE_HEX + 1] = "x";
	struct image img;
	struct err err;
	struct stat st;

	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	CHECK_STR(was, "");
	CHECK_INT(store_find(&s, REF, &img, &err), ==, 0);
	CHECK_STR(img.reference, REF);
	CHECK_INT(img.size_bytes, ==, 8192);
	CHECK_INT(img.min_bytes, ==, 4096);
	CHECK_INT(img.api_version, ==, 1);
	CHECK_INT(img.env.n, ==, 1);
	CHECK_STR(img.env.v[0], "LANG=C.UTF-8");
	CHECK_STR(img.digest_short, "aaaaaaaaaaaa");
	CHECK_INT(stat(img.disk_path, &st), ==, 0);
	CHECK_INT(st.st_mode & 07777, ==, 0400);
	CHECK_INT(count(s.tmp), ==, 0);
	image_done(&img);
	teardown(&s);
}

TEST(an_image_that_is_missing_names_the_way_to_make_one)
{
	struct store s = setup();
	struct image img;
	struct err err;

	CHECK_INT(store_find(&s, NULL, &img, &err), ==, -ENOENT);
	CHECK(strstr(err.text, IMAGE_REF_DEFAULT) || strstr(err.text, "default"));
	CHECK(strstr(err.text, "agent-vm build"));
	CHECK_INT(store_find(&s, "example.com/x:y", &img, &err), ==, -ENOENT);
	CHECK(strstr(err.text, "image example.com/x:y: "));
	CHECK(strstr(err.text, "agent-vm build"));
	CHECK_INT(store_find(&s, "Upper/CASE", &img, &err), ==, -EINVAL);
	teardown(&s);
}

TEST(the_default_is_the_stored_default_reference_then_what_build_recorded)
{
	struct store s = setup();
	char was[IMAGE_HEX + 1];
	struct image img;
	struct err err;

	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	CHECK_INT(store_find(&s, "", &img, &err), ==, -ENOENT);
	CHECK_INT(store_set_default(&s, REF, &err), ==, 0);
	CHECK_INT(store_find(&s, "", &img, &err), ==, 0);
	CHECK_STR(img.reference, REF);
	image_done(&img);
	CHECK_INT(add(&s, IMAGE_REF_DEFAULT, 'b', 1, 8192, was), ==, 0);
	CHECK_INT(store_find(&s, NULL, &img, &err), ==, 0);
	CHECK_STR(img.reference, IMAGE_REF_DEFAULT);
	image_done(&img);
	teardown(&s);
}

TEST(a_disk_of_another_size_or_kind_is_refused)
{
	struct store s = setup();
	char was[IMAGE_HEX + 1], path[128];
	struct image img;
	struct err err;

	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	CHECK_INT(store_find(&s, REF, &img, &err), ==, 0);
	snprintf(path, sizeof(path), "%s", strrchr(img.disk_path, '/') + 1);
	CHECK_INT(truncate(img.disk_path, 4096), ==, 0);
	image_done(&img);
	CHECK_INT(store_find(&s, REF, &img, &err), ==, -EBADMSG);
	CHECK(strstr(err.text, "8192"));
	CHECK_INT(unlinkat(s.disks, path, 0), ==, 0);
	CHECK_INT(store_find(&s, REF, &img, &err), ==, -EBADMSG);
	CHECK_INT(symlinkat("/etc/passwd", s.disks, path), ==, 0);
	CHECK_INT(store_find(&s, REF, &img, &err), ==, -EBADMSG);
	teardown(&s);
}

TEST(json_is_read_strictly_and_a_newer_version_is_named)
{
	static const struct {
		const char *find, *put;
		int want;
	} cases[] = {
		{ "\"version\": 1", "\"version\": 2", -EPROTO },
		{ "\"version\": 1", "\"version\": 1, \"more\": 1", -EBADMSG },
		{ "\"version\": 1", "\"version\": \"1\"", -EBADMSG },
		{ "\"version\": 1", "\"version\": 1, \"version\": 1", -EBADMSG },
		{ "\"size\": 8192", "\"size\": -1", -EBADMSG },
		{ "\"size\": 8192", "\"siz\": 8192", -EBADMSG },
		{ "\"api_version\": 1", "\"api_version\": 2", -EPROTO },
		{ "\"api_version\": 1", "\"api_version\": 0", -EPROTO },
		{ "LANG=C.UTF-8", "LANG", -EBADMSG },
		{ "{", "", -EBADMSG },
		{ "}", "} x", -EBADMSG },
	};
	struct store s = setup();
	char was[IMAGE_HEX + 1], name[IMAGE_HEX + 8], *text = NULL;
	struct image img;
	struct err err;

	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	memset(name, 'a', IMAGE_HEX);
	strcpy(name + IMAGE_HEX, ".json");
	CHECK_INT(file_read_beneath(s.disks, name, 1 << 20, &text, NULL), ==, 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *at = strstr(text, cases[i].find), *bad;

		CHECK(at);
		bad = xasprintf("%.*s%s%s", (int)(at - text), text, cases[i].put, at + strlen(cases[i].find));
		CHECK_INT(file_replace_at(s.disks, name, bad, strlen(bad), 0600), ==, 0);
		if (store_find(&s, REF, &img, &err) != cases[i].want)
			fail_msg("case %zu: %s", i, err.text);
		free(bad);
	}
	CHECK_INT(file_replace_at(s.disks, name, text, strlen(text), 0600), ==, 0);
	CHECK_INT(store_find(&s, REF, &img, &err), ==, 0);
	image_done(&img);
	free(text);
	teardown(&s);
}

TEST(a_new_disk_replaces_the_old_one_which_stays_while_it_is_used)
{
	struct store s = setup();
	char was[IMAGE_HEX + 1], want[IMAGE_HEX + 1] = "";
	struct image held, img;
	struct err err;

	memset(want, 'a', IMAGE_HEX);
	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	CHECK_INT(store_find(&s, REF, &held, &err), ==, 0);
	CHECK_INT(add(&s, REF, 'b', 1, 8192, was), ==, 0);
	CHECK_STR(was, want);
	CHECK_INT(access(held.disk_path, F_OK), ==, 0);
	CHECK_INT(store_find(&s, REF, &img, &err), ==, 0);
	CHECK(img.digest[0] == 'b');
	image_done(&img);
	CHECK_INT(count(s.disks), ==, 4);
	/* given back: the next one who adds deletes it */
	image_done(&held);
	CHECK_INT(add(&s, REF, 'b', 1, 8192, was), ==, 0);
	CHECK(was[0] == 'b');
	CHECK_INT(count(s.disks), ==, 2);
	/* a disk with another name stays */
	CHECK_INT(add(&s, "localhost/other:x", 'b', 1, 8192, was), ==, 0);
	CHECK_INT(add(&s, REF, 'c', 1, 8192, was), ==, 0);
	CHECK_INT(store_find(&s, "localhost/other:x", &img, &err), ==, 0);
	image_done(&img);
	teardown(&s);
}

TEST(what_a_killed_maker_left_is_swept_and_what_a_live_one_makes_is_not)
{
	struct store s = setup();
	struct err err;
	char *one, *two;
	int fd, other;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		_exit(store_tmp(&s, 0, &one, &fd, &err) == 0 ? 0 : 1);
	}
	CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
	CHECK_INT(count(s.tmp), ==, 1);
	CHECK_INT(store_tmp(&s, 0, &one, &fd, &err), ==, 0);
	CHECK_INT(count(s.tmp), ==, 1);
	CHECK_INT(store_tmp(&s, 0, &two, &other, &err), ==, 0);
	CHECK_INT(count(s.tmp), ==, 2);
	store_tmp_drop(&s, one);
	store_tmp_drop(&s, two);
	close(fd);
	close(other);
	free(one);
	free(two);
	CHECK_INT(store_tmp(&s, UINT64_MAX, &one, &fd, &err), ==, -ENOSPC);
	CHECK(strstr(err.text, "are free and the image needs"));
	CHECK_INT(count(s.tmp), ==, 0);
	teardown(&s);
}

/* A child adds disks in turn and is killed at some moment; then the reference must name a whole disk. */
TEST(killed_anywhere_the_reference_names_a_whole_disk)
{
	struct store s = setup();
	char was[IMAGE_HEX + 1];
	struct image img;
	struct err err;

	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	for (int i = 0; i < 60; i++) {
		pid_t pid = fork();

		if (pid == 0)
			for (int k = 0;; k++)
				(void)add(&s, REF, "abcdef"[k % 6], 1, 8192, was);
		usleep(500 + 700 * (unsigned int)(i % 20));
		CHECK_INT(kill(pid, SIGKILL), ==, 0);
		CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
		if (store_find(&s, REF, &img, &err) != 0)
			fail_msg("round %d: %s", i, err.text);
		image_done(&img);
	}
	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	CHECK_INT(count(s.disks), ==, 2);
	CHECK_INT(count(s.tmp), ==, 0);
	teardown(&s);
}

TEST(two_who_add_and_one_who_reads_do_not_disturb_each_other)
{
	struct store s = setup();
	char was[IMAGE_HEX + 1];
	pid_t pids[2];
	struct image img;
	struct err err;
	int status;

	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	for (int i = 0; i < 2; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			for (int k = 0; k < 60; k++)
				if (add(&s, REF, "abcdef"[(k + i) % 6], 1, 8192, was) < 0)
					_exit(1);
			_exit(0);
		}
	}
	for (int k = 0; k < 300; k++) {
		if (store_find(&s, REF, &img, &err) != 0)
			fail_msg("reader %d: %s", k, err.text);
		image_done(&img);
	}
	for (int i = 0; i < 2; i++) {
		CHECK_INT(waitpid(pids[i], &status, 0), ==, pids[i]);
		CHECK_INT(status, ==, 0);
	}
	teardown(&s);
}

/* Of processor time: the wall clock also shows what else a machine does. */
TEST(finding_takes_less_than_five_milliseconds)
{
	struct store s = setup();
	char was[IMAGE_HEX + 1];
	struct image img;
	struct err err;
	clock_t began;
	double us;

	CHECK_INT(add(&s, REF, 'a', 1, 8192, was), ==, 0);
	began = clock();
	for (int i = 0; i < 100; i++) {
		CHECK_INT(store_find(&s, REF, &img, &err), ==, 0);
		image_done(&img);
	}
	us = (double)(clock() - began) / CLOCKS_PER_SEC * 1e6 / 100;
	print_message("store_find: %.0f us\n", us);
	/* In the emulated guest of `make demo` everything takes a multiple. */
	CHECK(us < (access("/agent-vm-state", F_OK) == 0 ? 50000 : 5000));
	teardown(&s);
}
