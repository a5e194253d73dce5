/* A session on disk, from the launcher's side. See session/session.h for the layout and session/registry.h for the rules
 * that keep makers, readers and reapers apart. */
#include "session/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "session/cgroup.h"
#include "session/lock.h"
#include "session/logs.h"
#include "session/registry.h"

#define NAME_TRIES 100
#define BACKLOG 16
#define RECORD_MAX (64 * 1024) /* run/projects/<hash>: a path and some words */
#define RECORD_VERSION 1

static int64_t now_real_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int dir_new_at(int dirfd, const char *name, int *ret_fd)
{
	AUTO_FD(fd);

	if (mkdirat(dirfd, name, 0700) < 0)
		return -errno;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0700) < 0) {
		int r = -errno;

		(void)unlinkat(dirfd, name, AT_REMOVEDIR);
		return r;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* A name is taken while its folder or its logs exist, so logs that are kept are never mixed with new ones. */
static int folders_make(struct session *s, pid_t pid)
{
	int r = -EEXIST;

	for (unsigned int nth = 1; nth <= NAME_TRIES; nth++) {
		session_name(s->info.hash, pid, nth, s->info.name);
		r = dir_new_at(s->root->sessions_fd, s->info.name, &s->dir_fd);
		if (r == -EEXIST)
			continue;
		if (r < 0)
			return r;
		r = dir_new_at(s->root->logs_fd, s->info.name, &s->log_fd);
		if (r == 0)
			return 0;
		(void)close(TAKE_FD(s->dir_fd));
		(void)unlinkat(s->root->sessions_fd, s->info.name, AT_REMOVEDIR);
		if (r != -EEXIST)
			return r;
	}
	return r;
}

/* run/projects/<hash>: {version, path, first_use, last_use}, other members are kept. */
static int project_record(const struct state_root *root, const struct project *p, int64_t now_ms, struct err *err)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, shown);
	json_t *obj = NULL;
	size_t n;
	int r;

	r = file_read_beneath(root->projects_fd, p->hash, RECORD_MAX, &text, &n);
	if (r == 0)
		obj = json_loadb(text, n, 0, NULL);
	free(TAKE_PTR(text));
	if (json_integer_value(json_object_get(obj, "version")) > RECORD_VERSION) {
		json_decref(obj);
		return err_set(err, -EOPNOTSUPP, "%s/run/projects/%s: written by a newer agent-vm; update agent-vm",
			       root->path, p->hash);
	}
	if (!json_is_object(obj)) {
		json_decref(obj);
		obj = json_pack("{s:i, s:I}", "version", RECORD_VERSION, "first_use", (json_int_t)now_ms);
	}
	shown = str_escape(p->path, strlen(p->path));
	r = json_object_set_new(obj, "path", str_is_utf8(p->path, strlen(p->path)) ? json_string(p->path) : json_string(shown));
	if (r == 0)
		r = json_object_set_new(obj, "last_use", json_integer(now_ms));
	if (r == 0)
		text = json_dumps(obj, JSON_INDENT(1));
	json_decref(obj);
	r = text ? file_replace_at(root->projects_fd, p->hash, text, strlen(text), 0600) : -ENOMEM;
	return r == 0 ? 0
		      : err_set(err, r, "%s/run/projects/%s: cannot be written: %s", root->path, p->hash, strerror(-r));
}

int session_write_json(struct session *s)
{
	if (s->dir_fd < 0 || s->ended || getpid() != s->owner)
		return -EINVAL;
	return session_info_write(s->dir_fd, &s->info, false);
}

/* The words without the values of --env, which may be secrets. */
static void options_fill(struct strv *to, const char *const *words)
{
	bool value_next = false;

	for (; words && *words; words++) {
		const char *from = *words;
		const char *eq;

		if (str_starts(from, "--env="))
			from += strlen("--env=");
		else if (!value_next) {
			value_next = strcmp(from, "--env") == 0;
			strv_add(to, from);
			continue;
		}
		value_next = false;
		eq = strchr(from, '=');
		if (eq)
			strv_addf(to, "%.*s=***", (int)(eq - *words), *words);
		else
			strv_add(to, *words);
	}
}

static int fill(struct session *s, const struct project *project, struct err *err)
{
	const struct state_root *root = s->root;
	AUTO_FD(registry);
	int r;

	r = dir_make_at(root->fd, project->hash, 0700);
	if (r == 0) {
		s->state_fd = dir_open_own(root->fd, project->hash);
		r = s->state_fd < 0 ? s->state_fd : 0;
	}
	if (r < 0)
		return err_set(err, r, "%s/%s: cannot be used as the project's state folder: %s; it must be a folder",
			       root->path, project->hash, strerror(-r));
	s->state_path = xasprintf("%s/%s", root->path, project->hash);
	registry = registry_lock(root, err);
	if (registry < 0)
		return registry;
	r = folders_make(s, s->owner);
	if (r < 0)
		return err_set(err, r, "%s/run/sessions/%s: cannot be made: %s", root->path, s->info.name, strerror(-r));
	s->dir_path = xasprintf("%s/" STATE_RUN "/" STATE_SESSIONS "/%s", root->path, s->info.name);
	s->log_path = xasprintf("%s/" STATE_RUN "/" STATE_LOGS "/%s", root->path, s->info.name);
	s->lock_fd = lock_file_at(s->dir_fd, SESSION_LOCK, 0);
	r = s->lock_fd < 0 ? s->lock_fd : session_write_json(s);
	if (r < 0)
		return err_set(err, r, "%s: cannot be written: %s", s->dir_path, strerror(-r));
	return project_record(root, project, s->info.started_ms, err);
}

