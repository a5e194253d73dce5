/* The host's side of a guest program that runs as an ordinary process: the real loop behind a socketpair, everything but
 * the mounts. Streams are a fixed table; credit is given back as bytes are counted unless a test holds it. */
#pragma once

#include "../unit/test.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/macros.h"
#include "guest/guest.h"
#include "proto/rec.h"

#define HS_MAX 80
#define HS_KEEP 65536 /* first bytes of a channel that are kept */
#define S_NS ((int64_t)1000000000)

struct hs {
	bool open, started, exited, hold; /* hold: gives no credit back */
	uint32_t pid, how, value;
	char text[CTL_TEXT_MAX + 1];
	char out[2][HS_KEEP + 1];
	uint64_t n[2], sum[2];
	bool eof[2];
	struct ctl_credit tx, rx[2];
	uint32_t file_mode;
	uint64_t file_size, puts_sum, to_send;
	int order; /* position of its EXIT among all frames */
};

struct host {
	int fd;
	pid_t pid;
	struct buf in, out;
	struct hs *s; /* by stream number */
	int frames, pongs;
	uint64_t pong;
	bool hello, ready, bye, gone, failed, lax; /* lax: the test breaks the rules of credit itself */
	char text[CTL_TEXT_MAX + 1], log[CTL_TEXT_MAX + 1];
};

static int test_configure(struct guest *g, struct span config, struct buf *ready, struct err *err)
{
	return config.n == 3 ? err_set(err, -EINVAL, "the test wants it to fail") : guest_put_phase(ready, "mounts", 1, 2);
}

static void test_clock(struct guest *g, uint64_t ns)
{
}

static void host_start_bare(struct host *h)
{
	static const struct guest_ops ops = {
		.configure = test_configure, .spawn = spawn, .kill = kill, .set_clock = test_clock
	};
	int sv[2];

	*h = (struct host){ 0 };
	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), ==, 0);
	h->s = calloc(HS_MAX, sizeof(*h->s));
	buf_init(&h->in, 8 << 20);
	buf_init(&h->out, 64 << 20);
	h->pid = fork();
	if (h->pid == 0) {
		static struct guest g;
		struct guest_phase phase = { "kernel", 0, 5 };
		int r;

		(void)alarm(600);
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
		(void)close(sv[0]);
		if (guest_init(&g, &ops, sv[1]) < 0)
			_exit(99);
		guest_hello(&g, &phase, 1);
		r = guest_serve(&g);
		streams_done(&g);
		guest_put(&g, CTL_BYE, 0, 0, NULL, 0);
		(void)port_drain(&g.port, now_ns() + S_NS);
		_exit(r < 0 ? 98 : g.port.lost ? 3 : 0);
	}
	(void)close(sv[1]);
	h->fd = sv[0];
	CHECK_INT(fd_nonblock(h->fd, true), ==, 0);
}

static void host_frame(struct host *h, const struct ctl_frame *f)
{
	struct span in = f->payload, val;
	struct hs *s = f->stream < HS_MAX ? &h->s[f->stream] : NULL;
	size_t c = f->channel > 0 ? f->channel - 1 : 0, keep;
	uint16_t key;
	uint32_t u32;

	h->frames++;
	if (f->stream != 0)
		CHECK(s && s->open && !s->exited);
	switch (f->type) {
	case CTL_HELLO:
		CHECK_INT(h->frames, ==, 1);
		CHECK(span_u32(&in, &u32) == 0 && u32 == CTL_MAGIC);
		h->hello = true;
		break;
	case CTL_READY:
		h->ready = true;
		break;
	case CTL_FAIL:
		h->failed = true;
		CHECK_INT(rec_next(&in, &key, &val), ==, 1);
		memcpy(h->text, val.p, val.n);
		break;
	case CTL_LOG:
		memcpy(h->log, in.p + 1, in.n - 1);
		break;
	case CTL_BYE:
		h->bye = true;
		break;
	case CTL_PONG:
		h->pongs++;
		(void)span_u64(&in, &h->pong);
		break;
	case CTL_STARTED:
		CHECK_INT(s->n[0] + s->n[1], ==, 0);
		s->started = true;
		(void)span_u32(&in, &s->pid);
		break;
	case CTL_FILE:
		s->started = true;
		(void)span_u32(&in, &s->file_mode);
		(void)span_u64(&in, &s->file_size);
		break;
	case CTL_DATA:
		CHECK(s->started && !s->eof[c]);
		CHECK_INT(ctl_credit_use(&s->rx[c], in.n), ==, 0);
		keep = s->n[c] < HS_KEEP ? MIN(in.n, (size_t)(HS_KEEP - s->n[c])) : 0;
		if (keep > 0)
			memcpy(s->out[c] + s->n[c], in.p, keep);
		s->n[c] += in.n;
		for (size_t i = 0; i < in.n; i++)
			s->sum[c] = s->sum[c] * 31 + in.p[i];
		u32 = s->hold ? 0 : ctl_credit_free(&s->rx[c], in.n);
		if (u32 > 0)
			CHECK_INT(ctl_put_u32(&h->out, CTL_CREDIT, f->channel, f->stream, u32), ==, 0);
		break;
	case CTL_EOF:
		CHECK(!s->eof[c]);
		s->eof[c] = true;
		break;
	case CTL_CREDIT:
		(void)span_u32(&in, &u32);
		CHECK(h->lax || ctl_credit_add(&s->tx, u32) == 0);
		break;
	case CTL_EXIT:
		s->exited = true;
		s->order = h->frames;
		(void)span_u32(&in, &s->how);
		(void)span_u32(&in, &s->value);
		memcpy(s->text, in.p, in.n);
		s->text[in.n] = '\0';
		break;
	default:
		fail_msg("frame %s", ctl_type_str(f->type));
	}
}

