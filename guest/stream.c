/* The table of streams.
 *
 * Towards the guest: DATA goes to the process at once if it takes it, else into the stream's buffer, which the credit
 * bounds to CTL_WINDOW. Credit goes back when the process has taken the bytes, or when nobody will.
 *
 * Towards the host: epoll reports a descriptor once (EPOLLONESHOT) and it becomes ready; streams_pump() goes around the
 * ready channels, one piece each, while the port's queue is short and the channel has credit; a read that finds nothing
 * arms epoll again. So a flood waits in its own pipe, and the turn goes on where it was left, whoever floods.
 *
 * The end: when a process died, the kernel tells how much it left in its pipes (FIONREAD). That much is sent, then EXIT;
 * what children of it add later is not waited for. A pty has no such count: reading it until EAGAIN or EIO is exact,
 * because the read itself waits for what is on its way between the two sides (n_tty_read() flushes the work queue).
 *
 * All memory is fixed but for the buffers of channel 0: at most CTL_STREAMS_MAX times twice CTL_WINDOW. */
#include "guest/stream.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#include "base/macros.h"
#include "guest/guest.h"

#define PUMP_PIECES 16			 /* a turn of the loop; between turns the host's frames are looked at */
#define PTY_DREG (128 << 10)		 /* more than the kernel holds between the sides of a pty */
#define GIVE_UP_NS (2 * (int64_t)1000000000) /* CLOSE: from SIGHUP to SIGKILL */

static struct stream *stream_by_id(struct guest *g, uint32_t id)
{
	for (size_t i = 0; i < ARRAY_SIZE(g->streams); i++)
		if (g->streams[i].id == id)
			return &g->streams[i];
	return NULL;
}

static uint16_t slot_of(const struct guest *g, const struct stream *s)
{
	return (uint16_t)(s - g->streams);
}

static struct stream *stream_at(struct guest *g, unsigned int slot, uint32_t id)
{
	struct stream *s = slot < ARRAY_SIZE(g->streams) ? &g->streams[slot] : NULL;

	return s && id != 0 && s->id == id ? s : NULL;
}

/* Stops watching first: the file may be open elsewhere, and then epoll would go on reporting it. */
static void drop_fd(struct guest *g, int *fd)
{
	if (*fd >= 0) {
		ev_unwatch(&g->ev, *fd);
		(void)close(*fd);
	}
	*fd = -1;
}

static void stream_free(struct guest *g, struct stream *s)
{
	drop_fd(g, &s->status_fd);
	drop_fd(g, &s->in_fd);
	drop_fd(g, &s->out[0].fd);
	drop_fd(g, &s->out[1].fd);
	buf_done(&s->in);
	s->id = 0;
}

void streams_init(struct guest *g)
{
	for (size_t i = 0; i < ARRAY_SIZE(g->streams); i++)
		g->streams[i] = (struct stream){ .status_fd = -1, .in_fd = -1, .out = { { .fd = -1 }, { .fd = -1 } } };
}

void streams_done(struct guest *g)
{
	for (size_t i = 0; i < ARRAY_SIZE(g->streams); i++)
		if (g->streams[i].id != 0)
			stream_free(g, &g->streams[i]);
}

static void put_exit(struct guest *g, uint32_t id, enum ctl_exit how, uint32_t value, const char *text)
{
	size_t n = strnlen(text, NOTE_TEXT_MAX);
	uint8_t p[8 + NOTE_TEXT_MAX];

	for (size_t i = 0; i < 4; i++) {
		p[i] = (uint8_t)((uint32_t)how >> (8 * i));
		p[4 + i] = (uint8_t)(value >> (8 * i));
	}
	memcpy(p + 8, text, n);
	guest_put(g, CTL_EXIT, 0, id, p, 8 + n);
}

static void put_exit_of(struct guest *g, const struct stream *s)
{
	if (s->error != 0)
		put_exit(g, s->id, CTL_EXIT_ERRNO, (uint32_t)s->error, s->text);
	else if (s->how == CLD_EXITED)
		put_exit(g, s->id, CTL_EXIT_CODE, (uint32_t)s->status & 0xff, "");
	else
		put_exit(g, s->id, CTL_EXIT_SIGNAL, (uint32_t)s->status, "");
}

