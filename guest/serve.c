/* The loop of the guest program, and what a frame of the host makes it do.
 *
 *    NEW --CONFIG--> SERVES --SHUTDOWN, host gone, violation--> ENDS --nothing left, or grace over--> KILLS --> OVER
 *     |                                                           ^
 *     +--configuration failed: FAIL-------------------------------+ (with no grace)
 *
 * One turn: events; frames of the host (at most one read of the port); processes that ended; a bounded number of pieces
 * from processes; then what goes out is written. Nothing in a turn waits. Everything that the host can make us hold is
 * bounded by its credit, by CTL_STREAMS_MAX, and by not handling its frames while it leaves ours unread. */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/macros.h"
#include "guest/dbwatch.h"
#include "guest/guest.h"
#include "guest/oom.h"
#include "guest/ports.h"
#include "proto/rec.h"

#define MS ((int64_t)1000000)
#define LOST_GRACE_MS 2000 /* what runs may end in order when the launcher is gone */
#define KILL_MS 2000	   /* processes in uninterruptible calls are not waited for longer */
#define REAP_MAX 256	   /* ended processes in one turn */
#define GRACE_MAX_MS 60000

int guest_init(struct guest *g, const struct guest_ops *ops, int fd)
{
	sigset_t set;
	int r;

	*g = (struct guest){ .ops = ops, .child_fd = -1, .kmsg_fd = -1, .ports_fd = -1, .dbs_fd = -1, .ev.epfd = -1 };
	streams_init(g);
	r = port_init(&g->port, fd);
	if (r == 0)
		r = ev_open(&g->ev);
	if (r < 0)
		return r;
	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	g->child_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (g->child_fd < 0)
		return -errno;
	if (ops->is_init)
		g->kmsg_fd = oom_open();
	return ev_watch(&g->ev, g->child_fd, EPOLLIN, EV_CHILD, 0, 0);
}

void guest_done(struct guest *g)
{
	streams_done(g);
	port_done(&g->port);
	close_p(&g->child_fd);
	close_p(&g->kmsg_fd);
	close_p(&g->ports_fd);
	close_p(&g->dbs_fd);
	if (g->ev.epfd >= 0)
		ev_close(&g->ev);
}

void guest_put(struct guest *g, enum ctl_type type, uint8_t channel, uint32_t stream, const void *p, size_t n)
{
	if (!g->port.lost && ctl_put(&g->port.out, type, channel, stream, p, n) < 0)
		g->port.lost = true;
}

void guest_log(struct guest *g, enum log_level level, const char *fmt, ...)
{
	char text[1 + 1000];
	va_list ap;

	text[0] = (char)level;
	va_start(ap, fmt);
	(void)vsnprintf(text + 1, sizeof(text) - 1, fmt, ap);
	va_end(ap);
	guest_put(g, CTL_LOG, 0, 0, text, 1 + strlen(text + 1));
}

int guest_put_phase(struct buf *out, const char *name, int64_t start_ns, int64_t ns)
{
	ssize_t at = rec_begin(out, CTL_K_PHASE);

	if (at < 0 || rec_put_str(out, CTL_K_NAME, name) < 0 || rec_put_u64(out, CTL_K_NS, (uint64_t)start_ns) < 0 ||
	    rec_put_u64(out, CTL_K_NS, (uint64_t)ns) < 0)
		return -ENOBUFS;
	rec_end(out, (size_t)at);
	return 0;
}

void guest_hello(struct guest *g, const struct guest_phase *phases, size_t n)
{
	struct utsname uts;
	struct buf b;

	buf_init(&b, CTL_TEXT_MAX);
	(void)buf_put_u32(&b, CTL_MAGIC);
	(void)buf_put_u16(&b, CTL_VERSION);
	if (uname(&uts) == 0)
		(void)rec_put_str(&b, CTL_K_TEXT, uts.release);
	for (size_t i = 0; i < n; i++)
		(void)guest_put_phase(&b, phases[i].name, phases[i].start_ns, phases[i].ns);
	guest_put(g, CTL_HELLO, 0, 0, buf_span(&b).p, b.n);
	buf_done(&b);
}

static void kill_all(struct guest *g, int sig)
{
	if (g->ops->is_init)
		(void)g->ops->kill(-1, sig);
	else
		streams_kill(g, sig);
}

void guest_end(struct guest *g, uint32_t grace_ms, int64_t now)
{
	int64_t until = now + (int64_t)MIN(grace_ms, (uint32_t)GRACE_MAX_MS) * MS;

	if (g->state >= GUEST_KILLS)
		return;
	if (g->state == GUEST_ENDS) {
		g->until_ns = MIN(g->until_ns, until);
		return;
	}
	g->state = GUEST_ENDS;
	g->until_ns = until;
	/* Interactive shells ignore SIGTERM; others, which end by it in order, would be cut short by SIGHUP at once. */
	g->hup_ns = now + (until - now) / 2;
	kill_all(g, SIGTERM);
	kill_all(g, SIGCONT);
}

