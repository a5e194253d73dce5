/* The agent's stream at our end: stdin, stdout, stderr, the terminal. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/run_priv.h"
#include "proto/rec.h"

#define SINK_MAX (2 * CTL_WINDOW)

static bool in_foreground(void)
{
	return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* The table of spec/cli.md section 14. */
static void local_stdin_plan(struct run *r, bool *ret_pty, bool *ret_forward)
{
	bool in_tty = isatty(STDIN_FILENO), out_tty = isatty(STDOUT_FILENO);
	int flags = fcntl(STDIN_FILENO, F_GETFL);

	*ret_pty = in_tty && out_tty && in_foreground();
	if (*ret_pty)
		*ret_forward = true;
	else if (flags < 0 || (flags & O_ACCMODE) == O_WRONLY)
		*ret_forward = false; /* closed: main.c */
	else if (in_tty)
		*ret_forward = r->spec.stdin_forward && in_foreground();
	else
		*ret_forward = true;
}

static int put_exec(struct run *r, struct stream *s, bool pty, bool forward)
{
	struct buf *out = &r->port.out;
	ssize_t at = ctl_begin(out, CTL_EXEC, 0, s->id);
	int bad = at < 0;

	for (size_t i = 0; !bad && i < r->spec.argv->n; i++)
		bad = rec_put_str(out, CTL_K_ARG, r->spec.argv->v[i]) < 0;
	for (size_t i = 0; !bad && r->spec.env && i < r->spec.env->n; i++)
		bad = rec_put_str(out, CTL_K_ENV, r->spec.env->v[i]) < 0;
	if (!bad && r->spec.cwd)
		bad = rec_put_str(out, CTL_K_CWD, r->spec.cwd) < 0;
	if (!bad && pty) {
		struct term_size size = term_size(STDIN_FILENO);
		const uint16_t le[4] = { size.rows, size.cols, size.xpixel, size.ypixel };
		const char *term = getenv("TERM");

		bad = rec_put_str(out, CTL_K_PTY, term && *term && strcmp(term, "dumb") != 0 ? term : "xterm") < 0 ||
		      rec_put(out, CTL_K_SIZE, le, sizeof(le)) < 0;
	} else if (!bad) {
		bad = rec_put_u64(out, CTL_K_STDIN, forward ? CTL_STDIN_PIPE : CTL_STDIN_NULL) < 0;
	}
	if (bad || out->n - (size_t)at > CTL_RECS_MAX)
		return -E2BIG;
	ctl_end(out, (size_t)at);
	return 0;
}

int local_start(struct run *r, struct err *err)
{
	struct stream *s = run_stream_new(r, STREAM_LOCAL);
	bool pty, forward;
	int k;

	local_stdin_plan(r, &pty, &forward);
	k = put_exec(r, s, pty, forward);
	if (k < 0)
		return err_set(err, k, "arguments and environment: longer than %d MiB; give them in a file",
			       CTL_RECS_MAX >> 20);
	r->local.stream = s;
	r->local.pty = pty;
	sink_open(&r->local.out[0], STDOUT_FILENO, SINK_MAX);
	sink_open(&r->local.out[1], STDERR_FILENO, SINK_MAX);
	for (uint16_t i = 0; i < 2; i++)
		if (!r->local.out[i].gone)
			(void)ev_watch(&r->ev, r->local.out[i].fd, 0, EV_SINK, i, 0);
	if (pty && (k = term_raw(STDIN_FILENO)) < 0)
		return err_set(err, k, "terminal: cannot be set to raw mode: %s", strerror(-k));
	r->local.stdin_open = forward;
	s->tx_eof = !forward;
	if (forward) {
		k = ev_watch(&r->ev, STDIN_FILENO, EPOLLIN, EV_STDIN, 0, 0);
		r->local.stdin_watched = k == 0;
		r->local.stdin_always = k == -EPERM; /* a regular file, or /dev/null */
	}
	return 0;
}

static void stdin_end(struct run *r)
{
	struct stream *s = r->local.stream;

	if (r->local.stdin_watched)
		ev_unwatch(&r->ev, STDIN_FILENO);
	r->local.stdin_watched = r->local.stdin_always = r->local.stdin_open = false;
	if (s && !s->tx_eof && ctl_put(&r->port.out, CTL_EOF, 0, s->id, NULL, 0) == 0)
		s->tx_eof = true;
}