static void out_end(struct guest *g, struct stream *s, size_t i)
{
	drop_fd(g, &s->out[i].fd);
	s->out[i].ready = s->out[i].armed = false;
	guest_put(g, CTL_EOF, (uint8_t)(i + 1), s->id, NULL, 0);
}

/* EXIT, once the process is dead and what it left is sent. */
static void stream_try_end(struct guest *g, struct stream *s)
{
	if (!s->dead)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(s->out); i++)
		if (s->out[i].fd >= 0 && s->out[i].dreg > 0 && !s->given_up && s->started)
			return;
	for (size_t i = 0; i < ARRAY_SIZE(s->out); i++)
		if (s->out[i].fd >= 0 && s->started)
			out_end(g, s, i);
	put_exit_of(g, s);
	stream_free(g, s);
}

static void arm_out(struct guest *g, struct stream *s, size_t i)
{
	struct stream_out *o = &s->out[i];

	if (o->fd < 0 || o->armed || o->ready || !s->started)
		return;
	if (ev_watch(&g->ev, o->fd, EPOLLIN | EPOLLONESHOT, i == 0 ? EV_OUT : EV_ERR, slot_of(g, s), s->id) == 0)
		o->armed = true;
	else
		o->ready = true; /* reading it says what is the matter */
}

static void stream_started(struct guest *g, struct stream *s)
{
	s->started = true;
	if (s->kind == SPAWN_EXEC || s->kind == SPAWN_DIAL) {
		uint32_t pid = (uint32_t)s->pid;
		uint8_t le[4] = { (uint8_t)pid, (uint8_t)(pid >> 8), (uint8_t)(pid >> 16), (uint8_t)(pid >> 24) };

		guest_put(g, CTL_STARTED, 0, s->id, le, sizeof(le));
	}
	for (size_t i = 0; i < ARRAY_SIZE(s->out); i++)
		arm_out(g, s, i);
}

static void stream_note(struct guest *g, struct stream *s, const struct spawn_note *note)
{
	uint8_t p[12];

	if (note->kind == NOTE_FAIL && s->error == 0) {
		s->error = note->error > 0 ? note->error : EIO;
		memcpy(s->text, note->text, sizeof(s->text));
		s->text[sizeof(s->text) - 1] = '\0';
	} else if (note->kind == NOTE_FILE && s->kind == SPAWN_GET && !s->started) {
		for (size_t i = 0; i < 4; i++)
			p[i] = (uint8_t)(note->mode >> (8 * i));
		for (size_t i = 0; i < 8; i++)
			p[4 + i] = (uint8_t)(note->size >> (8 * i));
		guest_put(g, CTL_FILE, 0, s->id, p, sizeof(p));
		stream_started(g, s);
	}
}

static void read_status(struct guest *g, struct stream *s)
{
	struct spawn_note note;
	ssize_t k;

	/* At most two notes: FILE and FAIL. Each was one write below PIPE_BUF, so none comes in parts. */
	while (s->status_fd >= 0) {
		k = read(s->status_fd, &note, sizeof(note));
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && errno == EAGAIN)
			return;
		if (k == (ssize_t)sizeof(note)) {
			stream_note(g, s, &note);
			continue;
		}
		drop_fd(g, &s->status_fd);
		if (s->error == 0 && !s->started && s->kind != SPAWN_GET)
			stream_started(g, s);
	}
}

void stream_on_status(struct guest *g, unsigned int slot, uint32_t id)
{
	struct stream *s = stream_at(g, slot, id);

	if (s)
		read_status(g, s);
}

