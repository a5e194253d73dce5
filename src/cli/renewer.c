#include "cli/renewer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/prog.h"
#include "cli/renew_run.h"
#include "proto/netmsg.h"
#include "session/renewlock.h"

struct one {
	const struct creds_source *source; /* NULL: none that can be renewed */
	enum prov prov;
	int fd; /* to its process; -1: none */
	pid_t pid;
	bool asked; /* vault waits for an answer */
	struct vault_renew last;
};

struct renewer {
	const struct state_root *root;
	struct loginwatch *watch;
	struct one v[RENEWERS];
};

/* --- the process --- */

struct worker {
	struct renewlock lock;
	struct renew_run run;
	int lock_fd; /* -1: not held */
	const char *source;
};

static void answer(int fd, const struct vault_renew *m, int result, int64_t age_ms, const char *errors)
{
	struct vault_renewed a = {
		.what = NET_CTL_RENEWED, .prov = m->prov, .act = m->act, .result = result, .age_ms = age_ms
	};
	size_t n = strlen(errors), most = sizeof(a.errors) - 1;

	if (n > most)
		errors += n - most;
	memcpy(a.errors, errors, MIN(n, most));
	(void)send(fd, &a, sizeof(a), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void serve(struct worker *w, int fd, const struct vault_renew *m)
{
	char was[RENEWLOCK_SEEN];
	struct err err = { "" };
	int r;

	switch ((enum vault_renew_act)m->act) {
	case VAULT_RENEW_LOCK:
		if (w->lock_fd < 0)
			w->lock_fd = renewlock_try(&w->lock);
		r = w->lock_fd < 0 ? w->lock_fd : 0;
		w->lock_fd = MAX(w->lock_fd, -1);
		answer(fd, m, r, r == 0 ? renewlock_age_ms(&w->lock) : -1, "");
		return;
	case VAULT_RENEW_RUN:
		/* Nobody runs it without the lock, and not without a stamp, which keeps others from starting the next.
		 */
		r = w->lock_fd < 0 ? -ENOLCK : renewlock_stamp(&w->lock);
		w->run.errors[0] = '\0';
		if (r == 0) {
			w->run.what = (enum renew_program)m->program;
			w->run.limit_ms = renew_program_limit_ms(w->run.what);
			renewlock_look(w->source, was);
			r = renew_run(&w->run, &err);
			renewlock_leave(&w->lock, w->source, was);
		}
		answer(fd, m, r, -1, w->run.errors[0] ? w->run.errors : err.text);
		return;
	case VAULT_RENEW_UNLOCK:
		break;
	}
	close_p(&w->lock_fd);
	w->lock_fd = -1;
}

/* Of all descriptors it keeps its socket, as 3, and the folder, as 4; a lock of the launcher's would outlive it here.
 */
static bool worker_begin(int *fd, int *dir, const sigset_t *none)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	*fd = fcntl(*fd, F_DUPFD_CLOEXEC, 10);
	*dir = fcntl(*dir, F_DUPFD_CLOEXEC, 10);
	if (null < 0 || *fd < 0 || *dir < 0 || dup3(*fd, 3, O_CLOEXEC) < 0 || dup3(*dir, 4, O_CLOEXEC) < 0)
		return false;
	for (int i = 0; i < 3; i++)
		if (dup2(null, i) < 0)
			return false;
	(void)close_range(5, ~0U, 0);
	*fd = 3;
	*dir = 4;
	for (int s = 1; s < NSIG; s++)
		(void)sigaction(s, &dfl, NULL);
	(void)sigprocmask(SIG_SETMASK, none, NULL);
	/* Signals of the user's terminal are the launcher's; the end of its socket is ours. */
	return setsid() >= 0;
}

static void worker(const struct one *o, const char *work, int fd, int dir)
{
	struct worker w = { .lock_fd = -1, .source = o->source->path };
	struct vault_renew m;
	sigset_t none;

	(void)sigemptyset(&none);
	log_open("renewer", -1, LOG_LV_ERROR);
	if (!worker_begin(&fd, &dir, &none))
		_exit(1);
	renewlock_init(&w.lock, dir, prov_str[o->prov], o->source->path);
	w.run = (struct renew_run){ .program = o->source->program,
				    .path = prog_path(),
				    .work_parent = dir,
				    .work_path = work,
				    .until_fd = fd };
	while (recv(fd, &m, sizeof(m), 0) == sizeof(m))
		serve(&w, fd, &m);
	_exit(0);
}

/* --- the launcher --- */

static int start(const struct renewer *r, struct one *o)
{
	AUTO_FREE(char, work);
	struct err err = { "" };
	AUTO_FD(own);
	int pair[2], dir;
	pid_t pid;

	dir = own = renewlock_folder(getenv("XDG_RUNTIME_DIR"), &err);
	if (own == -ENOENT) {
		dir = r->root->locks_fd;
		work = xasprintf("%s/" STATE_RUN "/" STATE_LOCKS, r->root->path);
	} else if (own < 0) {
		log_warn("renewal of %s: %s", prov_str[o->prov], err.text);
		return own;
	} else {
		work = xasprintf("%s/agent-vm", getenv("XDG_RUNTIME_DIR"));
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		worker(o, work, pair[1], dir);
	(void)close(pair[1]);
	if (pid < 0) {
		int e = errno;

		(void)close(pair[0]);
		return -e;
	}
	o->pid = pid;
	o->fd = pair[0];
	return 0;
}

static struct one *find(struct renewer *r, unsigned prov)
{
	for (size_t i = 0; i < RENEWERS; i++)
		if (r->v[i].source && r->v[i].prov == prov)
			return &r->v[i];
	return NULL;
}

/* In place of a process. */
static void answer_lost(struct one *o, int vault_fd)
{
	if (o->asked)
		answer(vault_fd, &o->last, -EIO, -1, "");
	o->asked = false;
}

static bool is_for(const struct vault_renew *m, enum prov prov)
{
	return m->act != VAULT_RENEW_RUN ||
	       (prov == PROV_ANTHROPIC ? m->program == RENEW_CLAUDE_STATUS || m->program == RENEW_CLAUDE_PROMPT
				       : m->program == RENEW_CODEX_SERVER || m->program == RENEW_CODEX_SERVER_RENEW ||
						 m->program == RENEW_CODEX_EXEC);
}

int renewer_ask(struct renewer *r, const struct vault_renew *m, int vault_fd)
{
	struct one *o = r ? find(r, m->prov) : NULL;
	bool is_new = false;
	int k = o && m->act <= VAULT_RENEW_UNLOCK && is_for(m, o->prov) && !o->asked ? 0 : -EINVAL;

	if (k == 0 && o->fd < 0 && m->act != VAULT_RENEW_UNLOCK) {
		k = start(r, o);
		is_new = k == 0;
	}
	if (k == 0 && o->fd >= 0 && send(o->fd, m, sizeof(*m), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(*m))
		k = -EIO;
	if (m->act != VAULT_RENEW_UNLOCK) {
		if (k < 0)
			answer(vault_fd, m, k, -1, "");
		else
			*o = (struct one){ o->source, o->prov, o->fd, o->pid, true, *m };
		if (k == 0 && m->act == VAULT_RENEW_RUN)
			loginwatch_renewing(r->watch, (size_t)o->source->kind);
	}
	return is_new ? (int)(o - r->v) : -1;
}

int renewer_fd(const struct renewer *r, int i)
{
	return r->v[i].fd;
}

static void gone(struct one *o)
{
	close_p(&o->fd);
	o->fd = -1;
	/* It ends by itself, in two seconds if its program must be ended; whoever is init then waits for it. */
	if (o->pid > 0)
		(void)waitpid(o->pid, NULL, WNOHANG);
	o->pid = -1;
}

bool renewer_read(struct renewer *r, int i, int vault_fd)
{
	struct vault_renewed a;
	struct one *o = &r->v[i];
	ssize_t n = recv(o->fd, &a, sizeof(a), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n == sizeof(a)) {
		o->asked = false;
		if (a.act == VAULT_RENEW_RUN) {
			loginwatch_renewed(r->watch, (size_t)o->source->kind);
			log_info("renewal of %s: its program has run", prov_str[o->prov]);
		}
		(void)send(vault_fd, &a, sizeof(a), MSG_NOSIGNAL | MSG_DONTWAIT);
		return true;
	}
	log_warn("renewal of %s: its process ended", prov_str[o->prov]);
	loginwatch_renewed(r->watch, (size_t)o->source->kind);
	gone(o);
	answer_lost(o, vault_fd);
	return false;
}

static const struct {
	enum prov prov;
	enum source_kind kind;
} kinds[RENEWERS] = { { PROV_ANTHROPIC, SOURCE_ANTHROPIC }, { PROV_OPENAI, SOURCE_OPENAI } };

bool renewer_wrote(void *root, size_t kind, const char *path)
{
	const struct state_root *state = root;
	struct err err = { "" };
	struct renewlock l;
	AUTO_FREE(char, real);
	AUTO_FD(own);

	real = realpath(path, NULL);
	own = renewlock_folder(getenv("XDG_RUNTIME_DIR"), &err);
	for (size_t i = 0; real && (own >= 0 || own == -ENOENT) && i < RENEWERS; i++)
		if (kinds[i].kind == kind) {
			renewlock_init(&l, own >= 0 ? own : state->locks_fd, prov_str[kinds[i].prov], real);
			return renewlock_wrote(&l, real);
		}
	return false;
}

struct renewer *renewer_new(const struct creds *creds, const struct state_root *root, struct loginwatch *watch)
{
	struct renewer *r = xcalloc(1, sizeof(*r));
	struct err err = { "" };
	bool any = false;
	AUTO_FD(own);

	own = renewlock_folder(getenv("XDG_RUNTIME_DIR"), &err);
	if (own >= 0 || own == -ENOENT)
		renew_reap(own >= 0 ? own : root->locks_fd);
	r->root = root;
	r->watch = watch;
	for (size_t i = 0; i < RENEWERS; i++) {
		const struct creds_source *s = creds_source(creds, kinds[i].kind);

		r->v[i] = (struct one){
			.source = s && s->program ? s : NULL, .prov = kinds[i].prov, .fd = -1, .pid = -1
		};
		any |= r->v[i].source != NULL;
	}
	if (any)
		return r;
	free(r);
	return NULL;
}

void renewer_free(struct renewer *r)
{
	for (size_t i = 0; r && i < RENEWERS; i++)
		gone(&r->v[i]);
	free(r);
}
