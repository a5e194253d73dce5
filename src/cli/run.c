#include "cli/run_priv.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "cli/stop.h"
#include "proto/rec.h"
#include "proto/vmmcfg.h"

/* Time limits, seconds. The first two are spec/cli.md section 18, the graces section 14, the last section 15.3. */
#define HELLO_S 60
#define HELLO_EMULATED_S 180
#define TERM_GRACE_S 10
#define HUP_GRACE_S 5
#define DOUBLE_INT_S 2
#define DOWN_S 8
#define DOWN_EMULATED_S 30
#define CLOCK_EVERY_S 30
#define GH_LOOK_S 2 /* whether the host signed gh in or out */
/* What the monitor, virtiofsd and their supervisor get to end when the control port or the network has: seconds on a machine that
 * is short of processors. */
#define MONITOR_END_S 10
#define PROGRESS_AFTER_S 1
#define PROGRESS_PLAIN_S 2 /* of a phase, for its line where no line can be rewritten */
#define VMM_LINES 100 /* of a monitor that was taken over; an honest one says a few */
#define NET_LOST_MS 300 /* for a better cause than that of the first that is heard */
#define LINES_MAX 10000 /* a guest that opens and closes ports without end fills no disk of ours */
#define HELD_MAX 64

static const int watched_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCHLD, SIGTSTP, SIGCONT };

void run_fail(struct run *r, enum run_end end, const char *fmt, ...)
{
	va_list ap;

	if (r->end != RUN_OPEN)
		return;
	r->end = end;
	va_start(ap, fmt);
	(void)vsnprintf(r->err.text, sizeof(r->err.text), fmt, ap);
	va_end(ap);
	log_stderr(-1); /* the launch prints it, at its end */
	log_error("%s", r->err.text);
}

struct stream *run_stream_new(struct run *r, enum stream_kind kind)
{
	for (size_t i = 0; i < CTL_STREAMS_MAX; i++) {
		struct stream *s = &r->streams[i];

		if (s->kind != STREAM_FREE)
			continue;
		*s = (struct stream){ .kind = kind, .id = r->next_id++, .tx = CTL_CREDIT_INIT };
		s->rx[0] = s->rx[1] = CTL_CREDIT_INIT;
		return s;
	}
	return NULL;
}

void run_stream_free(struct stream *s)
{
	*s = (struct stream){ 0 };
}

void run_send_clock(struct run *r)
{
	struct itimerspec next = { .it_value.tv_sec = time(NULL) + CLOCK_EVERY_S };
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	(void)ctl_put_u64(&r->port.out, CTL_CLOCK, 0, (uint64_t)ts.tv_sec * SEC + (uint64_t)ts.tv_nsec);
	/* CANCEL_ON_SET: also wakes us when the host's clock was set or the host woke up, so that the guest's is right
	 * at once and not only at the next turn. */
	(void)timerfd_settime(r->clock_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &next, NULL);
}

/* What agent-vm-vmm says about the cage, its start and its end. The guest may have taken it over: text is escaped. */
static void on_control(struct run *r)
{
	uint8_t bytes[VMM_MSG_MAX];
	struct span in, val;
	uint32_t type;
	uint16_t key;
	uint64_t v;
	ssize_t n;

	n = fd_recv(r->control_fd, bytes, sizeof(bytes), NULL, 0);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		ev_unwatch(&r->ev, r->control_fd);
		close_p(&r->control_fd);
		r->control_fd = -1;
		return;
	}
	in = SPAN(bytes, (size_t)n);
	if (span_u32(&in, &type) < 0)
		return;
	if (type == VMM_MSG_RUNNING && r->times.running == 0)
		r->times.running = now_ns();
	while (rec_next(&in, &key, &val) == 1) {
		AUTO_FREE(char, text);

		if (key == VMM_K_CAGE && rec_u64(val, UINT32_MAX, &v) == 0 && r->times.running == 0)
			r->walls = (unsigned)v;
		if (key != VMM_K_TEXT)
			continue;
		text = str_escape(val.p, val.n);
		if (r->vmm_lines++ < VMM_LINES)
			log_info("vmm: %s", text); /* what matters of it is told by run_fail() */
		(void)snprintf(r->vmm_text, sizeof(r->vmm_text), "%s", text);
	}
}

