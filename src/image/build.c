/* mmdebstrap | agent-vm-image unpack, and what is around them.
 *
 *	mmdebstrap --tar--> pipe --> agent-vm-image unpack --> a file in the store's tmp/ --> store_add()
 *	     stderr --> build.log and the progress shown        messages --> progress, diff_id, API version
 *
 * Both write at the same time: when the tar ends, the disk is all but done. mmdebstrap keeps its tree in TMPDIR and takes
 * it away when it is ended by SIGTERM; it is given a few seconds for that, because for an ordinary user the files in it
 * belong to sub-ids, which only it can remove.
 *
 * A failure has one cause and two processes that notice: a full disk is the unpacker's to tell, a tar that just ends is
 * mmdebstrap's. */
#include "image/build.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/distro.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/prog.h"
#include "image/debstrap.h"
#include "image/disk.h"
#include "image/role.h"
#include "proto/rec.h"

#define DISK_SLACK (256ULL << 20) /* least room that a guest gets besides the content */
#ifdef __aarch64__
#define ARCHITECTURE "arm64"
#else
#define ARCHITECTURE "amd64"
#endif
#define LINE_BYTES 4096
#define STOP_GRACE_MS 5000
#define PROGRESS_NS 100000000
#define APT_TIMEOUT_MS 10000

const char *const build_set_str[] = { [BUILD_MINIMAL] = "minimal", [BUILD_DEFAULT] = "default" };
static_assert(ARRAY_SIZE(build_set_str) == BUILD_SETS, "build_set_str[] is incomplete");

const char *const build_phase_str[] = { [BUILD_PACKAGES] = "packages", [BUILD_DISK] = "disk" };
static_assert(ARRAY_SIZE(build_phase_str) == BUILD_PHASES, "build_phase_str[] is incomplete");

/* Bytes of content, a little above what was measured; checked before anything is downloaded. */
static const uint64_t set_bytes[] = { [BUILD_MINIMAL] = 300000000, [BUILD_DEFAULT] = 800000000 };

/* Lines of a stream; one that is longer comes in pieces. */
struct lines {
	int fd; /* -1 at the end */
	size_t n;
	char mem[LINE_BYTES + 1];
};

struct build {
	const struct store *s;
	const struct build_args *args;
	void (*progress)(void *ctx, const struct build_progress *p);
	void *ctx;
	int stop_fd;
	int log_fd;
	struct debstrap_mirrors mirrors;
	pid_t debstrap;
	struct role role;
	struct lines from_debstrap;
	enum build_phase phase;
	int64_t phase_began, next_progress;
	uint64_t bytes; /* on the disk so far */
	char *last_error; /* of mmdebstrap, escaped */
	/* the role's last word */
	int role_errno;
	char *role_text;
	char *diff_id;
	uint64_t used;
	uint64_t has;
	uint32_t api_version;
	char api_found[IMAGE_API_FOUND];
};

static void tell(struct build *b, const char *what, bool ends)
{
	int64_t now = now_ns();

	if (!b->progress || (!ends && now < b->next_progress))
		return;
	b->next_progress = now + PROGRESS_NS;
	b->progress(b->ctx, &(struct build_progress){ b->phase, ends, b->bytes, what, (now - b->phase_began) / 1000000 });
}

static void phase_next(struct build *b)
{
	if (b->phase == BUILD_DISK)
		return;
	tell(b, NULL, true);
	b->phase = BUILD_DISK;
	b->phase_began = now_ns();
}

/* "I: ..." is what it does, "E: ..." why it stops; the rest is for the log. */
static void on_debstrap_line(struct build *b, char *line)
{
	size_t n = strlen(line);
	AUTO_FREE(char, shown);

	if (b->log_fd >= 0) {
		(void)fd_write_all(b->log_fd, line, n);
		(void)fd_write_all(b->log_fd, "\n", 1);
	}
	if (n < 3 || (memcmp(line, "I: ", 3) != 0 && memcmp(line, "E: ", 3) != 0))
		return;
	shown = str_escape(line + 3, n - 3);
	if (*line == 'I') {
		if (b->phase == BUILD_PACKAGES)
			tell(b, shown, false);
	} else if (!b->last_error) {
		b->last_error = TAKE_PTR(shown);
	}
}

