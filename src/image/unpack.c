/* The role: three threads.
 *
 *	control		blocks on the control socket: layers, their growth; ends the process when the launcher is gone
 *	layers		reads, checks, decompresses (layer.c)
 *	main		tar to disk (untar.c), answers
 *
 * Order of things: IM_DISK comes first and is the launcher's own word; then the sandbox closes; only then is a byte of an
 * image read. From there on the process can read what it was given, write the one file, and answer. */
#include "image/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/layer.h"
#include "image/untar.h"
#include "proto/imagemsg.h"
#include "proto/rec.h"
#include "sandbox/landlock.h"
#include "sandbox/seccomp.h"

#define PROGRESS_NS 100000000
#define DISK_MIN (8ULL << 20)
#define DISK_MAX (1ULL << 44) /* 16 TiB: block numbers of an extent's file fit */
#define CPU_S 1800 /* some twenty times what 64 GiB take */
#define FILES_MAX (IM_LAYERS_MAX + 32)

/* Address space: the tree's 1 GiB, its index, a zstd window, threads. The address sanitizer reserves terabytes. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED
#endif
#ifdef SANITIZED
#define MEMORY_MAX 0
#else
#define MEMORY_MAX (4ULL << 30)
#endif

struct unpack {
	struct layers *layers;
	unsigned int n;
	int disk_fd;
	uint64_t disk_bytes;
	int64_t epoch;
	/* main thread */
	unsigned int current;
	int64_t next_progress;
};

/* --- sandbox --- */

#define OK(call) { .name = call, .what = SECCOMP_ALLOW }
#define OK_IF(call, n, m, v) { .name = call, .what = SECCOMP_ALLOW, .arg = n, .mask = m, .value = v }
#define NO(call) { .name = call, .what = SECCOMP_EPERM }

#define U32 UINT64_C(0xffffffff) /* arguments of type int: the upper half is undefined */

static const struct seccomp_row rows[] = {
	/* Memory. */
	OK_IF("mmap", 2, PROT_EXEC, 0), OK_IF("mprotect", 2, PROT_EXEC, 0), OK("munmap"), OK("mremap"), OK("madvise"), OK("brk"),
	/* Threads that run already, and their end. */
	OK("futex"), OK("sched_yield"), OK("exit"), OK("exit_group"), OK("rt_sigprocmask"), OK("rt_sigreturn"),
	OK("restart_syscall"), OK("gettid"), OK("getpid"), OK("rt_sigaction"), OK("set_robust_list"), OK("rseq"),
	/* Bytes of what is open. */
	OK("read"), OK("pread64"), OK("write"), OK("pwrite64"), OK("lseek"), OK("close"), OK("fstat"), OK("ftruncate"),
	OK("fallocate"), OK("fsync"), OK("recvmsg"), OK("sendmsg"), OK_IF("fcntl", 1, U32, F_GETFL), OK_IF("fcntl", 1, U32, F_GETFD),
	OK_IF("fcntl", 1, U32, F_DUPFD_CLOEXEC),
	OK_IF("newfstatat", 3, 0x1000, 0x1000 /* AT_EMPTY_PATH: how the C library calls fstat() */),
	/* Time for progress and the log; qsort() asks how much memory there is. */
	OK("clock_gettime"), OK("gettimeofday"), OK("getrandom"), OK("sysinfo"),
	/* Only asked, by the address sanitizer when a thread begins (the control thread may still do so) and a process ends. */
	OK("sched_getaffinity"), OK_IF("sigaltstack", 0, UINT64_MAX, 0),
	/* libext2fs looks who runs it, on what, and whether its file is a device. */
	OK("getuid"), OK("geteuid"), OK("getgid"), OK("getegid"), OK("uname"), OK_IF("prctl", 0, U32, PR_GET_DUMPABLE), NO("ioctl"),
#ifdef SANITIZED
	OK("sigaltstack"), OK("sched_getaffinity"), OK("readlink"), OK("readlinkat"),
#endif
};

static const struct seccomp_table table = { .role = "unpack", .otherwise = SECCOMP_KILL, .rows = rows,
					    .n_rows = ARRAY_SIZE(rows) };

static int limit(int what, const char *name, rlim_t to, struct err *err)
{
	struct rlimit l;

	if (getrlimit(what, &l) < 0)
		return err_set(err, -errno, "%s: %s", name, strerror(errno));
	l.rlim_max = MIN(l.rlim_max, to);
	l.rlim_cur = l.rlim_max;
	if (what == RLIMIT_CPU && l.rlim_cur > 10)
		l.rlim_cur -= 10; /* SIGXCPU first, which says what it was */
	if (setrlimit(what, &l) < 0)
		return err_set(err, -errno, "%s: %s", name, strerror(errno));
	return 0;
}