/* Writes, reads, handles; waits for at most @ms. */
static void host_turn(struct host *h, int ms)
{
	struct pollfd p = { .fd = h->fd, .events = POLLIN | (h->out.n > 0 ? POLLOUT : 0) };
	struct ctl_frame f;
	size_t used;
	ssize_t k;

	if (h->gone)
		return;
	(void)poll(&p, 1, ms);
	if (h->out.n > 0) {
		k = send(h->fd, buf_span(&h->out).p, h->out.n, MSG_NOSIGNAL);
		if (k > 0)
			buf_consume(&h->out, (size_t)k);
	}
	k = read(h->fd, buf_room(&h->in, 1 << 17), 1 << 17);
	if (k > 0)
		buf_grew(&h->in, (size_t)k);
	else if (k == 0 || (errno != EAGAIN && errno != EINTR))
		h->gone = true;
	for (;;) {
		int r = ctl_decode(&h->in, CTL_SIDE_HOST, &f, &used);

		CHECK_INT(r, >=, 0);
		if (r == 0)
			return;
		host_frame(h, &f);
		buf_consume(&h->in, used);
	}
}

#define HOST_UNTIL(h, cond, seconds)                                                       \
	do {                                                                               \
		int64_t end_ = now_ns() + (seconds) * S_NS;                                \
		while (!(cond)) {                                                          \
			if (now_ns() > end_ || (h)->gone)                                  \
				fail_msg("%s:%d: did not happen: %s%s", __FILE__, __LINE__, #cond, (h)->gone ? " (guest is gone)" : ""); \
			host_turn(h, 20);                                                  \
		}                                                                          \
	} while (0)

static void host_start(struct host *h)
{
	host_start_bare(h);
	CHECK_INT(ctl_put(&h->out, CTL_CONFIG, 0, 0, NULL, 0), ==, 0);
	HOST_UNTIL(h, h->hello && h->ready, 20);
}

/* Ends it, whatever state it is in; returns its exit status. */
static int host_stop(struct host *h)
{
	int status;

	(void)close(h->fd);
	CHECK_INT(waitpid(h->pid, &status, 0), ==, h->pid);
	buf_done(&h->in);
	buf_done(&h->out);
	free(h->s);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#define HX_PTY 1
#define HX_STDIN 2

static struct hs *hs_open(struct host *h, uint32_t id)
{
	struct hs *s = &h->s[id];

	CHECK(!s->open);
	*s = (struct hs){ .open = true, .tx = CTL_CREDIT_INIT, .rx = { CTL_CREDIT_INIT, CTL_CREDIT_INIT } };
	return s;
}

static struct hs *host_exec(struct host *h, uint32_t id, int how, const char *cwd, const char *const *argv)
{
	struct hs *s = hs_open(h, id);
	ssize_t at = ctl_begin(&h->out, CTL_EXEC, 0, id);

	CHECK(at > 0);
	for (; *argv; argv++)
		(void)rec_put_str(&h->out, CTL_K_ARG, *argv);
	(void)rec_put_str(&h->out, CTL_K_ENV, "PATH=/usr/bin:/bin");
	(void)rec_put_str(&h->out, CTL_K_ENV, "TERM=none-of-yours");
	if (cwd)
		(void)rec_put_str(&h->out, CTL_K_CWD, cwd);
	if (how & HX_PTY) {
		uint8_t size[8] = { 33, 0, 99, 0 };

		(void)rec_put_str(&h->out, CTL_K_PTY, "xterm");
		(void)rec_put(&h->out, CTL_K_SIZE, size, sizeof(size));
	} else {
		(void)rec_put_u64(&h->out, CTL_K_STDIN, how & HX_STDIN ? CTL_STDIN_PIPE : CTL_STDIN_NULL);
	}
	ctl_end(&h->out, (size_t)at);
	return s;
}

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define SH(line) ARGV("sh", "-c", line)

static inline struct hs *host_run(struct host *h, uint32_t id, int how, const char *const *argv)
{
	struct hs *s = host_exec(h, id, how, NULL, argv);

	HOST_UNTIL(h, s->exited, 20);
	return s;
}

static inline void host_send(struct host *h, uint32_t id, const char *text)
{
	h->s[id].tx.left -= (uint32_t)strlen(text);
	CHECK_INT(ctl_put(&h->out, CTL_DATA, 0, id, text, strlen(text)), ==, 0);
}

static inline void host_eof(struct host *h, uint32_t id)
{
	CHECK_INT(ctl_put(&h->out, CTL_EOF, 0, id, NULL, 0), ==, 0);
}