static void on_role_message(struct build *b, const struct im *m)
{
	AUTO_FREE(char, name);
	struct span version;

	switch (m->type) {
	case IM_PROGRESS:
		name = im_str(m, IM_K_NAME);
		phase_next(b);
		b->bytes = im_u64(m, IM_K_BYTES);
		tell(b, name, false);
		break;
	case IM_LAYER_DONE:
		free(b->diff_id);
		b->diff_id = im_str(m, IM_K_DIFF_ID);
		break;
	case IM_DONE:
		b->used = im_u64(m, IM_K_USED);
		b->has = im_u64(m, IM_K_HAS);
		version = im_bytes(m, IM_K_VERSION);
		b->api_version = image_api_parse(version.p, version.n, b->api_found);
		break;
	default:
		break;
	}
}

/* One message of the role, or its end. */
static void role_read(struct build *b)
{
	static struct im m;
	struct err err = { 0 };
	int r;

	r = role_recv(&b->role, &m, &err);
	if (r == 1) {
		close_p(&m.fd);
		on_role_message(b, &m);
	} else if (r < 0) {
		b->role_errno = -r;
		b->role_text = xstrdup(err.text);
		role_end(&b->role);
	}
}

/* Read what mmdebstrap prints and hand whole lines on; at the end of the stream close it. */
static void lines_read(struct build *b, struct lines *l)
{
	char *from = l->mem, *nl;
	ssize_t k;

	k = read(l->fd, l->mem + l->n, LINE_BYTES - l->n);
	if (k < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (k > 0)
		l->n += (size_t)k;
	l->mem[l->n] = '\0';
	while ((nl = memchr(from, '\n', l->n - (size_t)(from - l->mem)))) {
		*nl = '\0';
		on_debstrap_line(b, from);
		from = nl + 1;
	}
	l->n -= (size_t)(from - l->mem);
	memmove(l->mem, from, l->n + 1);
	if (l->n == LINE_BYTES || (k <= 0 && l->n > 0)) {
		on_debstrap_line(b, l->mem);
		l->n = 0;
	}
	if (k <= 0) {
		(void)close(l->fd);
		l->fd = -1;
	}
}

static void find_mirrors(struct build *b)
{
	char *argv[] = { (char *)"apt-get", (char *)"indextargets", (char *)"--format", (char *)"$(SITE) $(RELEASE)", NULL };
	AUTO_FREE(char, path);
	AUTO_FREE(char, text);
	struct prog p = PROG_INIT;

	if (prog_find("apt-get", &path) < 0)
		return;
	p.path = path;
	p.argv = argv;
	if (prog_output(&p, 1 << 20, APT_TIMEOUT_MS, &text, NULL) == 0)
		debstrap_mirrors_parse(text, &b->mirrors);
}

/* Room that a folder's file system has for this user. */
static uint64_t room_in(const char *path)
{
	struct statvfs vfs;

	return statvfs(path, &vfs) == 0 && access(path, W_OK | X_OK) == 0 ? (uint64_t)vfs.f_bavail * vfs.f_frsize : 0;
}

/* Where mmdebstrap makes its tree: sub-ids must be able to enter it, so never below the state root. */
static int choose_tmp(struct prog *p, uint64_t need, struct err *err)
{
	const char *dirs[] = { getenv("TMPDIR"), "/tmp", "/var/tmp" };

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		if (dirs[i] && *dirs[i] == '/' && room_in(dirs[i]) >= need) {
			strv_addf(&p->env, "TMPDIR=%s", dirs[i]);
			return 0;
		}
	return err_set(err, -ENOSPC, "/tmp and /var/tmp: %llu MB are needed while the image is made and neither has them; free some, or set TMPDIR to a folder that all may enter",
		       (unsigned long long)need / 1000000);
}

/* Files made during the build get this time at most: with the same packages a second build on the same day gives the
 * same bytes. */
static uint64_t build_epoch(void)
{
	const char *given = getenv("SOURCE_DATE_EPOCH");
	uint64_t t;

	if (given && str_u64(given, INT32_MAX, &t) == 0)
		return t;
	t = (uint64_t)time(NULL);
	return t - t % 86400;
}

/* The tar is a layer without a size and without digests. */
static int start_role(struct build *b, int tar, int disk, uint64_t disk_bytes, struct err *err)
{
	struct buf m;
	int r;

	r = role_start(b->args->image_role, "unpack", b->log_fd, -1, NULL, &b->role, err);
	if (r < 0)
		return r;
	im_begin(&m, IM_DISK);
	(void)rec_put_u64(&m, IM_K_BYTES, disk_bytes);
	(void)rec_put_u64(&m, IM_K_LAYERS, 1);
	(void)rec_put_u64(&m, IM_K_EPOCH, 0);
	r = role_send(&b->role, &m, disk, err);
	if (r < 0)
		return r;
	im_begin(&m, IM_LAYER);
	(void)rec_put_u64(&m, IM_K_LAYER, 0);
	(void)rec_put_u64(&m, IM_K_COMPRESSION, IM_PLAIN);
	return role_send(&b->role, &m, tar, err);
}

static int start_debstrap(struct build *b, int tar, uint64_t epoch, struct err *err)
{
	AUTO_FREE(char, path);
	struct strv argv = { 0 };
	struct prog p = PROG_INIT;
	int log[2], r;

	if (prog_find("mmdebstrap", &path) < 0) {
		AUTO_FREE(char, how);

		how = distro_install("mmdebstrap", "mmdebstrap", "mmdebstrap");
		return err_set(err, -ENOENT, "mmdebstrap: not installed; %s", how);
	}
	r = choose_tmp(&p, set_bytes[b->args->set] * 3 / 2, err);
	if (r == 0 && pipe2(log, O_CLOEXEC) < 0)
		r = err_set(err, -errno, "pipe: %s", strerror(errno));
	if (r < 0) {
		strv_done(&p.env);
		return r;
	}
	debstrap_argv(b->args->set, &b->args->include, &b->mirrors, geteuid() == 0, &argv);
	strv_addf(&p.env, "SOURCE_DATE_EPOCH=%llu", (unsigned long long)epoch);
	p.path = path;
	p.argv = argv.v;
	p.out = tar;
	p.errfd = log[1];
	b->from_debstrap.fd = log[0];
	r = prog_start(&p, &b->debstrap, err);
	(void)close(log[1]);
	strv_done(&argv);
	strv_done(&p.env);
	return r;
}

/* Until both have closed their streams. 0, or -EINTR. */
static int watch(struct build *b)
{
	while (b->from_debstrap.fd >= 0 || b->role.fd >= 0) {
		struct pollfd pfd[] = {
			{ .fd = b->stop_fd, .events = POLLIN },
			{ .fd = b->from_debstrap.fd, .events = POLLIN },
			{ .fd = b->role.fd, .events = POLLIN },
		};

		if (poll(pfd, ARRAY_SIZE(pfd), 1000) < 0 && errno != EINTR)
			return -errno;
		if (pfd[0].revents)
			return -EINTR;
		if (pfd[1].revents)
			lines_read(b, &b->from_debstrap);
		if (pfd[2].revents)
			role_read(b);
		/* With its reader gone mmdebstrap would go on for nothing. */
		if (b->from_debstrap.fd >= 0 && b->role_text) {
			(void)prog_stop(b->debstrap, STOP_GRACE_MS);
			b->debstrap = 0;
			(void)close(b->from_debstrap.fd);
			b->from_debstrap.fd = -1;
		}
		tell(b, NULL, false);
	}
	return 0;
}

static int judge(struct build *b, int debstrap_status, struct err *err)
{
	bool stream_broke = b->role_text && b->role_errno == EBADMSG;

	if (b->role_text && !(stream_broke && debstrap_status != 0))
		return err_set(err, -b->role_errno, "%s", b->role_text);
	if (debstrap_status != 0)
		return err_set(err, -EIO, "mmdebstrap: %s; all it said is in %s/build.log",
			       b->last_error ? b->last_error : "failed without a word", b->s->path);
	if (!b->diff_id || b->api_version < IMAGE_API_MIN || b->api_version > IMAGE_API_MAX)
		return err_set(err, -EPROTO, "the image that was made has no API version; see %s/build.log", b->s->path);
	return 0;
}

/* Run both to their end; no child lives afterwards. */
static int run(struct build *b, int disk, uint64_t disk_bytes, struct err *err)
{
	uint64_t epoch = build_epoch();
	int tar[2], r, debstrap_status = 0;

	if (pipe2(tar, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	(void)fcntl(tar[1], F_SETPIPE_SZ, 1 << 20); /* fewer turns between the two; a refusal costs little */
	b->phase_began = now_ns();
	r = start_role(b, tar[0], disk, disk_bytes, err);
	if (r == 0)
		r = start_debstrap(b, tar[1], epoch, err);
	(void)close(tar[0]);
	(void)close(tar[1]);
	if (r == 0) {
		r = watch(b);
		if (r < 0)
			(void)err_set(err, r, "%s", r == -EINTR ? "stopped; nothing was stored" : strerror(-r));
	}
	if (b->debstrap > 0)
		debstrap_status = r < 0 ? prog_stop(b->debstrap, STOP_GRACE_MS) : prog_wait(b->debstrap);
	role_end(&b->role);
	close_p(&b->from_debstrap.fd);
	return r < 0 ? r : judge(b, debstrap_status, err);
}

static int store_it(struct build *b, const char *ref, const char *tmp_name, int disk, uint64_t disk_bytes,
		    struct build_result *ret, struct err *err)
{
	struct image_meta meta = { .reference = ref, .api_version = b->api_version, .api_found = b->api_found,
				   .has_known = true, .has = b->has, .architecture = ARCHITECTURE };
	char diff_ids[1][IM_DIGEST + 1];
	struct stat st;
	int r;

	memcpy(diff_ids[0], b->diff_id, sizeof(diff_ids[0]));
	disk_key(disk_bytes, (const char(*)[IM_DIGEST + 1])diff_ids, 1, meta.key);
	meta.min_bytes = MIN(b->used + DISK_SLACK, disk_bytes);
	if (fstat(disk, &st) < 0)
		return err_set(err, -errno, "disk image: %s", strerror(errno));
	r = store_add(b->s, tmp_name, disk, &meta, ret->was, err);
	if (r < 0)
		return r;
	memcpy(ret->digest, meta.key, sizeof(ret->digest));
	ret->disk_allocated = (uint64_t)st.st_blocks * 512;
	if (store_has(b->s, NULL))
		return 0;
	ret->now_default = true;
	return store_set_default(b->s, ref, err);
}

int image_build(const struct store *s, const struct build_args *args,
		void (*progress)(void *ctx, const struct build_progress *p), void *ctx, int stop_fd,
		struct build_result *ret, struct err *err)
{
	uint64_t disk_bytes = args->disk_bytes ? args->disk_bytes : DISK_BYTES;
	struct build b = { .s = s, .args = args, .progress = progress, .ctx = ctx, .stop_fd = stop_fd,
			   .log_fd = -1, .from_debstrap.fd = -1, .role = ROLE_INIT };
	struct build_result res = { 0 };
	AUTO_FREE(char, ref);
	AUTO_FREE(char, given);
	AUTO_FREE(char, tmp_name);
	AUTO_FD(disk);
	int64_t began = now_ns();
	int r;

	for (size_t i = 0; i < args->include.n; i++) {
		r = debstrap_package_check(args->include.v[i], err);
		if (r < 0)
			return r;
	}
	given = args->reference ? xstrdup(args->reference) : xasprintf("localhost/agent-vm:%s", build_set_str[args->set]);
	r = ref_normalise(given, &ref, err);
	if (r < 0)
		return r;
	r = store_tmp(s, set_bytes[args->set] + DISK_SLACK, &tmp_name, &disk, err);
	if (r < 0)
		return r;
	b.log_fd = openat(s->fd, "build.log", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	find_mirrors(&b);
	r = run(&b, disk, disk_bytes, err);
	if (r == 0) {
		phase_next(&b);
		r = store_it(&b, ref, tmp_name, disk, disk_bytes, &res, err);
		b.bytes = res.disk_allocated;
		tell(&b, NULL, true);
	} else {
		store_tmp_drop(s, tmp_name);
	}
	debstrap_mirrors_done(&b.mirrors);
	close_p(&b.log_fd);
	free(b.last_error);
	free(b.role_text);
	free(b.diff_id);
	if (r < 0)
		return r;
	res.reference = TAKE_PTR(ref);
	res.elapsed_ms = (now_ns() - began) / 1000000;
	*ret = res;
	return 0;
}