void local_stdin(struct run *r)
{
	struct stream *s = r->local.stream;
	uint8_t bytes[CTL_DATA_MAX];
	ssize_t n;

	if (!s || !r->local.stdin_open || s->tx.left == 0 || link_busy(&r->port))
		return;
	n = read(STDIN_FILENO, bytes, MIN(sizeof(bytes), (size_t)s->tx.left));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		/* EIO: the terminal went away, or we are in the background; SIGHUP says the rest. */
		stdin_end(r);
		return;
	}
	s->tx.left -= (uint32_t)n;
	(void)ctl_put(&r->port.out, CTL_DATA, 0, s->id, bytes, (size_t)n);
}

static void sink_pump(struct run *r, unsigned i)
{
	struct sink *k = &r->local.out[i];
	struct stream *s = r->local.stream;
	size_t done = sink_flush(k);
	uint32_t give;

	if (s && done > 0) {
		give = ctl_credit_free(&s->rx[i], done);
		if (give > 0 && !s->rx_eof[i] && !s->reader_gone[i])
			(void)ctl_put_u32(&r->port.out, CTL_CREDIT, (uint8_t)(i + 1), s->id, give);
	}
	if (s && k->gone && !s->reader_gone[i] && !s->rx_eof[i]) {
		s->reader_gone[i] = true;
		(void)ctl_put(&r->port.out, CTL_EOF, (uint8_t)(i + 1), s->id, NULL, 0);
	}
	if (!k->always && k->waiting != (k->q.n > 0)) {
		k->waiting = k->q.n > 0;
		(void)ev_watch(&r->ev, k->fd, k->waiting ? EPOLLOUT : 0, EV_SINK, (uint16_t)i, 0);
	}
	/* An end that hung up would be reported again and again. */
	if (k->gone)
		ev_unwatch(&r->ev, k->fd);
}

void local_pump(struct run *r)
{
	struct stream *s = r->local.stream;
	bool want;

	for (unsigned i = 0; i < 2; i++)
		if (r->local.out[i].fd >= 0 && (r->local.out[i].q.n > 0 || r->local.out[i].waiting ||
						r->local.out[i].hup))
			sink_pump(r, i);
	if (!s || !r->local.stdin_open)
		return;
	want = s->tx.left > 0 && !link_busy(&r->port);
	if (r->local.stdin_always) {
		while (want && r->local.stdin_open) {
			local_stdin(r);
			want = s->tx.left > 0 && !link_busy(&r->port);
		}
	} else if (want != r->local.stdin_watched) {
		if (want)
			(void)ev_watch(&r->ev, STDIN_FILENO, EPOLLIN, EV_STDIN, 0, 0);
		else
			ev_unwatch(&r->ev, STDIN_FILENO);
		r->local.stdin_watched = want;
	}
}

int local_data(struct run *r, unsigned channel, struct span bytes)
{
	struct sink *k = &r->local.out[channel - 1];

	if (r->times.first_byte == 0)
		r->times.first_byte = now_ns();
	return buf_put(&k->q, bytes.p, bytes.n) < 0 ? -EBADMSG : 0;
}

void local_exit(struct run *r, uint32_t how, uint32_t value, struct span text)
{
	AUTO_FREE(char, s);

	r->local.exited = true;
	r->local.stream = NULL;
	r->times.exit = now_ns();
	if (r->local.stdin_open)
		stdin_end(r);
	if (how == CTL_EXIT_CODE)
		r->local.status = (int)(value & 0xff);
	else if (how == CTL_EXIT_SIGNAL)
		r->local.status = 128 + (int)(value & 0x7f);
	else
		r->local.status = value == ENOENT || value == ENOTDIR ? 127 : 126;
	if (how != CTL_EXIT_ERRNO)
		return;
	s = str_escape(text.p, text.n);
	(void)snprintf(r->exit_text, sizeof(r->exit_text), "%s", s);
}

bool local_drained(const struct run *r)
{
	return r->local.out[0].q.n == 0 && r->local.out[1].q.n == 0;
}

void local_resize(struct run *r)
{
	struct term_size size;
	uint16_t le[4];

	if (!r->local.stream || !r->local.pty)
		return;
	size = term_size(STDIN_FILENO);
	memcpy(le, (uint16_t[]){ size.rows, size.cols, size.xpixel, size.ypixel }, sizeof(le));
	(void)ctl_put(&r->port.out, CTL_RESIZE, 0, r->local.stream->id, le, sizeof(le));
}

void local_close(struct run *r)
{
	for (unsigned i = 0; i < 2; i++) {
		if (r->local.out[i].fd < 0)
			continue;
		ev_unwatch(&r->ev, r->local.out[i].fd);
		sink_close(&r->local.out[i]);
	}
}