static int stream_open(struct guest *g, const struct ctl_frame *f)
{
	enum spawn_kind kind = f->type == CTL_EXEC ? SPAWN_EXEC : f->type == CTL_PUT ? SPAWN_PUT :
			      f->type == CTL_DIAL ? SPAWN_DIAL : SPAWN_GET;
	struct stream *s = stream_by_id(g, 0);
	struct spawn_req req;
	struct spawned p;
	char text[128];
	int r;

	if (f->stream <= g->last_id)
		return -EBADMSG;
	r = spawn_parse(kind, f->payload, &req);
	if (r == -EBADMSG)
		return r;
	g->last_id = f->stream;
	if (r == 0) {
		r = s ? g->ops->spawn(&req, &p) : -EMFILE;
		if (r < 0)
			(void)snprintf(text, sizeof(text), "%s: cannot be started: %s", req.pty ? "terminal or process" : "process",
				       s ? strerror(-r) : "too many run at one time");
		if (r == 0)
			*s = (struct stream){ .id = f->stream, .kind = kind, .pid = p.pid, .pty = req.pty,
					      .status_fd = p.status, .in_fd = p.in, .rx = CTL_CREDIT_INIT,
					      .out = { { .fd = p.out, .tx = CTL_CREDIT_INIT },
						       { .fd = p.err, .tx = CTL_CREDIT_INIT } } };
		spawn_req_done(&req);
	} else {
		(void)snprintf(text, sizeof(text), "process: cannot be started: out of memory");
	}
	if (r < 0) {
		put_exit(g, f->stream, CTL_EXIT_ERRNO, (uint32_t)-r, text);
		return 0;
	}
	buf_init(&s->in, CTL_WINDOW);
	g->childless = false;
	if (ev_watch(&g->ev, s->status_fd, EPOLLIN, EV_STATUS, slot_of(g, s), s->id) < 0)
		guest_log(g, LOG_LV_ERROR, "stream %u: its start cannot be watched", s->id);
	return 0;
}

/* The receiver's half of channel 0: @n bytes are passed on, or discarded. */
static void in_passed(struct guest *g, struct stream *s, size_t n)
{
	uint32_t give = ctl_credit_free(&s->rx, n);
	uint8_t le[4] = { (uint8_t)give, (uint8_t)(give >> 8), (uint8_t)(give >> 16), (uint8_t)(give >> 24) };

	if (give > 0)
		guest_put(g, CTL_CREDIT, 0, s->id, le, sizeof(le));
}

/* Nobody reads any more: what is held goes, and the host is not kept waiting. */
static void in_discard(struct guest *g, struct stream *s)
{
	size_t n = s->in.n;

	drop_fd(g, &s->in_fd);
	s->in_armed = false;
	buf_done(&s->in);
	if (n > 0)
		in_passed(g, s, n);
}

/* Return: bytes that the process took, 0 if it takes none now, negative if it never will. */
static ssize_t in_write(const struct stream *s, const void *p, size_t n)
{
	ssize_t k = write(s->in_fd, p, n);

	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return k;
}

static void in_pass(struct guest *g, struct stream *s)
{
	if (s->in.n > 0) {
		struct span held = buf_span(&s->in);
		ssize_t k = in_write(s, held.p, held.n);

		if (k < 0) {
			in_discard(g, s);
			return;
		}
		if (k > 0) {
			buf_consume(&s->in, (size_t)k);
			in_passed(g, s, (size_t)k);
		}
	}
	if (s->in.n > 0) {
		if (!s->in_armed && ev_watch(&g->ev, s->in_fd, EPOLLOUT, EV_IN, slot_of(g, s), s->id) < 0)
			in_discard(g, s);
		else
			s->in_armed = true;
		return;
	}
	if (s->in_armed)
		ev_unwatch(&g->ev, s->in_fd);
	s->in_armed = false;
	/* The end of what is typed at a terminal is a character, which the host sends if it means it. */
	if (s->in_eof && !s->pty)
		drop_fd(g, &s->in_fd);
}

void stream_on_in(struct guest *g, unsigned int slot, uint32_t id)
{
	struct stream *s = stream_at(g, slot, id);

	if (s && s->in_fd >= 0)
		in_pass(g, s);
}

static int stream_data(struct guest *g, struct stream *s, struct span data)
{
	ssize_t k = 0;

	if (s->in_eof || ctl_credit_use(&s->rx, data.n) < 0)
		return -EBADMSG;
	if (s->in_fd >= 0 && s->in.n == 0)
		k = in_write(s, data.p, data.n);
	if (s->in_fd >= 0 && k < 0)
		in_discard(g, s);
	if (s->in_fd < 0) {
		in_passed(g, s, data.n);
		return 0;
	}
	if (k > 0)
		in_passed(g, s, (size_t)k);
	if ((size_t)k < data.n && buf_put(&s->in, data.p + k, data.n - (size_t)k) < 0) {
		guest_log(g, LOG_LV_ERROR, "stream %u: out of memory for its input, which ends here", s->id);
		in_passed(g, s, data.n - (size_t)k);
		in_discard(g, s);
		return 0;
	}
	in_pass(g, s);
	return 0;
}