static void guest_fail(struct guest *g, const char *text, int64_t now)
{
	struct buf b;

	buf_init(&b, CTL_TEXT_MAX);
	(void)rec_put_str(&b, CTL_K_TEXT, text);
	guest_put(g, CTL_FAIL, 0, 0, buf_span(&b).p, b.n);
	buf_done(&b);
	guest_end(g, 0, now);
}

static void guest_config(struct guest *g, struct span config, int64_t now)
{
	struct err err = { "guest: the configuration cannot be applied" };
	struct buf ready;

	buf_init(&ready, CTL_READY_MAX);
	if (g->ops->configure(g, config, &ready, &err) < 0) {
		guest_fail(g, err.text, now);
	} else {
		guest_put(g, CTL_READY, 0, 0, buf_span(&ready).p, ready.n);
		g->state = GUEST_SERVES;
	}
	buf_done(&ready);
}

/* Return: 0, or -EBADMSG. What is in order depends on the state; ctl_decode() has checked all that does not. */
static int guest_frame(struct guest *g, const struct ctl_frame *f, int64_t now)
{
	struct span in = f->payload;
	uint64_t u64 = 0;
	uint32_t u32 = 0;

	switch (f->type) {
	case CTL_CONFIG:
		if (g->state != GUEST_NEW)
			return g->state == GUEST_SERVES ? -EBADMSG : 0;
		guest_config(g, in, now);
		return 0;
	case CTL_CLOCK:
		(void)span_u64(&in, &u64);
		g->ops->set_clock(g, u64);
		return 0;
	case CTL_PING:
		guest_put(g, CTL_PONG, 0, 0, in.p, in.n);
		return 0;
	case CTL_PONG:
		return 0;
	case CTL_SHUTDOWN:
		(void)span_u32(&in, &u32);
		guest_end(g, u32, now);
		return 0;
	case CTL_EXEC:
	case CTL_PUT:
	case CTL_GET:
	case CTL_DIAL:
		if (g->state == GUEST_NEW)
			return -EBADMSG;
		if (g->state != GUEST_SERVES)
			return 0; /* crossed with the end */
		return stream_frame(g, f, now);
	default:
		/* Streams that did not open because everything ends may have frames under way. */
		if (g->state > GUEST_SERVES && f->stream > g->last_id)
			return 0;
		return stream_frame(g, f, now);
	}
}

void guest_frames(struct guest *g, int64_t now)
{
	struct ctl_frame f;
	size_t used;
	int r;

	while (!g->port.lost && g->port.out.n < PORT_OUT_HARD) {
		r = ctl_decode(&g->port.in, CTL_SIDE_GUEST, &f, &used);
		if (r == 0)
			return;
		if (r == 1) {
			g->port.live = true;
			r = guest_frame(g, &f, now);
			if (r == 0)
				buf_consume(&g->port.in, used);
		}
		if (r < 0) {
			guest_log(g, LOG_LV_ERROR, "the host broke the control protocol; the session ends");
			(void)port_flush(&g->port);
			g->port.lost = true;
		}
	}
}

static void check_oom(struct guest *g)
{
	char victim[128];

	if (oom_take(g->kmsg_fd, victim, sizeof(victim)))
		guest_log(g, LOG_LV_WARN, "memory ran out: the kernel of the guest ended %s", victim);
}

/* Children of ours, and as PID 1 all that lost their parents. */
static void reap(struct guest *g)
{
	struct signalfd_siginfo skip[8];

	/* One signal stands for any number of children; the fact is what counts, not the content. */
	while (read(g->child_fd, skip, sizeof(skip)) > 0)
		;
	g->reap_more = false;
	for (int i = 0; i < REAP_MAX; i++) {
		siginfo_t info = { 0 };

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0) {
			if (errno == ECHILD)
				g->childless = true;
			return;
		}
		if (info.si_pid == 0)
			return;
		g->childless = false;
		/* The victim may have been a child of the program, which then ends by itself. */
		if (info.si_code == CLD_KILLED || stream_is_of(g, info.si_pid))
			check_oom(g);
		stream_on_death(g, info.si_pid, info.si_code, info.si_status);
	}
	g->reap_more = true;
}

static void port_events(struct guest *g, bool hung_up, int64_t now)
{
	if (g->port.out.n < PORT_OUT_HARD)
		(void)port_read(&g->port);
	else if (hung_up && g->port.live)
		g->port.lost = true; /* there is no room to read on, and nobody will make some */
	guest_frames(g, now);
}

/* An end of the port that does not count yet would be reported without end: it is left alone, and looked at by time. */
static void port_rearm(struct guest *g, bool hung_up)
{
	struct port *p = &g->port;
	uint32_t want = (p->out.n < PORT_OUT_HARD ? EPOLLIN : 0) | (p->out.n > 0 ? EPOLLOUT : 0);

	if (p->lost || (hung_up && !p->live)) {
		if (p->events != 0)
			ev_unwatch(&g->ev, p->fd);
		p->events = 0;
		return;
	}
	if (want == 0)
		want = EPOLLRDHUP;
	if (want == p->events)
		return;
	if (ev_watch(&g->ev, p->fd, want, EV_PORT, 0, 0) < 0)
		p->lost = true;
	p->events = want;
}