/* Why the monitor died, with what may help. Its supervisor hands on the end of the process inside as a shell does. */
static void monitor_death(struct run *r)
{
	int st = r->vmm_status, sig = WIFSIGNALED(st) ? WTERMSIG(st) : WEXITSTATUS(st) > 128 ? WEXITSTATUS(st) - 128 : 0;
	const char *when = r->times.exec > 0 ? "while the session ran" : "before the guest was up";
	bool shown = r->spec.console && r->times.exec == 0;
	AUTO_FREE(char, last);
	AUTO_FREE(char, says);

	last = shown ? capture_last_line(r->spec.console) : xstrdup("");
	says = *last ? xasprintf("; the console's last line: %s", last) : xstrdup(shown ? "; nothing on the console" : "");
	if (st == 0) {
		run_fail(r, RUN_LOST, "VM: the guest's kernel ended %s (a panic or a reset)%s; logs: %s", when, says,
			 r->spec.log_dir);
		return;
	}
	if (sig > 0 && sig < NSIG)
		run_fail(r, RUN_LOST, "VM: the monitor was killed by signal %d (%s) %s%s%s; logs: %s", sig, strsignal(sig), when,
			 sig == SIGKILL ? "; is the host short of memory? a smaller --memory may help" : "", says,
			 r->spec.log_dir);
	else
		run_fail(r, RUN_LOST, "VM: the monitor ended with status %d %s%s; logs: %s", WEXITSTATUS(st), when, says,
			 r->spec.log_dir);
}

static void monitor_gone(struct run *r)
{
	r->vmm_pid = -1;
	r->times.gone = now_ns();
	while (r->control_fd >= 0 && r->vmm_text[0] == '\0') {
		int fd = r->control_fd;

		on_control(r);
		if (fd == r->control_fd && r->vmm_text[0] == '\0') {
			/* Nothing more is coming: the process is gone. */
			break;
		}
	}
	if (r->stage == STAGE_DOWN) {
		r->stage = STAGE_GONE;
		return;
	}
	r->stage = STAGE_GONE;
	if (r->spec.console)
		(void)capture_read(r->spec.console); /* its last words */
	if (r->vmm_text[0] != '\0')
		run_fail(r, RUN_LOST, "%s", r->vmm_text);
	else
		monitor_death(r);
}

static void reap(struct run *r)
{
	int status;

	if (r->vmm_pid > 0 && waitpid(r->vmm_pid, &status, WNOHANG) == r->vmm_pid) {
		r->vmm_status = status;
		monitor_gone(r);
	}
}

static void signal_agent(struct run *r, int sig)
{
	if (r->local.stream)
		(void)ctl_put_u32(&r->port.out, CTL_SIGNAL, 0, r->local.stream->id, (uint32_t)sig);
}

/* A signal that asks us to end. The agent, if it runs, gets its time; a second one cuts it short. */
static void on_stop(struct run *r, int sig)
{
	int64_t now = now_ns();

	if (r->stage == STAGE_AGENT && (sig == SIGINT || sig == SIGQUIT)) {
		if (sig == SIGINT && !r->local.pty && r->last_int > 0 && now - r->last_int < DOUBLE_INT_S * SEC) {
			r->stop_signal = sig;
			r->end = RUN_STOPPED;
			return;
		}
		r->last_int = now;
		signal_agent(r, sig);
		return;
	}
	if (r->stop_signal != 0) {
		r->grace_over = true;
		return;
	}
	log_info("stopping on signal %d", sig);
	r->stop_signal = sig;
	if (r->stage == STAGE_AGENT) {
		signal_agent(r, sig);
		r->deadline = now + (sig == SIGHUP ? HUP_GRACE_S : TERM_GRACE_S) * SEC;
	} else if (r->stage < STAGE_AGENT) {
		r->end = RUN_STOPPED;
	}
}

