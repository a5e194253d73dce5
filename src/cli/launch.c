/* A launch, in the order of spec/cli.md section 9.1: plan, folders, monitor, guest, agent, end. Each step that makes
 * something has its counterpart in launch_end(), which runs on every way out. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/macros.h"
#include "cli/debug_config.h"
#include "cli/group.h"
#include "cli/guest_creds.h"
#include "cli/guest_env.h"
#include "cli/hook.h"
#include "cli/images.h"
#include "cli/loginwatch.h"
#include "cli/monitor.h"
#include "cli/orders.h"
#include "cli/preflight.h"
#include "cli/profile.h"
#include "cli/run.h"
#include "cli/spawn.h"
#include "cli/stop.h"
#include "cli/table.h"
#include "cli/walls.h"
#include "image/qcow2.h"
#include "proto/guestcfg.h"
#include "sandbox/hide.h"
#include "image/update.h"
#include "session/aside.h"
#include "session/lock.h"
#include "session/made.h"
#include "session/older.h"
#include "session/registry.h"
#include "session/seed.h"
#include "session/session.h"
#include "session/sinks.h"
#include "session/trash.h"
#include "vault/violations.h"

#define TRASH_MS 300	    /* no signal is heard meanwhile */
#define AGENT_GRACE_MS 2000 /* for what still runs in the guest when the agent has ended */

struct launch {
	struct cli *cli;
	struct launch_args *args;
	struct plan plan;
	struct state_root root;
	struct session session;
	struct strv env, exec_prefix;
	struct cgroup_place group;
	int files_lock; /* of the project, while the guest applies its configuration */
	bool hook; /* the project has one, and it runs */
	struct buf config;
	struct spawned vmm;
	struct capture console, vmm_log;
	struct network network;
	struct renewer *renewer; /* NULL: no login that can be renewed */
	struct autopub *autopub; /* NULL: not asked for */
	struct selfprobe probe;
	struct credprobe credprobe;
	struct run *run;
	struct update *update; /* looking for a newer image beside the session */
	struct profile profile;
	struct sinks *before; /* NULL: the guest never had the files */
	struct confwatch *confs; /* NULL: the guest may write no git config */
	struct loginwatch logins;
	bool quiet;

	/* How it ended. */
	enum session_result result;
	int status; /* of ours; by_signal: end by this signal instead */
	int by_signal;
	struct err err; /* printed once at the end when it is not empty */
};

static void say(const struct launch *l, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void say(const struct launch *l, const char *fmt, ...)
{
	va_list ap;

	if (l->quiet)
		return;
	va_start(ap, fmt);
	(void)fputs("==> ", stderr);
	(void)vfprintf(stderr, fmt, ap);
	(void)fputc('\n', stderr);
	va_end(ap);
}

static void print_all(const struct strv *texts, const char *prefix)
{
	for (size_t i = 0; i < texts->n; i++)
		(void)fprintf(stderr, "agent-vm: %s: %s\n", prefix, texts->v[i]);
}

static void block_signals(sigset_t *old)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP };
	sigset_t set;

	(void)sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		(void)sigaddset(&set, sigs[i]);
	(void)sigprocmask(SIG_BLOCK, &set, old);
	(void)signal(SIGPIPE, SIG_IGN);
}

/* The words of the launch itself, for the record: without the agent part. */
static int make_session(struct launch *l)
{
	struct strv words = { 0 };
	int r;

	for (unsigned i = 1; i < l->cli->parsed.n_read; i++)
		strv_add(&words, l->cli->argv[i]);
	r = session_create(&l->session, &l->root, &l->plan.project, l->args->verb,
			   words.n > 0 ? (const char *const *)words.v : (const char *const[]){ NULL }, &l->err);
	strv_done(&words);
	return r;
}

