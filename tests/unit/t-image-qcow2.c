/* The overlay is judged by QEMU's own tools: they read, check and write what we made. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/str.h"
#include "image/qcow2.h"

#define GIB (1ULL << 30)

static char dir_path[] = "/tmp/agent-vm-test-XXXXXX";

static int dir_new(void)
{
	int fd;

	strcpy(strrchr(dir_path, '-'), "-XXXXXX");
	CHECK(mkdtemp(dir_path));
	fd = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static void dir_done(int fd)
{
	close(fd);
	CHECK_INT(file_remove_tree_at(AT_FDCWD, dir_path), ==, 0);
}

/* Run a command line in the folder; what it printed is returned, its success is asserted. */
static char *tool(const char *line)
{
	char *cmd = xasprintf("cd %s && %s 2>&1", dir_path, line), *out = xcalloc(1, 8192);
	FILE *f = popen(cmd, "r");

	CHECK(f);
	out[fread(out, 1, 8191, f)] = '\0';
	if (pclose(f) != 0)
		fail_msg("%s: %s", line, out);
	free(cmd);
	return out;
}

/* QEMU's tools are on every machine that runs `make check`; in the guest of `make demo` they are not. */
static void need_qemu(void)
{
	if (access("/usr/bin/qemu-img", X_OK) < 0 && access("/agent-vm-state", F_OK) == 0)
		skip();
}

static void base_new(int dir, uint64_t size)
{
	AUTO_FD(fd);

	fd = openat(dir, "base.ext4", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_INT(ftruncate(fd, (off_t)size), ==, 0);
	CHECK_INT(pwrite(fd, "from.the.image", 14, 1 << 20), ==, 14);
}

TEST(qemu_finds_the_overlay_sound_at_every_size)
{
	static const uint64_t sizes[] = { 512, 1 << 20, 512ULL << 20, (512ULL << 20) + 512, 16 * GIB, 4096 * GIB,
					  QCOW2_SIZE_MAX };
	struct err err;

	need_qemu();
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		int dir = dir_new();
		char *out, *want;

		base_new(dir, 2 << 20);
		CHECK_INT(qcow2_create(dir, "disk.qcow2", sizes[i], "base.ext4", &err), ==, 0);
		out = tool("qemu-img check disk.qcow2");
		CHECK(strstr(out, "No errors were found"));
		free(out);
		out = tool("qemu-img info --output=json disk.qcow2");
		want = xasprintf("\"virtual-size\": %llu", (unsigned long long)sizes[i]);
		CHECK(strstr(out, want));
		CHECK(strstr(out, "\"backing-filename\": \"base.ext4\""));
		CHECK(strstr(out, "\"backing-filename-format\": \"raw\""));
		CHECK(strstr(out, "\"cluster-size\": 65536"));
		CHECK(strstr(out, "\"compat\": \"1.1\""));
		free(want);
		free(out);
		dir_done(dir);
	}
}

TEST(reads_come_from_the_image_and_writes_stay_in_the_overlay)
{
	struct err err;
	char *out, got[14];
	int dir, base;

	need_qemu();
	dir = dir_new();
	base_new(dir, 2 << 20);
	CHECK_INT(qcow2_create(dir, "disk.qcow2", 16 * GIB, "base.ext4", &err), ==, 0);
	out = tool("qemu-io -f qcow2 disk.qcow2 -c 'read -v 1048576 14'");
	CHECK(strstr(out, "from.the.image"));
	free(out);
	/* beyond the image: zeros; then writes at both ends, and far apart so that tables and counts grow */
	free(tool("qemu-io -f qcow2 disk.qcow2 -c 'read -P 0 8G 64k' -c 'write -P 0x5a 1M 4k' -c 'write -P 0x66 17179865088 4k'"));
	free(tool("qemu-io -f qcow2 disk.qcow2 -c 'read -P 0x5a 1M 4k' -c 'read -P 0x66 17179865088 4k' -c 'read -P 0 1052672 4k'"));
	out = tool("qemu-img check disk.qcow2");
	CHECK(strstr(out, "No errors were found"));
	free(out);
	base = openat(dir, "base.ext4", O_RDONLY | O_CLOEXEC);
	CHECK_INT(pread(base, got, 14, 1 << 20), ==, 14);
	CHECK(memcmp(got, "from.the.image", 14) == 0);
	close(base);
	dir_done(dir);
}

TEST(an_overlay_is_small_quick_and_private)
{
	int dir = dir_new();
	mode_t old = umask(0);
	struct err err;
	struct stat st;
	int64_t t = INT64_MAX;

	/* The quickest of many: the rest is what else the machine does. */
	for (int i = 0; i < 100; i++) {
		int64_t began = now_ns();
		char name[16];

		snprintf(name, sizeof(name), "d%d", i);
		CHECK_INT(qcow2_create(dir, name, 16 * GIB, "base.ext4", &err), ==, 0);
		t = MIN(t, now_ns() - began);
	}
	print_message("one overlay: %lld us\n", (long long)t / 1000);
	CHECK_INT(t, <, 1000000);
	CHECK_INT(fstatat(dir, "d0", &st, 0), ==, 0);
	CHECK_INT(st.st_mode & 07777, ==, 0600);
	CHECK_INT(st.st_size, ==, 4 * 65536);
	CHECK_INT(st.st_blocks * 512, <=, 64 * 1024);
	umask(old);
	dir_done(dir);
}

TEST(bad_sizes_names_and_existing_files_are_refused)
{
	int dir = dir_new();
	char name[QCOW2_BACKING_MAX + 2];
	struct err err;

	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	CHECK_INT(qcow2_create(dir, "d", 0, "b", &err), ==, -EINVAL);
	CHECK_INT(qcow2_create(dir, "d", 513, "b", &err), ==, -EINVAL);
	CHECK_INT(qcow2_create(dir, "d", QCOW2_SIZE_MAX + 512, "b", &err), ==, -EINVAL);
	CHECK_INT(qcow2_create(dir, "d", 512, "", &err), ==, -EINVAL);
	CHECK_INT(qcow2_create(dir, "d", 512, name, &err), ==, -EINVAL);
	CHECK_INT(faccessat(dir, "d", F_OK, 0), ==, -1);
	name[QCOW2_BACKING_MAX] = '\0';
	CHECK_INT(qcow2_create(dir, "d", 512, name, &err), ==, 0);
	CHECK_INT(qcow2_create(dir, "d", 512, "b", &err), ==, -EEXIST);
	dir_done(dir);
}