static void on_signal(struct run *r)
{
	struct signalfd_siginfo si;

	while (read(r->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		switch ((int)si.ssi_signo) {
		case SIGCHLD:
			reap(r);
			break;
		case SIGWINCH:
			local_resize(r);
			break;
		case SIGTSTP:
			/* While we are stopped nothing would be undone. */
			if (r->spec.confs)
				run_line(r, "not stopped: git configs are watched (--git-config rw)");
			else if (!r->local.pty)
				(void)raise(SIGSTOP);
			break;
		case SIGCONT:
			if (r->local.stream && r->local.pty) {
				(void)term_raw(STDIN_FILENO);
				local_resize(r);
			}
			break;
		default:
			if (stop_is_meant((int)si.ssi_signo))
				on_stop(r, (int)si.ssi_signo);
		}
	}
}

/* The monitor closed its end: SIGCHLD says why, in a moment, or it is stuck. */
static void port_lost(struct run *r)
{
	link_close(&r->port);
	if (r->vmm_pid == 0 && !r->local.exited)
		run_fail(r, RUN_LOST, "session: it ended while the program ran");
	r->port_lost = now_ns();
}

/* Vault wants gh's token again, or it is time to look whether gh has another one. */
static void ask_gh(struct run *r)
{
	int64_t now_ms = now_ns() / (SEC / 1000);
	int fd;

	if (!r->spec.gh || r->spec.network->vault.fd < 0 || r->end != RUN_OPEN || !gh_is_due(r->spec.gh, now_ms))
		return;
	fd = gh_ask_again(r->spec.gh, now_ms);
	log_info("gh: asked for its token again%s%s", fd < 0 ? ", which failed: " : "", fd < 0 ? strerror(-fd) : "");
	if (fd >= 0)
		network_gh(r->spec.network, r->spec.gh->kind, fd);
}

/* After the start they say nothing until they end, but for what vault wishes to have of a login. Then the VM goes too, for
 * the guest's connections are gone. But they also end, in order, when the VM has: see network_limit(). */
static void on_network(struct run *r, uint16_t i)
{
	struct network_role *role = network_role(r->spec.network, i);
	struct vault_renew renew;
	AUTO_FREE(char, text);
	int k, n;

	if (role->fd < 0)
		return;
	k = network_heard(role, &renew);
	if (k == 1 && role == &r->spec.network->vault) {
		n = renewer_ask(r->spec.renewer, &renew, role->fd);
		if (n >= 0 && ev_watch(&r->ev, renewer_fd(r->spec.renewer, n), EPOLLIN, EV_RENEWER, (uint16_t)n, 0) < 0)
			log_warn("renewal: its process cannot be watched");
	}
	if (r->spec.gh && (role->refused & PH_BIT(r->spec.gh->kind))) {
		role->refused = 0;
		gh_refused(r->spec.gh);
		ask_gh(r);
	}
	if (k >= 0)
		return;
	ev_unwatch(&r->ev, role->fd);
	text = network_ended(role);
	close_p(&role->fd);
	role->fd = -1;
	/* The cause counts, also when another that noticed is heard first. */
	if (r->net_lost > 0 && role->end <= r->net_end)
		return;
	if (r->net_lost == 0 || r->net_end == NETWORK_IN_ORDER)
		r->net_lost = now_ns();
	r->net_end = role->end;
	(void)snprintf(r->net_text, sizeof(r->net_text), "%s", text);
}

static void on_renewer(struct run *r, uint16_t i)
{
	int fd = renewer_fd(r->spec.renewer, i);

	if (fd < 0)
		return;
	if (!renewer_read(r->spec.renewer, i, r->spec.network->vault.fd))
		ev_unwatch(&r->ev, fd);
}

/* @all: not only what the events are about. */
static void watch_confs(struct run *r, bool all)
{
	struct confwatch *w = r->spec.confs;
	size_t told = confwatch_undone(w)->n;

	(all ? confwatch_look : confwatch_turn)(w);
	for (; told < confwatch_undone(w)->n; told++)
		log_warn("git config, undone: %s", confwatch_undone(w)->v[told]);
	if (!confwatch_end(w) || r->stage == STAGE_GONE)
		return;
	/* What it wrote in the shares is on the host; an orderly end would be more time for it. */
	run_fail(r, RUN_LOST, "%s; the session was ended; log: %s", confwatch_end(w), r->spec.log_dir);
	if (r->vmm_pid > 0)
		(void)kill(r->vmm_pid, SIGKILL);
}

static void ready(struct run *r)
{
	if (r->spec.probe)
		network_probed(r->spec.network);
	r->stage = STAGE_IDLE;
}

/* The logins' self-probe, on connections of the guest's. */
void run_ready(struct run *r)
{
	struct credprobe *p = r->spec.credprobe;
	struct err err;
	int k;

	if (!p) {
		ready(r);
		return;
	}
	r->stage = STAGE_PROBE;
	r->deadline = now_ns() + (r->spec.emulated ? CREDPROBE_EMULATED_S : CREDPROBE_S) * SEC;
	k = credprobe_start(p, r->spec.network, &err);
	for (size_t i = 0; i < p->n_links && k == 0; i++) {
		k = clients_add(r, p->links[i]);
		p->links[i] = -1;
		if (k < 0)
			(void)err_set(&err, k, "self-probe: %s", strerror(-k));
	}
	if (k == 0 && (k = ev_watch(&r->ev, p->fd, EPOLLIN, EV_CREDPROBE, 0, 0)) < 0)
		(void)err_set(&err, k, "self-probe: %s", strerror(-k));
	if (k < 0)
		run_fail(r, RUN_FAILED, "%s; nothing was started", err.text);
}

static void on_credprobe(struct run *r)
{
	struct err err;
	int k = r->stage == STAGE_PROBE ? credprobe_result(r->spec.credprobe, &err) : 0;

	if (k == 0)
		return;
	ev_unwatch(&r->ev, r->spec.credprobe->fd);
	credprobe_end(r->spec.credprobe);
	if (k > 0)
		ready(r);
	else
		run_fail(r, RUN_FAILED, "%s; nothing was started; log: %s", err.text, r->spec.log_dir);
}

/* The monitor closed @what of its and has had time to end. A kill of ours is not to be told as one of the host's. */
static void monitor_stuck(struct run *r, const char *what)
{
	if (r->stage < STAGE_DOWN)
		run_fail(r, RUN_LOST, "VM: its %s ended, but the monitor did not within %d s and was killed; logs: %s", what,
			 MONITOR_END_S, r->spec.log_dir);
	if (r->vmm_pid > 0)
		(void)kill(r->vmm_pid, SIGKILL);
}

/* Network processes that ended in order did so because the VM has, which SIGCHLD will tell. */
static int64_t network_limit(const struct run *r)
{
	return r->net_lost + (r->net_end == NETWORK_IN_ORDER ? MONITOR_END_S * SEC : NET_LOST_MS * (SEC / 1000));
}

static void network_lost(struct run *r)
{
	if (r->net_lost == 0 || now_ns() < network_limit(r) || r->stage >= STAGE_DOWN)
		return;
	if (r->net_end == NETWORK_IN_ORDER) {
		monitor_stuck(r, "network");
		return;
	}
	run_fail(r, RUN_LOST, "%s; logs: %s", r->net_text, r->spec.log_dir);
	if (r->vmm_pid > 0)
		(void)kill(r->vmm_pid, SIGKILL);
}

static void on_port(struct run *r, uint32_t events)
{
	ssize_t n = 0;

	if (r->port.fd < 0 || r->stage == STAGE_GONE)
		return;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		n = link_fill(&r->port);
	if (n < 0)
		port_lost(r);
}

static void dispatch(struct run *r, const struct ev_event *e)
{
	struct capture *capture;
	uint64_t ticks;

	switch ((enum ev_kind)e->kind) {
	case EV_PORT:
		on_port(r, e->events);
		break;
	case EV_CONTROL:
		if (r->control_fd >= 0)
			on_control(r);
		break;
	case EV_SIGNAL:
		on_signal(r);
		break;
	case EV_CLOCK:
		(void)!read(r->clock_fd, &ticks, sizeof(ticks)); /* ECANCELED: the clock was set */
		run_send_clock(r);
		if (r->spec.confs)
			watch_confs(r, true);
		break;
	case EV_STDIN:
		local_stdin(r);
		break;
	case EV_SINK:
		if (e->events & (EPOLLERR | EPOLLHUP))
			r->local.out[e->slot].hup = true;
		break;
	case EV_LISTEN:
		clients_accept(r);
		break;
	case EV_CAPTURE:
		capture = e->slot == 0 ? r->spec.console : r->spec.vmm_log;
		if (capture_read(capture) == 0)
			ev_unwatch(&r->ev, capture->pipe_fd);
		break;
	case EV_NETWORK:
		on_network(r, e->slot);
		break;
	case EV_CREDPROBE:
		on_credprobe(r);
		break;
	case EV_RENEWER:
		on_renewer(r, e->slot);
		break;
	case EV_CONFS:
		watch_confs(r, false);
		break;
	case EV_PROBE:
		selfprobe_accept(r->spec.probe, e->slot);
		break;
	case EV_CLIENT:
		if (r->clients[e->slot].used && r->clients[e->slot].gen == e->gen && !r->clients[e->slot].dying &&
		    (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
			client_readable(r, &r->clients[e->slot]);
		break;
	}
}

static const char *stage_word(const struct run *r)
{
	return r->times.running == 0 ? "monitor" : r->stage == STAGE_BOOT ? "kernel" : r->stage == STAGE_CONFIG ? "mounts" : "self-probe";
}

/* A pipe that says so takes a line without waiting. */
static bool stderr_takes(const struct run *r)
{
	struct pollfd p = { STDERR_FILENO, POLLOUT, 0 };

	return r->local.out[1].q.n == 0 && poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

static void progress(struct run *r)
{
	if (r->stage > STAGE_PROBE)
		return;
	if (r->spec.terminal) {
		(void)dprintf(STDERR_FILENO, "\r==> starting: %s %.1f s\033[K", stage_word(r),
			      (double)(now_ns() - r->started) / (double)SEC);
		r->progress_shown = true;
		r->progress_at = now_ns() + SEC / 10;
	} else {
		r->progress_at = -1; /* until the next phase */
		if (stderr_takes(r))
			(void)dprintf(STDERR_FILENO, "==> starting: %s\n", stage_word(r));
	}
}

/* A phase begins: its line is due if it takes long. */
static void progress_phase(struct run *r)
{
	const char *word = stage_word(r);

	if (!r->spec.progress || r->spec.terminal || r->stage > STAGE_PROBE ||
	    (r->progress_word && strcmp(word, r->progress_word) == 0))
		return;
	r->progress_word = word;
	r->progress_at = now_ns() + PROGRESS_PLAIN_S * SEC;
}

void run_progress_clear(struct run *r)
{
	if (r->progress_shown)
		(void)dprintf(STDERR_FILENO, "\r\033[K");
	r->progress_shown = false;
	r->progress_at = -1;
}

void run_line(struct run *r, const char *text)
{
	if (r->lines++ >= LINES_MAX) {
		if (r->lines == LINES_MAX + 1)
			log_info("ports: more than %d lines; the rest is left out", LINES_MAX);
		return;
	}
	log_info("%s", text);
	if (r->spec.quiet)
		return;
	if (!(r->stage == STAGE_AGENT && r->local.pty) && stderr_takes(r))
		(void)dprintf(STDERR_FILENO, "==> %s\n", text);
	else if (r->held.n < HELD_MAX)
		strv_add(&r->held, text);
	else if (r->held.n == HELD_MAX)
		strv_addf(&r->held, "more about ports: %s/launcher.log", r->spec.log_dir);
}

static int64_t next_deadline(const struct run *r)
{
	const int64_t all[] = { r->deadline, r->progress_at, r->lock_at, r->gh_at,
				r->port_lost > 0 ? r->port_lost + MONITOR_END_S * SEC : -1,
				r->net_lost > 0 && r->end == RUN_OPEN ? network_limit(r) : -1 };
	int64_t first = -1;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i] >= 0 && (first < 0 || all[i] < first))
			first = all[i];
	return first;
}

/* One batch: wait, handle, then what follows from it (frames, queues). @more: frames are left to decode. */
static void step(struct run *r, bool *more)
{
	struct ev_event events[EV_BATCH];
	int n, k = 0;

	n = ev_wait(&r->ev, events, *more ? 0 : next_deadline(r));
	for (int i = 0; i < n; i++)
		dispatch(r, &events[i]);
	if (r->port.fd >= 0)
		k = run_guest_frames(r);
	*more = k > 0;
	if (r->ports_changed && r->spec.on_ports)
		r->spec.on_ports(r->spec.on_ports_arg);
	r->ports_changed = false;
	if (k < 0) {
		run_fail(r, RUN_LOST, "guest: it broke the control protocol; the VM was stopped; logs: %s",
			 r->spec.log_dir);
		link_close(&r->port);
		if (r->vmm_pid > 0)
			(void)kill(r->vmm_pid, SIGKILL);
	}
	local_pump(r);
	clients_pump(r);
	if (r->port.fd >= 0 && link_flush(&r->port) < 0) {
		/* The peer may have said why before it closed. */
		if (link_fill(&r->port) > 0)
			(void)run_guest_frames(r);
		port_lost(r);
	}
	if (r->port_lost > 0 && r->vmm_pid > 0 && now_ns() >= r->port_lost + MONITOR_END_S * SEC)
		monitor_stuck(r, "control port");
	network_lost(r);
	if (r->lock_at >= 0 && now_ns() >= r->lock_at && r->end == RUN_OPEN)
		run_send_config(r);
	progress_phase(r);
	if (r->progress_at >= 0 && now_ns() >= r->progress_at)
		progress(r);
	if (r->gh_at >= 0 && now_ns() >= r->gh_at) {
		r->gh_at = now_ns() + GH_LOOK_S * SEC;
		ask_gh(r);
	}
}

static bool past_deadline(const struct run *r)
{
	return r->deadline >= 0 && now_ns() >= r->deadline;
}

enum run_end run_boot(struct run *r, struct err *err)
{
	int limit_s = r->spec.hello_s > 0 ? r->spec.hello_s : r->spec.emulated ? HELLO_EMULATED_S : HELLO_S;
	bool more = false;

	r->deadline = r->started + limit_s * SEC;
	progress_phase(r);
	while (r->end == RUN_OPEN && r->stage < STAGE_IDLE) {
		step(r, &more);
		if (r->stage == STAGE_PROBE && past_deadline(r))
			run_fail(r, RUN_FAILED, "self-probe: what the guest asked of this session's hosts was not answered in time; nothing was "
				 "started; log: %s", r->spec.log_dir);
		if (r->stage < STAGE_PROBE && past_deadline(r)) {
			AUTO_FREE(char, last);

			last = r->spec.console ? capture_last_line(r->spec.console) : xstrdup("");
			run_fail(r, RUN_FAILED,
				 "guest: it did not come up within %d s (last phase: %s; the console's last line: %s); logs: %s",
				 limit_s, stage_word(r), *last ? last : "none", r->spec.log_dir);
		}
	}
	run_progress_clear(r);
	r->deadline = -1;
	if (r->end != RUN_OPEN)
		*err = r->err;
	return r->end;
}

enum run_end run_agent(struct run *r, struct err *err)
{
	bool more = true;
	int k;

	r->stage = STAGE_AGENT;
	r->times.exec = now_ns();
	k = local_start(r, err);
	if (k < 0) {
		r->end = RUN_FAILED;
		return r->end;
	}
	while (r->end == RUN_OPEN && !(r->local.exited && local_drained(r))) {
		step(r, &more);
		if (r->stop_signal != 0 && (r->grace_over || past_deadline(r)))
			break;
	}
	term_restore(!r->local.exited);
	r->deadline = -1;
	if (r->end == RUN_OPEN)
		r->end = r->stop_signal != 0 ? RUN_STOPPED : RUN_EXIT;
	if (r->end == RUN_LOST || r->end == RUN_FAILED)
		*err = r->err;
	return r->end;
}

bool run_down(struct run *r, unsigned grace_ms)
{
	int limit_s = r->spec.emulated ? DOWN_EMULATED_S : DOWN_S;
	bool more = true;

	run_progress_clear(r);
	r->grace_over = false;
	/* Before HELLO nobody in there would understand, and nothing was mounted. */
	if (r->stage != STAGE_GONE && r->stage != STAGE_BOOT) {
		r->stage = STAGE_DOWN;
		r->deadline = now_ns() + limit_s * SEC;
		(void)ctl_put_u32(&r->port.out, CTL_SHUTDOWN, 0, 0, grace_ms);
		while (r->stage == STAGE_DOWN && !r->bye && !past_deadline(r) && !r->grace_over)
			step(r, &more);
	}
	/* BYE is the guest's last word, with everything synced: its way through the reset of the machine is not waited for. */
	if (r->vmm_pid > 0) {
		if (!r->bye && r->stage != STAGE_BOOT)
			log_warn("the VM did not end by itself and is killed");
		(void)kill(r->vmm_pid, SIGKILL);
		(void)waitpid(r->vmm_pid, &r->vmm_status, 0);
		r->vmm_pid = -1;
		r->times.gone = now_ns();
	}
	return r->bye;
}

struct run *run_new(const struct run_spec *spec, struct err *err)
{
	struct run *r = xcalloc(1, sizeof(*r));
	sigset_t set;
	int k;

	*r = (struct run){ .spec = *spec, .port.fd = -1, .control_fd = spec->control_fd, .listen_fd = spec->listen_fd,
			   .signal_fd = -1, .clock_fd = -1, .vmm_pid = spec->vmm_pid, .next_id = 1, .deadline = -1, .lock_at = -1,
			   .started = now_ns(), .ev.epfd = -1 };
	r->progress_at = spec->progress && spec->terminal ? r->started + PROGRESS_AFTER_S * SEC : -1;
	r->gh_at = spec->gh && spec->gh->program ? r->started : -1;
	r->local.out[0].fd = r->local.out[1].fd = -1;
	(void)sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(watched_signals); i++)
		(void)sigaddset(&set, watched_signals[i]);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	r->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	r->clock_fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	k = r->signal_fd < 0 || r->clock_fd < 0 ? -errno : ev_open(&r->ev);
	if (k == 0)
		k = link_open(&r->port, spec->port_fd, CTL_SIDE_HOST, &r->ev, EV_PORT, 0, 0);
	if (k < 0)
		(void)close(spec->port_fd);
	if (k == 0 && r->control_fd >= 0)
		k = fd_nonblock(r->control_fd, true);
	if (k == 0 && r->control_fd >= 0)
		k = ev_watch(&r->ev, r->control_fd, EPOLLIN, EV_CONTROL, 0, 0);
	if (k == 0)
		k = ev_watch(&r->ev, r->signal_fd, EPOLLIN, EV_SIGNAL, 0, 0);
	if (k == 0)
		k = ev_watch(&r->ev, r->clock_fd, EPOLLIN, EV_CLOCK, 0, 0);
	for (uint16_t i = 0; k == 0 && spec->network && i < NETWORK_ROLES; i++)
		if (network_role(spec->network, i)->fd >= 0)
			k = ev_watch(&r->ev, network_role(spec->network, i)->fd, EPOLLIN, EV_NETWORK, i, 0);
	for (uint16_t i = 0; k == 0 && spec->probe && i < SELFPROBE_LISTENERS; i++)
		if (spec->probe->listen[i].fd >= 0)
			k = ev_watch(&r->ev, spec->probe->listen[i].fd, EPOLLIN, EV_PROBE, i, 0);
	if (k == 0 && r->listen_fd >= 0)
		k = ev_watch(&r->ev, r->listen_fd, EPOLLIN, EV_LISTEN, 0, 0);
	if (k == 0 && spec->confs)
		k = ev_watch(&r->ev, confwatch_fd(spec->confs), EPOLLIN, EV_CONFS, 0, 0);
	if (k == 0 && spec->console)
		k = ev_watch(&r->ev, spec->console->pipe_fd, EPOLLIN, EV_CAPTURE, 0, 0);
	if (k == 0 && spec->vmm_log)
		k = ev_watch(&r->ev, spec->vmm_log->pipe_fd, EPOLLIN, EV_CAPTURE, 1, 0);
	if (k == 0) {
		reap(r); /* it may have ended before SIGCHLD was blocked */
		return r;
	}
	run_free(r);
	(void)err_set(err, k, "event loop: %s", strerror(-k));
	return NULL;
}

void run_free(struct run *r)
{
	if (!r)
		return;
	term_restore(true);
	run_progress_clear(r);
	if (r->vmm_pid > 0) {
		(void)kill(r->vmm_pid, SIGKILL);
		(void)waitpid(r->vmm_pid, NULL, 0);
	}
	clients_close(r);
	local_close(r);
	strv_done(&r->held);
	link_close(&r->port);
	close_p(&r->control_fd);
	close_p(&r->listen_fd);
	close_p(&r->signal_fd);
	close_p(&r->clock_fd);
	ev_close(&r->ev);
	free(r);
}

int run_status(const struct run *r)
{
	return r->end == RUN_STOPPED ? r->stop_signal : r->local.status;
}

const char *run_exit_text(const struct run *r)
{
	return r->exit_text;
}

const struct run_times *run_times(const struct run *r)
{
	return &r->times;
}

const struct run_phase *run_phases(const struct run *r, size_t *ret_n)
{
	*ret_n = r->n_phases;
	return r->phases;
}

unsigned run_walls(const struct run *r)
{
	return r->walls;
}

bool run_has_seed(const struct run *r)
{
	return r->seed;
}

bool run_out_of_memory(const struct run *r)
{
	return r->oom;
}

const struct strv *run_held(const struct run *r)
{
	return &r->held;
}

bool run_had_pty(const struct run *r)
{
	return r->local.pty;
}

int run_output_error(const struct run *r)
{
	for (size_t i = 0; i < 2; i++)
		if (r->local.out[i].gone && r->local.out[i].error != EPIPE && r->local.out[i].error != EIO)
			return r->local.out[i].error;
	return 0;
}
