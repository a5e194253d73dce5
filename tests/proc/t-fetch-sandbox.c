/* The fetching half's sandbox: what must go on working does, and what a broken parser could reach for is refused. Each
 * forbidden thing is done once before the sandbox closes, where it must succeed: a test that passes with the hole open
 * would fail there. */
#include "../unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/blobs.h"
#include "image/fetch.h"
#include "sandbox/landlock.h"

struct world {
	char store[64], outside[64], file[96], layout[64];
	int store_fd, layout_fd, listener;
	struct blobs blobs;
	struct sockaddr_in at;
	pid_t other; /* a process of the same user */
};

static int open_secret(const struct world *w)
{
	int fd = open(w->file, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : close(fd);
}

static int write_outside(const struct world *w)
{
	AUTO_FREE(char, path);
	int fd;

	path = xasprintf("%s/new", w->outside);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : close(fd);
}

/* What a reference names, and the disk that is booted. */
static int write_refs(const struct world *w)
{
	int fd = openat(w->store_fd, "refs/new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : close(fd);
}

static int read_refs(const struct world *w)
{
	int fd = openat(w->store_fd, "refs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : close(fd);
}

static int move_blobs(const struct world *w)
{
	if (renameat(w->store_fd, "blobs", w->store_fd, "gone") < 0)
		return -errno;
	return renameat(w->store_fd, "gone", w->store_fd, "blobs") < 0 ? -errno : 0;
}

static int write_layout(const struct world *w)
{
	int fd = openat(w->layout_fd, "new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : close(fd);
}

static int local_socket(const struct world *w)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : close(fd);
}

static int listen_tcp(const struct world *w)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	AUTO_FD(fd);

	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, 1) < 0)
		return -errno;
	return 0;
}

/* vfork(2)-like: the exec is tried in a child that shares nothing. */
static int run_program(const struct world *w)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		(void)execl("/bin/true", "true", NULL);
		_exit(errno);
	}
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return -WEXITSTATUS(status);
}

static int exec_here(const struct world *w)
{
	/* Of a file that cannot be executed, so that the test lives on where it is allowed. */
	(void)execl(w->file, "x", NULL);
	return errno == EACCES ? 0 : -errno; /* EACCES: no x bit; EPERM: the filter */
}

static int signal_other(const struct world *w)
{
	return kill(w->other, 0) < 0 ? -errno : 0;
}

static int executable_memory(const struct world *w)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r = p == MAP_FAILED || mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0 ? -errno : 0;

	(void)munmap(p, 4096);
	return r;
}

/* At once, without a later mprotect(2). */
static int writable_executable_memory(const struct world *w)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? -errno : munmap(p, 4096);
}

static const struct {
	const char *what;
	int (*fn)(const struct world *w);
	bool landlock;
} forbidden[] = {
	{ "read a file of the user's", open_secret, true },
	{ "write elsewhere", write_outside, true },
	{ "write a reference", write_refs, true },
	{ "read references", read_refs, true },
	{ "rename blobs/", move_blobs, true },
	{ "write into the source", write_layout, true },
	{ "a local socket", local_socket, false },
	{ "listen", listen_tcp, false },
	{ "another process", run_program, false },
	{ "execute", exec_here, false },
	{ "signal another process", signal_other, false },
	{ "executable memory", executable_memory, false },
	{ "writable and executable memory", writable_executable_memory, false },
};

static void *nothing(void *p)
{
	return p;
}

/* Every way to say no: EPERM of the filter, EACCES of Landlock. */
static bool is_no(int r)
{
	return r == -EPERM || r == -EACCES;
}