int unpack_confine(uint64_t disk_bytes, struct err *err)
{
	AUTO_FD(rules);
	int r;

	r = limit(RLIMIT_FSIZE, "RLIMIT_FSIZE", disk_bytes, err);
	if (r == 0)
		r = limit(RLIMIT_CORE, "RLIMIT_CORE", 0, err);
	if (r == 0)
		r = limit(RLIMIT_CPU, "RLIMIT_CPU", CPU_S, err);
	if (r == 0)
		r = limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", FILES_MAX, err);
	if (r == 0 && MEMORY_MAX > 0)
		r = limit(RLIMIT_AS, "RLIMIT_AS", MEMORY_MAX, err);
	if (r < 0)
		return r;
	(void)signal(SIGXFSZ, SIG_IGN);
	(void)signal(SIGPIPE, SIG_IGN);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_set(err, -errno, "prctl: %s", strerror(errno));
	r = landlock_new(&rules, err);
	if (r == -EOPNOTSUPP) {
		log_info("%s", err->text);
		return 0;
	}
	return r < 0 ? r : landlock_enforce(rules, err);
}

int unpack_seal(struct err *err)
{
	/* abort() */
	struct seccomp_row self = OK_IF("tgkill", 0, U32, (uint64_t)getpid());

	return seccomp_apply(&table, &self, 1, err);
}

/* --- answers --- */

static void send_error(int r, const char *why)
{
	AUTO_FREE(char, text);
	struct buf b;

	text = str_escape(why, strlen(why));
	log_error("%s", text);
	im_begin(&b, IM_ERROR);
	(void)rec_put_u64(&b, IM_K_ERRNO, (uint64_t)-r);
	(void)rec_put_str(&b, IM_K_TEXT, text);
	(void)im_send(IM_FD_CONTROL, &b, -1);
}

static void on_progress(void *ctx, const char *name)
{
	struct unpack *u = ctx;
	int64_t now = now_ns();
	struct buf b;

	if (now < u->next_progress)
		return;
	u->next_progress = now + PROGRESS_NS;
	im_begin(&b, IM_PROGRESS);
	(void)rec_put_u64(&b, IM_K_LAYER, u->current);
	(void)rec_put_u64(&b, IM_K_BYTES, layers_consumed(u->layers));
	(void)rec_put_str(&b, IM_K_NAME, name);
	(void)im_send(IM_FD_CONTROL, &b, -1);
}

static int send_layer_done(struct unpack *u)
{
	const struct layer_end *end = layers_ended(u->layers);
	struct buf b;

	im_begin(&b, IM_LAYER_DONE);
	(void)rec_put_u64(&b, IM_K_LAYER, u->current);
	(void)rec_put_str(&b, IM_K_DIFF_ID, end->diff_id);
	(void)rec_put_u64(&b, IM_K_BYTES, end->bytes);
	return im_send(IM_FD_CONTROL, &b, -1);
}

static int send_done(const struct untar_result *res)
{
	struct buf b;

	im_begin(&b, IM_DONE);
	(void)rec_put_u64(&b, IM_K_ENTRIES, res->entries);
	(void)rec_put_u64(&b, IM_K_USED, res->used_bytes);
	if (res->has_version)
		(void)rec_put(&b, IM_K_VERSION, res->version, res->n_version);
	(void)rec_put_u64(&b, IM_K_HAS, res->has);
	return im_send(IM_FD_CONTROL, &b, -1);
}

/* --- orders --- */

static void copy_digest(const struct im *m, enum im_key key, char ret[IM_DIGEST + 1])
{
	struct span v = im_bytes(m, key);

	memcpy(ret, v.p, v.n);
	ret[v.n] = '\0';
}

static int on_layer(struct unpack *u, const struct im *m, struct err *err)
{
	struct layer_spec spec = {
		.fd = m->fd,
		.compression = (enum im_compression)im_u64(m, IM_K_COMPRESSION),
		.sized = im_has(m, IM_K_BYTES),
		.bytes = im_u64(m, IM_K_BYTES),
	};

	if (m->fd < 0)
		return err_set(err, -EBADMSG, "layer without a descriptor");
	copy_digest(m, IM_K_BLOB, spec.blob);
	copy_digest(m, IM_K_DIFF_ID, spec.diff_id);
	return layers_add(u->layers, (unsigned int)im_u64(m, IM_K_LAYER), &spec, err);
}