/* To the foreground group of the terminal, else to the group that the process leads. */
static void stream_signal(struct guest *g, struct stream *s, int sig)
{
	pid_t group = 0;

	if (s->dead)
		return;
	if (s->pty && s->out[0].fd >= 0 && ioctl(s->out[0].fd, TIOCGPGRP, &group) == 0 && group > 1) {
		(void)g->ops->kill(-group, sig);
		return;
	}
	/* Between fork and setsid there is no such group yet. */
	if (s->pid > 1 && g->ops->kill(-s->pid, sig) < 0)
		(void)g->ops->kill(s->pid, sig);
}

static void stream_kill(struct guest *g, struct stream *s, int sig)
{
	stream_signal(g, s, sig);
	if (!s->dead && s->pty && s->pid > 1)
		(void)g->ops->kill(-s->pid, sig);
}

static void stream_give_up(struct guest *g, struct stream *s, int64_t now)
{
	if (s->given_up)
		return;
	s->given_up = true;
	s->kill_ns = now + GIVE_UP_NS;
	/* The signal comes before the end of its input, so that a PUT cannot take that for the end of the file. */
	stream_kill(g, s, SIGHUP);
	stream_kill(g, s, SIGCONT);
	in_discard(g, s);
	drop_fd(g, &s->out[0].fd);
	drop_fd(g, &s->out[1].fd);
	stream_try_end(g, s);
}

int stream_frame(struct guest *g, const struct ctl_frame *f, int64_t now)
{
	struct span in = f->payload;
	struct stream *s;
	struct winsize w;
	uint32_t v = 0;

	if (f->type == CTL_EXEC || f->type == CTL_PUT || f->type == CTL_GET || f->type == CTL_DIAL)
		return stream_open(g, f);
	if (f->stream > g->last_id)
		return -EBADMSG;
	s = stream_by_id(g, f->stream);
	if (!s)
		return 0; /* was under way when the stream ended */
	switch (f->type) {
	case CTL_DATA:
		return stream_data(g, s, f->payload);
	case CTL_EOF:
		if (f->channel != 0) {
			/* Nobody reads it any more: the writer gets SIGPIPE. A PTY stays; it is the terminal. */
			if (!s->pty && s->started && s->out[f->channel - 1].fd >= 0)
				out_end(g, s, f->channel - 1);
			return 0;
		}
		if (s->in_eof)
			return -EBADMSG;
		s->in_eof = true;
		if (s->in_fd >= 0)
			in_pass(g, s);
		return 0;
	case CTL_CREDIT:
		(void)span_u32(&in, &v);
		return ctl_credit_add(&s->out[f->channel - 1].tx, v);
	case CTL_RESIZE:
		(void)span_u16(&in, &w.ws_row);
		(void)span_u16(&in, &w.ws_col);
		(void)span_u16(&in, &w.ws_xpixel);
		(void)span_u16(&in, &w.ws_ypixel);
		if (s->pty && s->out[0].fd >= 0)
			(void)ioctl(s->out[0].fd, TIOCSWINSZ, &w);
		return 0;
	case CTL_SIGNAL:
		(void)span_u32(&in, &v);
		if (v == 0 || v >= NSIG)
			return -EBADMSG;
		stream_signal(g, s, (int)v);
		return 0;
	case CTL_CLOSE:
		stream_give_up(g, s, now);
		return 0;
	default:
		return -EBADMSG;
	}
}

void stream_on_out(struct guest *g, unsigned int slot, unsigned int channel, uint32_t id)
{
	struct stream *s = stream_at(g, slot, id);

	if (!s || s->out[channel].fd < 0)
		return;
	s->out[channel].armed = false;
	s->out[channel].ready = true;
}

static int stream_of(const struct guest *g, pid_t pid)
{
	for (size_t i = 0; i < ARRAY_SIZE(g->streams); i++)
		if (g->streams[i].id != 0 && g->streams[i].pid == pid && !g->streams[i].dead)
			return (int)i;
	return -1;
}