#define NEED(cond)                                                                    \
	do {                                                                          \
		if (!(cond)) {                                                        \
			(void)dprintf(2, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #cond, strerror(errno)); \
			_exit(1);                                                     \
		}                                                                     \
	} while (0)

static void still_works(const struct world *w, bool with_store)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	struct stat st;
	pthread_t t;
	int fd, pair[2];

	if (with_store) {
		fd = openat(w->blobs.partial, "x", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		NEED(fd >= 0 && write(fd, "x", 1) == 1 && fsync(fd) == 0 && fchmod(fd, 0400) == 0);
		NEED(renameat(w->blobs.partial, "x", w->blobs.dir, "y") == 0 && unlinkat(w->blobs.dir, "y", 0) == 0);
		(void)close(fd);
	}
	fd = openat(w->layout_fd, "index.json", O_RDONLY | O_CLOEXEC);
	NEED(fd >= 0 && fstat(fd, &st) == 0);
	(void)close(fd);
	NEED(getaddrinfo("localhost", "80", &hints, &list) == 0);
	freeaddrinfo(list);
	NEED(pthread_create(&t, NULL, nothing, NULL) == 0 && pthread_join(t, NULL) == 0);
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	NEED(fd >= 0 && connect(fd, (const struct sockaddr *)&w->at, sizeof(w->at)) == 0);
	(void)close(fd);
}

static int write_blobs(const struct world *w)
{
	int fd = openat(w->blobs.partial, "new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : close(fd);
}

/* Without the store: the update check. */
static void in_child(const struct world *w, bool with_store)
{
	bool landlock = landlock_abi() >= 2; /* asked now: the filter refuses the question */
	struct err err;

	for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
		int r = forbidden[i].fn(w);

		if (r != 0) {
			(void)dprintf(2, "%s: not possible before the sandbox either: %s\n", forbidden[i].what, strerror(-r));
			_exit(1);
		}
	}
	still_works(w, true);
	if (fetch_sandbox(with_store ? &w->blobs : NULL, w->layout_fd, &err) < 0) {
		(void)dprintf(2, "%s\n", err.text);
		_exit(1);
	}
	still_works(w, with_store);
	if (!with_store && landlock && !is_no(write_blobs(w))) {
		(void)dprintf(2, "write a blob: not refused\n");
		_exit(1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
		int r;

		if (forbidden[i].landlock && !landlock)
			continue;
		r = forbidden[i].fn(w);
		if (!is_no(r)) {
			(void)dprintf(2, "%s: not refused: %d\n", forbidden[i].what, r);
			_exit(1);
		}
	}
	_exit(0);
}

static void make_world(struct world *w)
{
	socklen_t n = sizeof(w->at);
	int fd;

	(void)strcpy(w->store, "/tmp/t-fetch-store-XXXXXX");
	(void)strcpy(w->outside, "/tmp/t-fetch-outside-XXXXXX");
	(void)strcpy(w->layout, "/tmp/t-fetch-layout-XXXXXX");
	CHECK(mkdtemp(w->store) && mkdtemp(w->outside) && mkdtemp(w->layout));
	(void)snprintf(w->file, sizeof(w->file), "%s/secret", w->outside);
	fd = open(w->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	(void)close(fd);
	w->store_fd = open(w->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(blobs_open(w->store_fd, &w->blobs, NULL) == 0 && mkdirat(w->store_fd, "refs", 0700) == 0);
	w->layout_fd = open(w->layout, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = openat(w->layout_fd, "index.json", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	(void)close(fd);
	w->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	w->at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	CHECK(bind(w->listener, (struct sockaddr *)&w->at, sizeof(w->at)) == 0 && listen(w->listener, 8) == 0);
	CHECK(getsockname(w->listener, (struct sockaddr *)&w->at, &n) == 0);
	w->other = getpid();
}

static void drop_world(struct world *w)
{
	(void)close(w->store_fd);
	(void)close(w->layout_fd);
	(void)close(w->listener);
	blobs_close(&w->blobs);
	(void)file_remove_tree_at(AT_FDCWD, w->store);
	(void)file_remove_tree_at(AT_FDCWD, w->outside);
	(void)file_remove_tree_at(AT_FDCWD, w->layout);
}

static void run(bool with_store)
{
	struct world w;
	int status;
	pid_t pid;

	make_world(&w);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		in_child(&w, with_store);
	CHECK_INT(waitpid(pid, &status, 0), ==, pid);
	drop_world(&w);
	CHECK_INT(status, ==, 0);
}

TEST(the_sandbox_keeps_what_is_needed_and_refuses_the_rest)
{
	run(true);
}

TEST(the_update_check_has_no_store)
{
	run(false);
}