static int on_order(struct unpack *u, const struct im *m, struct err *err)
{
	switch (m->type) {
	case IM_LAYER:
		return on_layer(u, m, err);
	case IM_GROWN:
		return layers_grown(u->layers, (unsigned int)im_u64(m, IM_K_LAYER), im_u64(m, IM_K_BYTES), err);
	default:
		return err_set(err, -EBADMSG, "message %d where none of its kind may come", (int)m->type);
	}
}

static void *control(void *arg)
{
	static struct im m;
	struct unpack *u = arg;
	struct err err = { 0 };
	int r;

	while ((r = im_recv(IM_FD_CONTROL, IM_TO_UNPACK, &m)) == 1) {
		r = on_order(u, &m, &err);
		if (r < 0)
			break;
	}
	if (r < 0) {
		if (!err.text[0])
			(void)err_set(&err, r, "control socket: %s", strerror(-r));
		send_error(r, err.text);
	}
	_exit(1);
}

/* --- main thread --- */

static int get_disk(struct unpack *u, struct err *err)
{
	static struct im m;
	struct stat st;
	int r;

	r = im_recv(IM_FD_CONTROL, IM_TO_UNPACK, &m);
	if (r <= 0 || m.type != IM_DISK)
		return err_set(err, r < 0 ? r : -EPROTO, "control socket: the first message is not the disk");
	u->disk_fd = m.fd;
	u->disk_bytes = im_u64(&m, IM_K_BYTES);
	u->epoch = (int64_t)im_u64(&m, IM_K_EPOCH);
	u->n = (unsigned int)im_u64(&m, IM_K_LAYERS);
	if (u->n == 0)
		return err_set(err, -EBADMSG, "image: it has no layers; use another one");
	if (u->disk_bytes < DISK_MIN || u->disk_bytes > DISK_MAX || u->disk_bytes % 4096 != 0)
		return err_set(err, -EINVAL, "disk image: %llu bytes are no size for one", (unsigned long long)u->disk_bytes);
	if (fstat(u->disk_fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != 0 ||
	    (fcntl(u->disk_fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		return err_set(err, -EINVAL, "disk image: not an empty file that can be read and written");
	return 0;
}

/* Libraries read files at their first use: that must be over before the sandbox closes. */
static int warm_up(struct err *err)
{
	uint8_t sum[EVP_MAX_MD_SIZE];
	unsigned int n;

	/* Without TZ the C library looks at /etc/localtime for each line of the log. */
	(void)setenv("TZ", "UTC0", 1);
	tzset();
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return err_set(err, -ENOENT, "locale C.UTF-8: not there; it is part of the C library's package");
	if (EVP_Digest("", 0, sum, &n, EVP_sha256(), NULL) != 1)
		return err_set(err, -EIO, "OpenSSL: has no SHA-256");
	return 0;
}

static int close_up(struct unpack *u, struct err *err)
{
	pthread_t thread;
	int r;

	r = warm_up(err);
	if (r == 0)
		r = unpack_confine(u->disk_bytes, err);
	if (r < 0)
		return r;
	u->layers = layers_new(u->n, LAYERS_BYTES_MAX);
	r = layers_start(u->layers);
	if (r == 0)
		r = -pthread_create(&thread, NULL, control, u);
	if (r < 0)
		return err_set(err, r, "thread: %s", strerror(-r));
	return unpack_seal(err);
}

static int unpack(struct unpack *u, struct err *err)
{
	static char diff_ids[IM_LAYERS_MAX][IM_DIGEST + 1];
	struct untar_result res;
	struct untar *t;
	int r;

	r = untar_new(u->layers, u->disk_fd, u->disk_bytes, u->epoch, on_progress, u, &t, err);
	for (u->current = 0; r == 0 && u->current < u->n; u->current++) {
		r = untar_layer(t, err);
		if (r < 0)
			break;
		memcpy(diff_ids[u->current], layers_ended(u->layers)->diff_id, IM_DIGEST + 1);
		r = send_layer_done(u);
	}
	if (r == 0)
		r = untar_finish(t, (const char(*)[IM_DIGEST + 1])diff_ids, u->n, &res, err);
	return r < 0 ? r : send_done(&res);
}

int unpack_main(void)
{
	struct unpack u = { .disk_fd = -1 };
	struct err err = { 0 };
	int r;

	log_open("unpack", IM_FD_LOG, LOG_LV_INFO);
	r = get_disk(&u, &err);
	if (r == 0)
		r = close_up(&u, &err);
	if (r == 0)
		r = unpack(&u, &err);
	if (r < 0)
		send_error(r, err.text[0] ? err.text : strerror(-r));
	/* Nothing is left to free that the end does not; the other threads are in the middle of things. */
	_exit(r < 0 ? 1 : 0);
}