static void drop(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static void release(struct session *s)
{
	drop(&s->dir_fd);
	drop(&s->log_fd);
	drop(&s->state_fd);
	drop(&s->lock_fd);
	free(TAKE_PTR(s->dir_path));
	free(TAKE_PTR(s->log_path));
	free(TAKE_PTR(s->state_path));
	session_info_done(&s->info);
	s->root = NULL;
}

int session_create(struct session *ret, const struct state_root *root, const struct project *project, const char *verb,
		   const char *const *words, struct err *err)
{
	struct session s = SESSION_INIT;
	int r;

	s.root = root;
	s.owner = getpid();
	memcpy(s.info.hash, project->hash, sizeof(s.info.hash));
	s.info.project = xstrdup(project->path);
	s.info.verb = xstrdup(verb);
	s.info.started_ms = now_real_ms();
	options_fill(&s.info.options, words);
	r = proc_id_self(&s.info.launcher);
	if (r < 0)
		r = err_set(err, r, "/proc/self: cannot be read: %s; agent-vm needs /proc", strerror(-r));
	else
		r = fill(&s, project, err);
	if (r < 0) {
		if (s.log_fd >= 0) {
			(void)file_remove_tree_at(root->sessions_fd, s.info.name);
			(void)file_remove_tree_at(root->logs_fd, s.info.name);
		}
		release(&s);
		return r;
	}
	*ret = s;
	return 0;
}

int session_add_child(struct session *s, const char *role, pid_t pid)
{
	struct session_child c = { .role = "" };
	int r;

	if (s->info.n_children == SESSION_CHILDREN_MAX)
		return -ENOBUFS;
	if (strlen(role) >= sizeof(c.role))
		return -EINVAL;
	memcpy(c.role, role, strlen(role));
	r = proc_id_of(pid, &c.id);
	if (r < 0)
		return r;
	s->info.children[s->info.n_children++] = c;
	return session_write_json(s);
}

int session_drop_child(struct session *s, pid_t pid)
{
	for (size_t i = 0; i < s->info.n_children; i++) {
		if (s->info.children[i].id.pid != pid)
			continue;
		s->info.children[i] = s->info.children[--s->info.n_children];
		return session_write_json(s);
	}
	return -ESRCH;
}

int session_set_vm(struct session *s, const char *image, const char *monitor, char *cgroup)
{
	free(s->info.image);
	free(s->info.monitor);
	free(s->info.cgroup);
	s->info.image = xstrdup(image);
	s->info.monitor = xstrdup(monitor);
	s->info.cgroup = cgroup;
	return session_write_json(s);
}

int session_set_ports(struct session *s, const struct strv *ports)
{
	strv_done(&s->info.ports);
	s->info.ports = (struct strv){ 0 };
	for (size_t i = 0; i < ports->n; i++)
		strv_add(&s->info.ports, ports->v[i]);
	return session_write_json(s);
}

void session_add_row(struct session *s, const char *label, const char *text)
{
	s->info.rows = xrealloc(s->info.rows, (s->info.n_rows + 1) * sizeof(*s->info.rows));
	s->info.rows[s->info.n_rows++] = (struct session_row){ xstrdup(label), xstrdup(text) };
}

bool session_stop_asked(const struct session *s)
{
	struct stat st;

	return s->dir_fd >= 0 && fstatat(s->dir_fd, SESSION_STOP, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int session_end(struct session *s, enum session_result result, int exit_status, const char *cause)
{
	struct logs_rule rule = LOGS_RULE_DEFAULT;
	AUTO_FD(registry);
	int first, r;

	if (!s->root || s->ended || getpid() != s->owner)
		return 0;
	s->info.n_children = 0;
	s->info.result = result;
	s->info.exit_status = exit_status;
	s->info.ended_ms = now_real_ms();
	free(s->info.cause);
	s->info.cause = cause ? xstrdup(cause) : NULL;
	s->ended = true;
	/* The record comes first: from here on a reaper that finds the rest knows that the session was not lost. */
	first = session_info_write(s->log_fd, &s->info, true);
	r = s->info.cgroup ? cgroup_drop(s->info.cgroup, s->info.name) : 0;
	if (r < 0 && first == 0)
		first = r;
	registry = registry_lock(s->root, NULL);
	if (registry < 0 && first == 0)
		first = registry;
	r = file_remove_tree_at(s->root->sessions_fd, s->info.name);
	if (r < 0 && first == 0)
		first = r;
	drop(&s->lock_fd);
	drop(&s->dir_fd);
	if (registry >= 0)
		(void)logs_retain(s->root, &rule, s->info.ended_ms / 1000);
	return first;
}

void session_done(struct session *s)
{
	(void)session_end(s, SESSION_LOST, 1, "the launcher ended without a result");
	release(s);
}

/* sun_path holds 108 bytes, a folder's path more; /proc/self/fd/N/NAME is short and is resolved by the kernel at bind
 * and connect. */
static int sock_addr(int dirfd, const char *name, struct sockaddr_un *addr)
{
	int n;

	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(addr->sun_path, sizeof(addr->sun_path), "/proc/self/fd/%d/%s", dirfd, name);
	return n < 0 || (size_t)n >= sizeof(addr->sun_path) ? -ENAMETOOLONG : 0;
}

int session_listen(int dirfd, const char *name, int *ret_fd)
{
	struct sockaddr_un addr;
	AUTO_FD(fd);
	int r;

	r = sock_addr(dirfd, name, &addr);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode of the socket's own inode is what bind() gives the file, less the umask; so it is set once more. */
	if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    fchmodat(dirfd, name, 0600, 0) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int session_connect(int dirfd, const char *name, int *ret_fd)
{
	struct sockaddr_un addr;
	AUTO_FD(fd);
	int r;

	r = sock_addr(dirfd, name, &addr);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}