bool stream_is_of(const struct guest *g, pid_t pid)
{
	return stream_of(g, pid) >= 0;
}

void stream_on_death(struct guest *g, pid_t pid, int how, int status)
{
	int slot = stream_of(g, pid), left;
	struct stream *s;

	if (slot < 0)
		return;
	s = &g->streams[slot];
	read_status(g, s);
	s->dead = true;
	s->how = how;
	s->status = status;
	s->kill_ns = 0;
	in_discard(g, s);
	for (size_t i = 0; i < ARRAY_SIZE(s->out); i++) {
		struct stream_out *o = &s->out[i];

		if (o->fd < 0)
			continue;
		left = 0;
		if (s->pty)
			o->dreg = PTY_DREG;
		else
			o->dreg = ioctl(o->fd, FIONREAD, &left) == 0 && left > 0 ? (uint32_t)left : 0;
		o->ready = o->dreg > 0;
	}
	stream_try_end(g, s);
}

static bool out_may_send(const struct stream *s, size_t i)
{
	const struct stream_out *o = &s->out[i];

	return s->id != 0 && s->started && o->fd >= 0 && o->ready && o->tx.left > 0;
}

/* One piece of one channel. */
static void out_send(struct guest *g, struct stream *s, size_t i)
{
	struct stream_out *o = &s->out[i];
	size_t n = MIN(sizeof(g->piece), (size_t)o->tx.left);
	ssize_t k;

	if (s->dead)
		n = MIN(n, (size_t)o->dreg);
	k = read(o->fd, g->piece, n);
	if (k < 0 && errno == EINTR)
		return;
	if (k > 0) {
		guest_put(g, CTL_DATA, (uint8_t)(i + 1), s->id, g->piece, (size_t)k);
		o->tx.left -= (uint32_t)k;
		if (s->dead)
			o->dreg -= (uint32_t)k;
		if (s->dead && o->dreg == 0)
			stream_try_end(g, s);
		return;
	}
	/* EIO: no process has the terminal open any more. It may be opened anew only while the process lives. */
	if (k < 0 && errno == EAGAIN && !s->dead) {
		o->ready = false;
		arm_out(g, s, i);
		return;
	}
	o->dreg = 0;
	out_end(g, s, i);
	stream_try_end(g, s);
}

void streams_pump(struct guest *g)
{
	const unsigned int n = 2 * (unsigned int)ARRAY_SIZE(g->streams);
	unsigned int idle = 0;

	for (int pieces = 0; pieces < PUMP_PIECES && idle < n && g->port.out.n < PORT_OUT_SOFT;) {
		struct stream *s = &g->streams[g->turn / 2];
		size_t i = g->turn % 2;

		g->turn = (g->turn + 1) % n;
		if (!out_may_send(s, i)) {
			idle++;
			continue;
		}
		idle = 0;
		pieces++;
		out_send(g, s, i);
	}
}

bool streams_have_work(const struct guest *g)
{
	if (g->port.out.n >= PORT_OUT_SOFT)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(g->streams); i++)
		if (out_may_send(&g->streams[i], 0) || out_may_send(&g->streams[i], 1))
			return true;
	return false;
}

bool streams_are_over(const struct guest *g)
{
	for (size_t i = 0; i < ARRAY_SIZE(g->streams); i++)
		if (g->streams[i].id != 0)
			return false;
	return true;
}

int64_t streams_tick(struct guest *g, int64_t now)
{
	int64_t next = -1;

	for (size_t i = 0; i < ARRAY_SIZE(g->streams); i++) {
		struct stream *s = &g->streams[i];

		if (s->id == 0 || s->kill_ns == 0)
			continue;
		if (s->kill_ns <= now) {
			s->kill_ns = 0;
			stream_kill(g, s, SIGKILL);
		} else if (next < 0 || s->kill_ns < next) {
			next = s->kill_ns;
		}
	}
	return next;
}

void streams_kill(struct guest *g, int sig)
{
	for (size_t i = 0; i < ARRAY_SIZE(g->streams); i++)
		if (g->streams[i].id != 0)
			stream_kill(g, &g->streams[i], sig);
}