/* One listener that came or went. */
static void ports_read(struct guest *g)
{
	struct ports_note note;
	ssize_t k = recv(g->ports_fd, &note, sizeof(note), 0);
	uint8_t le[3] = { 0 };

	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (k == (ssize_t)sizeof(note)) {
		memcpy(le, (uint8_t[]){ (uint8_t)note.port, (uint8_t)(note.port >> 8), note.open }, sizeof(le));
	} else {
		ev_unwatch(&g->ev, g->ports_fd);
		close_p(&g->ports_fd);
		g->ports_fd = -1;
		if (g->state == GUEST_SERVES)
			guest_log(g, LOG_LV_WARN, "ports: agent-vm-ports ended; services on loopback are not reached any more");
	}
	guest_put(g, CTL_PORT, 0, 0, le, sizeof(le));
}

/* Read only while the host takes what we say. */
static void ports_rearm(struct guest *g)
{
	bool want = g->port.out.n < PORT_OUT_SOFT;

	if (g->ports_fd < 0 || want == g->ports_watched)
		return;
	if (!want)
		ev_unwatch(&g->ev, g->ports_fd);
	else if (ev_watch(&g->ev, g->ports_fd, EPOLLIN, EV_PORTS, 0, 0) < 0)
		return;
	g->ports_watched = want;
}

static int64_t sooner(int64_t a, int64_t b)
{
	return a < 0 ? b : b < 0 ? a : MIN(a, b);
}

/* Takes the end further. Return: when to look again, -1 for never. */
static int64_t step_end(struct guest *g, int64_t now)
{
	if (g->port.lost)
		guest_end(g, LOST_GRACE_MS, now);
	if (g->state == GUEST_ENDS && ((g->childless && (g->port.lost || streams_are_over(g))) || now >= g->until_ns)) {
		g->state = GUEST_KILLS;
		g->until_ns = now + KILL_MS * MS;
		if (!g->childless)
			kill_all(g, SIGKILL);
	}
	if (g->state == GUEST_ENDS && now >= g->hup_ns) {
		g->hup_ns = INT64_MAX;
		kill_all(g, SIGHUP);
		kill_all(g, SIGCONT);
	}
	if (g->state == GUEST_KILLS && (g->childless || now >= g->until_ns))
		g->state = GUEST_OVER;
	if (g->state == GUEST_ENDS)
		return MIN(g->until_ns, g->hup_ns);
	return g->state == GUEST_KILLS ? g->until_ns : -1;
}

/* What ended processes left is still sent, as long as the host takes it. */
static void last_words(struct guest *g)
{
	int64_t until = now_ns() + 1000 * MS;

	while (!g->port.lost && now_ns() < until) {
		int64_t now = now_ns();

		if (port_drain(&g->port, until) < 0 || !streams_have_work(g))
			return;
		(void)port_read(&g->port);
		guest_frames(g, now);
		streams_pump(g);
	}
}

int guest_serve(struct guest *g)
{
	struct ev_event evs[EV_BATCH];
	bool hung_up = false;

	reap(g);
	port_rearm(g, false);
	for (;;) {
		int64_t now = now_ns(), until;
		int n;

		until = sooner(step_end(g, now), streams_tick(g, now));
		if (g->state == GUEST_OVER)
			break;
		if (hung_up && !g->port.live)
			until = sooner(until, now + 10 * MS);
		if (g->reap_more || streams_have_work(g) || (g->port.in.n > 0 && g->port.events == 0 && g->port.live))
			until = now;
		n = ev_wait(&g->ev, evs, until);
		if (n < 0)
			return n;
		now = now_ns();
		if (hung_up) {
			hung_up = false;
			port_events(g, false, now);
		}
		for (int i = 0; i < n; i++) {
			const struct ev_event *e = &evs[i];

			switch ((enum guest_event)e->kind) {
			case EV_PORT:
				hung_up = (e->events & EPOLLHUP) != 0;
				port_events(g, hung_up, now);
				break;
			case EV_CHILD:
				g->reap_more = true;
				break;
			case EV_STATUS:
				stream_on_status(g, e->slot, e->gen);
				break;
			case EV_IN:
				stream_on_in(g, e->slot, e->gen);
				break;
			case EV_OUT:
			case EV_ERR:
				stream_on_out(g, e->slot, e->kind - EV_OUT, e->gen);
				break;
			case EV_PORTS:
				if (g->ports_fd >= 0)
					ports_read(g);
				break;
			case EV_DBS:
				dbwatch_read(g);
				break;
			}
		}
		if (g->reap_more)
			reap(g);
		streams_pump(g);
		(void)port_flush(&g->port);
		guest_frames(g, now); /* those that waited for room */
		port_rearm(g, hung_up);
		ports_rearm(g);
	}
	last_words(g);
	return 0;
}