static int open_log(const struct launch *l, const char *name)
{
	int fd = openat(l->session.log_fd, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? -errno : fd;
}

static int start_log(struct launch *l)
{
	int fd = open_log(l, "launcher.log");

	if (fd < 0)
		return err_set(&l->err, fd, "%s/launcher.log: %s", l->session.log_path, strerror(-fd));
	log_open("launcher", fd, LOG_LV_DEBUG);
	log_stderr(l->args->log_level);
	log_info("agent-vm %s, %s in %s", AGENT_VM_VERSION, l->args->verb, l->session.info.project);
	return 0;
}

/* Files of the project's state that must exist before the guest links to them. The guest can write there, so nothing is
 * followed. */
static int prepare_state(struct launch *l)
{
	AUTO_FD(history);
	AUTO_FREE(char, warning);
	int r;

	warning = older_secrets_warning(&l->root, l->plan.project.hash);
	if (warning)
		strv_add(&l->plan.warnings, warning);
	r = older_tokens_remove(l->root.fd, l->session.state_fd, l->session.state_path, &l->err);
	if (r == 0)
		r = aside_check(l->root.fd, l->session.state_fd, l->session.state_path, &l->plan.warnings, &l->err);
	trash_empty(l->root.fd, TRASH_MS);
	if (r < 0)
		return r;
	history = file_open_beneath(l->session.state_fd, "bash_history", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
	if (history < 0 && history != -EEXIST)
		return err_set(&l->err, history, "%s/bash_history: %s", l->session.state_path, strerror(-history));
	return 0;
}

static int prepare_disk(struct launch *l)
{
	const struct session *s = &l->session;
	uint64_t asked = l->plan.res.disk_mib << 20;
	int r;

	/* ext4 cannot be mounted on a device that is smaller; the guest takes the difference out of use (GC_ROOT_BYTES). */
	r = qcow2_create(s->dir_fd, SESSION_DISK, MAX(asked, l->plan.image.size_bytes), "base.ext4", &l->err);
	if (r < 0)
		return r;
	/* What "base.ext4" means where the cage cannot mount it there. */
	if (symlinkat(l->plan.image.disk_path, s->dir_fd, "base.ext4") < 0)
		return err_set(&l->err, -errno, "%s/base.ext4: %s", s->dir_path, strerror(errno));
	r = dir_make_at(s->dir_fd, "cage", 0700);
	if (r < 0)
		return err_set(&l->err, r, "%s/cage: %s", s->dir_path, strerror(-r));
	return 0;
}

/* A log of agent-vm-vmm, which the guest may take over: bounded. @ret_write: the role's end. */
static int open_capture(const struct launch *l, const char *name, struct capture *c, int *ret_write)
{
	AUTO_FD(file);
	int r;

	file = open_log(l, name);
	if (file < 0)
		return file;
	r = capture_open(c, file, ret_write);
	if (r == 0)
		(void)TAKE_FD(file);
	return r;
}

static int start_monitor(struct launch *l)
{
	AUTO_FD(log);
	AUTO_FD(console);
	AUTO_FD(group);
	struct buf orders;
	int r;

	r = open_capture(l, "vmm.log", &l->vmm_log, &log);
	if (r == 0)
		r = open_capture(l, "console.log", &l->console, &console);
	if (r < 0)
		return err_set(&l->err, r, "%s: its files cannot be made: %s", l->session.log_path, strerror(-r));
	buf_init(&orders, ORDERS_MAX);
	buf_init(&l->config, ORDERS_MAX);
	group = group_make(&l->plan, l->session.info.name, &l->group);
	r = orders_vmm(&l->plan, &l->session, &orders);
	if (r < 0)
		(void)err_set(&l->err, r, "VM: its configuration is longer than %d MiB; hide fewer files or mount fewer folders",
			      ORDERS_MAX >> 20);
	else
		r = vmm_spawn(l->plan.vmm_path, &orders, log, console, group, &l->vmm, &l->err);
	buf_done(&orders);
	if (r == 0 && l->vmm.not_in_group < 0)
		log_warn("no cgroup around the monitor: %s: %s", l->session.info.cgroup, strerror(-l->vmm.not_in_group));
	if (r == 0)
		(void)session_add_child(&l->session, "vmm", l->vmm.pid);
	return r;
}

/* For ps: what is published now. */
static void list_ports(void *arg)
{
	struct launch *l = arg;
	const struct ports *ports = &l->plan.net.ports;
	struct strv list = { 0 };

	for (size_t i = 0; i < ports->n_what; i++)
		strv_take(&list, ports_text(&ports->what[i], false));
	if (l->autopub)
		autopub_list(l->autopub, &list);
	(void)session_set_ports(&l->session, &list);
	strv_done(&list);
}

/* While the VM boots. */
static int start_network(struct launch *l)
{
	int r, log[NETWORK_ROLES], audit[2];

	r = selfprobe_value(&l->plan.net, &l->err);
	if (r == 0)
		r = selfprobe_open(&l->probe, &l->plan.net, l->plan.monitor == VMM_QEMU_TCG, &l->err);
	creds_ask_gh(&l->plan.creds);
	log[0] = open_log(l, "wire.log");
	log[1] = open_log(l, "vault.log");
	log[2] = open_log(l, "gate.log");
	audit[0] = openat(l->session.log_fd, "audit.jsonl", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	audit[1] = openat(l->session.log_fd, "audit.jsonl.1", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (r == 0 && (log[0] < 0 || log[1] < 0 || log[2] < 0 || audit[0] < 0 || audit[1] < 0))
		r = err_set(&l->err, -EIO, "%s: the network's logs cannot be made: %s", l->session.log_path, strerror(errno));
	if (r == 0)
		r = network_start(&l->plan.net, l->vmm.net_fd, l->plan.mac, l->session.info.name, log, audit, &l->network, &l->err);
	for (size_t i = 0; i < ARRAY_SIZE(log); i++)
		close_p(&log[i]);
	for (size_t i = 0; i < ARRAY_SIZE(audit); i++)
		close_p(&audit[i]);
	if (r < 0)
		return r;
	close_p(&l->vmm.net_fd); /* wire's now: its end is the link's end */
	(void)session_add_child(&l->session, "wire", l->network.wire.pid);
	(void)session_add_child(&l->session, "vault", l->network.vault.pid);
	if (l->network.gate.pid > 0)
		(void)session_add_child(&l->session, "gate", l->network.gate.pid);
	if (!l->network.as_asked)
		return err_set(&l->err, -EPERM, "self-probe: the policy in force is not the one that was asked for; nothing was started; "
			       "log: %s", l->session.log_path);
	if (l->plan.net.auto_publish)
		l->autopub = autopub_new(l->network.vault.fd, &l->plan.net.ports);
	if (l->plan.net.ports.n_what > 0)
		list_ports(l);
	return 0;
}

/* @ret: a line for each other session of the project. One that cannot be looked for may be there. */
static void find_others(struct launch *l, struct strv *ret)
{
	int n;

	strv_done(&l->plan.others);
	n = session_others_note(&l->session, ret, &l->plan.others);
	l->plan.others_known = n >= 0;
	l->plan.alone = n == 0;
}

static void files_unlock(void *arg)
{
	struct launch *l = arg;

	close_p(&l->files_lock);
	l->files_lock = -1;
}

/* Then what the guest is told. Not before: another session may have begun, and put its logins into the files, while this one
 * waited for its image. */
static int files_lock(void *arg, struct err *err)
{
	struct launch *l = arg;
	struct strv others = { 0 };
	AUTO_FREE(char, holder);
	int r;

	holder = xasprintf("%s, pid %ld", l->session.info.name, (long)getpid());
	l->files_lock = project_lock_try(&l->root, l->plan.project.hash, holder, err);
	if (l->files_lock < 0)
		return l->files_lock;
	find_others(l, &others);
	strv_done(&others);
	r = orders_guest(&l->plan, &l->session, &l->network, &l->probe, &l->config);
	if (r < 0) {
		files_unlock(l);
		return err_set(err, r, "guest: its configuration is longer than %d MiB; mount fewer folders", ORDERS_MAX >> 20);
	}
	return l->files_lock;
}

static int start_run(struct launch *l)
{
	struct run_spec spec = {
		.port_fd = l->vmm.port_fd,
		.control_fd = l->vmm.control_fd,
		.listen_fd = -1,
		.vmm_pid = l->vmm.pid,
		.network = &l->network,
		.renewer = l->renewer,
		.gh = &l->plan.creds.gh,
		.autopub = l->autopub,
		.on_ports = list_ports,
		.on_ports_arg = l,
		.probe = &l->probe,
		.credprobe = credprobe_wanted(&l->plan.creds, &l->network) ? &l->credprobe : NULL,
		.confs = l->confs,
		.emulated = l->plan.monitor == VMM_QEMU_TCG,
		.quiet = l->quiet,
		.progress = !l->quiet,
		.terminal = isatty(STDERR_FILENO),
		.config = &l->config,
		.lock = files_lock,
		.unlock = files_unlock,
		.lock_arg = l,
		.argv = &l->plan.argv,
		.env = &l->env,
		.exec_prefix = l->hook ? &l->exec_prefix : NULL,
		.cwd = l->plan.layout.project_guest,
		.log_dir = l->session.log_path,
		.console = &l->console,
		.vmm_log = &l->vmm_log,
		.stdin_forward = !l->args->agent->program,
	};
	AUTO_FD(log);
	int r;

	log = open_log(l, "launcher.log");
	l->credprobe.log_fd = log;
	l->credprobe.path = l->plan.net.probe_path;
	l->credprobe.creds = &l->plan.creds;
	r = session_listen(l->session.dir_fd, SESSION_SOCK, &spec.listen_fd);
	if (r < 0)
		return err_set(&l->err, r, "%s/" SESSION_SOCK ": %s", l->session.dir_path, strerror(-r));
	l->run = run_new(&spec, &l->err);
	return l->run ? 0 : -EIO;
}

static int draw_placeholders(struct launch *l)
{
	uint8_t seed[SEED_BYTES];
	int r;

	if (!creds_lent(&l->plan.creds))
		return 0;
	r = seed_take(&l->session, seed, &l->err);
	if (r == 0)
		creds_draw(&l->plan.creds, seed);
	return r;
}

/* Folders, session, logs. */
static int launch_prepare(struct launch *l)
{
	int r;

	r = state_root_open(l->plan.root_path, true, &l->root, &l->err);
	if (r < 0)
		return r;
	r = registry_reap(&l->root, REAP_GRACE_MS, NULL, &l->err);
	if (r < 0)
		return r;
	r = make_session(l);
	if (r < 0)
		return r;
	r = draw_placeholders(l);
	if (r < 0)
		return r;
	if (l->plan.probed_now)
		monitor_remember(l->root.cache_fd);
	if (l->plan.libkrunfw_new)
		monitor_library_remember(l->root.cache_fd, MONITOR_KRUNFW_FILE, l->plan.libkrunfw);
	if (l->plan.libkrun_new)
		monitor_library_remember(l->root.cache_fd, MONITOR_LIBKRUN_FILE, l->plan.libkrun);
	r = start_log(l);
	if (r < 0)
		return r;
	(void)session_set_vm(&l->session, l->plan.pull ? l->plan.pull : l->plan.image.reference,
			     monitor_name(l->plan.monitor), group_plan(l->session.info.name, &l->group));
	if (l->plan.monitor == VMM_KRUN)
		l->plan.kernel = monitor_kernel(l->plan.vmm_path, l->plan.libkrunfw, &l->root);
	return prepare_state(l);
}

/* The image was not stored when the plan was made. Shown on stderr: stdout is the agent's. */
static int pull_image(struct launch *l)
{
	struct pull_view view = { .next_draw_ns = 0 };
	struct pull_result res;
	struct store store;
	AUTO_FD(stop_fd);
	AUTO_FD(log);
	int r;

	r = store_open(l->root.fd, l->root.path, &store, &l->err);
	if (r < 0)
		return r;
	stop_fd = stop_open(NULL);
	log = open_log(l, "image.log");
	r = images_pull(&store, l->plan.pull, stop_fd, log, l->quiet, false, &view, &res, &l->err);
	if (r == 0) {
		pull_view_result(&view, &res, true);
		free(res.reference);
		r = store_find(&store, l->plan.pull, &l->plan.image, &l->err);
	}
	pull_view_done(&view);
	store_close(&store);
	if (r == 0)
		r = plan_image_fits(&l->plan, &l->err);
	if (r == -EINTR) {
		l->by_signal = stop_signal(stop_fd);
		l->status = 128 + l->by_signal;
		l->result = l->by_signal == SIGTERM ? SESSION_STOPPED : SESSION_SIGNAL;
	}
	return r;
}

static int launch_disk(struct launch *l)
{
	int r = l->plan.pull ? pull_image(l) : 0;

	if (r == 0)
		r = prepare_disk(l);
	return r < 0 ? r : made_take(&l->root, l->session.info.name, &l->plan.layout.guard, &l->err);
}

/* Nothing of it is needed for the session, so nothing of it can fail it. */
static void image_beside(struct launch *l)
{
	struct store store;
	AUTO_FD(log);

	if (store_open(l->root.fd, l->root.path, &store, NULL) < 0)
		return;
	store_used(&store, l->plan.image.reference);
	if (!l->args->no_update_check && !l->quiet && l->plan.image_role && l->plan.image.pulled) {
		log = open_log(l, "image.log");
		l->update = update_start(&store, &l->plan.image, l->plan.image_role, log < 0 ? -1 : log);
	}
	store_close(&store);
}

/* A share for copies of the user's own settings of the agents; they come into it while the VM boots. */
static void share_settings(struct launch *l)
{
	struct plan *p = &l->plan;

	/* Without namespaces each share is a device of QEMU's; they are copies, so it does not matter who may write them. */
	if (!p->namespaces && p->layout.n_shares >= VMM_QEMU_SHARES_MAX)
		strv_add(&p->notes, "your own settings of the agents: no room for one more share without namespaces; the guest does not get them");
	else if (host_settings_folder(p->home, l->session.dir_fd, l->session.dir_path, &p->settings))
		layout_add_settings(&p->layout, p->settings.dir, GC_HOST_AT, p->namespaces);
}

static void take_settings(struct launch *l)
{
	struct strv notes = { 0 };

	host_settings_take(l->plan.home, l->session.dir_fd, &l->plan.settings, &notes);
	if (!l->quiet)
		print_all(&notes, "note");
	strv_done(&notes);
}

static void launch_greet(struct launch *l)
{
	AUTO_FREE(char, config);
	AUTO_FREE(char, emulated);
	struct strv others = { 0 };

	if (!l->args->no_host_settings)
		share_settings(l);
	if (!l->quiet)
		table_banner(&l->plan, &l->session);
	find_others(l, &others);
	for (size_t i = 0; i < others.n; i++)
		say(l, "%s", others.v[i]);
	strv_done(&others);
	if (l->plan.layout.workspace_why)
		say(l, "%s", l->plan.layout.workspace_why);
	print_all(&l->plan.warnings, "warning");
	if (!l->quiet)
		print_all(&l->plan.notes, "note");
	if (l->plan.monitor == VMM_QEMU_TCG) {
		emulated = monitor_emulated(l->plan.kvm_reason);
		say(l, "%s; using QEMU emulation, which is slow and a weaker wall than KVM", emulated);
	}
	if (debug_config_wanted()) {
		config = debug_config_text(&l->plan, l->session.info.name);
		(void)fprintf(stderr, "%s\n", config);
	}
}

static void take_end(struct launch *l, enum run_end end)
{
	switch (end) {
	case RUN_EXIT:
		l->status = run_status(l->run);
		l->result = l->status > 128 ? SESSION_SIGNAL : SESSION_EXIT;
		break;
	case RUN_STOPPED:
		l->by_signal = run_status(l->run);
		l->status = 128 + l->by_signal;
		l->result = l->by_signal == SIGTERM ? SESSION_STOPPED : SESSION_SIGNAL;
		break;
	case RUN_FAILED:
		l->status = 1;
		l->result = SESSION_START_FAILED;
		break;
	default:
		l->status = 1;
		l->result = l->run && run_times(l->run)->exec > 0 ? SESSION_LOST : SESSION_START_FAILED;
	}
}

/* The trees that the guest can write, without the state folder. */
static struct sinks *take_sinks(const struct launch *l)
{
	const struct layout *lay = &l->plan.layout;
	struct strv trees = { 0 };
	struct sinks *s;

	/* Of the settings the guest has copies, which go with the session; without namespaces it may write them. */
	for (size_t i = 0; i < lay->n_shares; i++)
		if (!lay->shares[i].ro && lay->shares[i].kind != LAYOUT_STATE && lay->shares[i].kind != LAYOUT_SETTINGS)
			strv_add(&trees, lay->shares[i].host);
	s = sinks_take(&trees, l->plan.home);
	strv_done(&trees);
	return s;
}

/* What was undone in git configs that the guest may write, and what could not be. The guest is gone. */
static void report_confs(struct launch *l)
{
	const struct strv *undone;
	size_t n;

	if (!l->confs)
		return;
	confwatch_look(l->confs);
	undone = confwatch_undone(l->confs);
	for (size_t i = 0; i < undone->n; i += n) {
		for (n = 1; i + n < undone->n && strcmp(undone->v[i], undone->v[i + n]) == 0; n++)
			;
		(void)fprintf(stderr, "==> undone in a git config: %s", undone->v[i]);
		(void)(n > 1 ? fprintf(stderr, ", %zu times\n", n) : fputc('\n', stderr));
	}
	for (size_t i = 0; i < confwatch_failed(l->confs)->n; i++) {
		log_warn("git config: %s", confwatch_failed(l->confs)->v[i]);
		(void)fprintf(stderr, "agent-vm: warning: %s; look at it before git runs there\n", confwatch_failed(l->confs)->v[i]);
	}
	confwatch_free(l->confs);
	l->confs = NULL;
}

/* What the session left that runs on the host. */
static void launch_report(struct launch *l)
{
	struct sinks_left *left;
	struct sinks *after;
	size_t n;

	if (!l->before)
		return;
	after = take_sinks(l);
	sinks_compare(l->before, after, &left, &n);
	sinks_print(stderr, left, n, l->quiet);
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < left[i].itself.n; k++)
			log_info("left, runs by itself: %s", left[i].itself.v[k]);
		for (size_t k = 0; k < left[i].build.n; k++)
			log_info("left, runs on build: %s", left[i].build.v[k]);
	}
	sinks_left_free(left, n);
	sinks_free(after);
	sinks_free(l->before);
	l->before = NULL;
}

static void watch_logins(struct launch *l)
{
	struct strv paths = { 0 };

	creds_login_paths(getenv, l->plan.home, &paths);
	loginwatch_begin(&paths, &l->logins);
	l->logins.ours = renewer_wrote;
	l->logins.arg = &l->root;
	strv_done(&paths);
}

/* Login files of the host that somebody else wrote meanwhile: the user's own programs, or what got out of the VM. */
static void report_logins(struct launch *l)
{
	struct strv left = { 0 };

	loginwatch_compare(&l->logins, &left);
	for (size_t i = 0; i < left.n; i++)
		log_info("login file of the host, not written by a renewal: %s", left.v[i]);
	if (left.n > 0 && !l->quiet) {
		(void)fprintf(stderr, "==> logins of this host that changed meanwhile, not by a renewal: ");
		for (size_t i = 0; i < left.n; i++)
			(void)fprintf(stderr, "%s%s", i > 0 ? ", " : "", left.v[i]);
		(void)fprintf(stderr, "\n");
	}
	strv_done(&left);
	loginwatch_done(&l->logins);
}

/* What in the VM tried a credential again and again where it is not sent, and what a service gave back of one. */
static void report_requests(struct launch *l)
{
	AUTO_FREE(char, echoes);

	network_drain(&l->network, l->run != NULL);
	for (size_t h = 0; h < HOSTS; h++) {
		if (!l->network.vault.violated[h])
			continue;
		log_warn("%s: " VIOLATIONS_LINE, l->args->verb, VIOLATIONS_TOLD, prov_hosts[h].name);
		if (!l->quiet)
			(void)fprintf(stderr, "==> %s: " VIOLATIONS_LINE "; agent-vm logs --denied %s shows them\n", l->args->verb,
				      VIOLATIONS_TOLD, prov_hosts[h].name, l->session.info.name);
	}
	echoes = echoes_text(&l->network.vault.echoes);
	if (!echoes)
		return;
	log_warn(ECHOES_LINE "%s", echoes);
	if (!l->quiet)
		(void)fprintf(stderr, "==> " ECHOES_LINE "%s; agent-vm logs --role audit %s shows when\n", echoes, l->session.info.name);
}

/* What was lent and was not there when a request needed it; gh's may have been lent before gh had been asked. */
static void report_lacks(const struct launch *l)
{
	static const struct {
		uint32_t kinds;
		const char *agent, *command;
	} files[] = {
		{ PH_BIT(PH_CLAUDE_A), "claude", "claude" },
		{ PH_BIT(PH_CODEX_A) | PH_BIT(PH_CODEX_KEY), "codex", "codex login" },
		{ PH_BIT(PH_ZAI) | PH_BIT(PH_ZAI_CP) | PH_BIT(PH_ZHIPU) | PH_BIT(PH_ZHIPU_CP) | PH_BIT(PH_KIMI) | PH_BIT(PH_MOONSHOT) |
			  PH_BIT(PH_MOONSHOT_CN), "opencode", "opencode auth login" },
		{ PH_BIT(PH_COPILOT), "copilot", "copilot login" },
	};
	uint32_t lacks = l->network.vault.lacks;

	if (lacks & PH_BIT(PH_GH))
		(void)fprintf(stderr, "agent-vm: warning: gh gave no token that GitHub takes, so requests with it were refused; sign in with: gh auth login\n");
	if (lacks & PH_BIT(PH_COPILOT) && l->plan.creds.gh.program) {
		(void)fprintf(stderr, "agent-vm: warning: gh gave no token that Copilot takes (gho_, ghu_ or github_pat_); sign in with: gh auth login\n");
		lacks &= ~PH_BIT(PH_COPILOT);
	}
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (lacks & files[i].kinds)
			(void)fprintf(stderr, "agent-vm: warning: %s: this host was signed out, or its login file could not be used (agent-vm logs --role "
				      "vault says why), so requests were refused; sign in with: %s\n", files[i].agent, files[i].command);
}

static void walls_tell(const struct launch *l)
{
	AUTO_FREE(char, warning);

	warning = walls_warning(run_walls(l->run), geteuid() == 0);
	if (warning)
		(void)fprintf(stderr, "agent-vm: warning: %s\n", warning);
}

/* After the network was started: only then it is known whether there is a certificate. */
static void make_env(struct launch *l)
{
	struct strv logins = { 0 }, typed = { 0 };
	struct guest_env_args ea = { .image = &l->plan.image.env, .logins = &logins, .user = &l->args->env, .typed = &typed,
				     .session = l->session.info.name, .project = l->plan.layout.project_guest,
				     .ca = guest_creds_ca(&l->network, &l->plan.upstream) };

	creds_env(&l->plan.creds, false, &logins);
	creds_env(&l->plan.creds, true, &typed);
	guest_env(&ea, &l->env);
	strv_done(&logins);
	strv_done(&typed);
}

/* Caller owns. NULL: bash runs, and every image has that. */
static char *image_lacks(const struct launch *l)
{
	const char *program = l->args->agent->program;

	return program ? xasprintf("agent-vm: %s: not in the image %s; get one that has it with agent-vm pull or agent-vm build, or choose "
				   "another with --image", program, l->plan.image.reference)
		       : NULL;
}

/* What comes before the agent, now that it is known what the image has. */
static void launch_hook(struct launch *l)
{
	AUTO_FREE(char, lacks);

	if (l->hook)
		say(l, "running " HOOK_FILE);
	if (!l->hook && !run_has_seed(l->run))
		return;
	lacks = image_lacks(l);
	hook_wrap(&l->plan.argv, l->hook, lacks);
}

static void launch_run_guest(struct launch *l)
{
	enum run_end end;

	l->hook = !l->args->no_hook && hook_is_there(l->plan.project.fd);
	hook_exec_prefix(&l->exec_prefix);
	l->profile.cpu_before_vmm_ns = profile_cpu_ns();
	l->profile.image = now_ns();
	if (start_monitor(l) < 0) {
		take_end(l, RUN_FAILED);
		return;
	}
	/* While the VM boots; it gets no files before run_boot() has sent it its configuration. */
	if (l->plan.layout.guard.configs.n > 0 && confwatch_open(&l->plan.layout.guard.configs, &l->confs, &l->err) < 0) {
		take_end(l, RUN_FAILED);
		return;
	}
	l->before = take_sinks(l);
	watch_logins(l);
	if (!l->args->no_host_settings)
		take_settings(l);
	if (start_network(l) < 0) {
		take_end(l, RUN_FAILED);
		return;
	}
	make_env(l);
	l->renewer = renewer_new(&l->plan.creds, &l->root, &l->logins);
	if (start_run(l) < 0) {
		take_end(l, RUN_FAILED);
		return;
	}
	l->profile.spawned = now_ns();
	image_beside(l);
	if (l->plan.gitid.ask && !l->args->no_git && !l->args->no_network)
		gitid_ask(l->root.cache_fd, l->plan.home);
	end = run_boot(l->run, &l->err);
	if (end == RUN_OPEN) {
		walls_tell(l);
		table_rows(&l->plan, &l->session, l->quiet);
		(void)session_write_json(&l->session);
		launch_hook(l);
		log_stderr(-1); /* from here on the terminal is the agent's */
		end = run_agent(l->run, &l->err);
	}
	take_end(l, end);
	l->profile.down = now_ns();
	if (!run_down(l->run, AGENT_GRACE_MS) && (end == RUN_EXIT || end == RUN_STOPPED) && run_times(l->run)->exec > 0)
		(void)fprintf(stderr, "agent-vm: warning: VM: it did not shut down in time; what was written last may be missing; logs: %s\n",
			      l->session.log_path);
}

/* What is worth a line after the agent. */
static void launch_remarks(struct launch *l)
{
	AUTO_FREE(char, newer);
	AUTO_FREE(char, lacks);
	const char *note;
	int e;

	newer = update_finish(l->update);
	l->update = NULL;
	if (!l->run)
		return;
	for (size_t i = 0; i < run_held(l->run)->n; i++)
		(void)fprintf(stderr, "==> %s\n", run_held(l->run)->v[i]);
	/* The guest could not start it. Where bash comes before it, bash has said so. */
	if (run_exit_text(l->run)[0] != '\0') {
		lacks = l->result == SESSION_EXIT && l->status == 127 ? image_lacks(l) : NULL;
		if (lacks)
			(void)fprintf(stderr, "%s\n", lacks);
		else
			(void)fprintf(stderr, "agent-vm: %s\n", run_exit_text(l->run));
	}
	if (l->session.info.cgroup && cgroup_ran_out(l->session.info.cgroup))
		(void)fprintf(stderr, "agent-vm: VM: its monitor needed more than %lu MiB, the limit of its cgroup, and was ended by the "
			      "kernel; use a smaller --memory, or mount fewer files\n",
			      (unsigned long)(group_limits(&l->plan).memory_bytes >> 20));
	if (run_out_of_memory(l->run))
		(void)fprintf(stderr, "agent-vm: note: memory ran out in the VM; give it more with --memory\n");
	e = run_output_error(l->run);
	if (e != 0) {
		(void)fprintf(stderr, "agent-vm: output: %s; some of it was lost\n", strerror(e));
		l->status = l->status ? l->status : 1;
	}
	note = l->result == SESSION_EXIT ? agent_note(l->args->agent, l->args->agent_part, l->status) : NULL;
	if (note && !l->quiet)
		(void)fprintf(stderr, "agent-vm: note: %s\n", note);
	if (newer)
		(void)fprintf(stderr, "agent-vm: note: %s\n", newer);
}

/* Undo, last made first. Safe after any part of the launch. */
static void launch_end(struct launch *l, int profile_mode)
{
	struct run *run = l->run;

	if (l->err.text[0] != '\0')
		(void)fprintf(stderr, "agent-vm: %s\n", l->err.text);
	launch_remarks(l);
	if (!run && l->vmm.pid > 0) {
		(void)kill(l->vmm.pid, SIGKILL);
		(void)waitpid(l->vmm.pid, NULL, 0);
	}
	report_confs(l);
	launch_report(l);
	report_logins(l);
	report_requests(l);
	report_lacks(l);
	l->profile.reported = now_ns();
	capture_close(&l->console);
	capture_close(&l->vmm_log);
	if (l->session.lock_fd >= 0 && creds_lent(&l->plan.creds))
		seed_drop(&l->session);
	if (l->session.lock_fd >= 0)
		made_drop(&l->root, l->session.info.name);
	if (l->session.lock_fd >= 0)
		(void)session_end(&l->session, l->result, l->status, l->err.text[0] ? l->err.text : NULL);
	files_unlock(l);
	l->profile.cleaned = now_ns();
	if (profile_mode)
		profile_print(&l->profile, run, profile_mode);
	run_free(run);
	autopub_free(l->autopub);
	network_stop(&l->network);
	renewer_free(l->renewer);
	selfprobe_close(&l->probe);
	credprobe_end(&l->credprobe);
	close_p(&l->vmm.net_fd);
	session_done(&l->session);
	state_root_close(&l->root);
	strv_done(&l->env);
	strv_done(&l->exec_prefix);
	cgroup_place_done(&l->group);
	buf_done(&l->config);
	plan_done(&l->plan);
}

static void end_by(int sig)
{
	sigset_t set;

	(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, sig);
	(void)raise(sig);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int launch_run(struct cli *cli, void *args, char **rest)
{
	struct launch l = { .cli = cli, .args = args, .root = STATE_ROOT_INIT, .session = SESSION_INIT,
			    .vmm = { .control_fd = -1, .port_fd = -1, .net_fd = -1 }, .console = CAPTURE_INIT, .vmm_log = CAPTURE_INIT,
			    .files_lock = -1, .network = NETWORK_INIT, .probe = SELFPROBE_INIT, .credprobe = CREDPROBE_INIT,
			    .result = SESSION_START_FAILED, .status = 1 };
	struct strv hints = { 0 };
	sigset_t old;
	int status, profile_mode = profile_wanted();

	l.profile.start = cli->started;
	l.profile.parsed = now_ns();
	l.args->agent_part = rest;
	l.quiet = l.args->quiet;
	buf_init(&l.config, 0);
	hide_no_core(); /* keys in the environment, the password of a proxy */
	preflight(cli, l.args, &l.plan);
	status = problems_report(&cli->problems, stderr, "nothing was started");
	if (status != 0) {
		plan_done(&l.plan);
		return status;
	}
	l.profile.preflight = now_ns();
	launch_warnings(l.args, &l.plan.warnings);
	launch_hints(l.args, &hints);
	for (size_t i = 0; i < hints.n; i++)
		(void)fprintf(stderr, "agent-vm: note: %s\n", hints.v[i]);
	strv_done(&hints);

	block_signals(&old);
	if (launch_prepare(&l) == 0) {
		launch_greet(&l);
		if (launch_disk(&l) == 0)
			launch_run_guest(&l);
	}
	launch_end(&l, profile_mode);
	if (l.by_signal)
		end_by(l.by_signal);
	return l.status;
}
