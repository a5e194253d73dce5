#include "cli/preflight.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/prog.h"
#include "cli/find.h"
#include "cli/images.h"
#include "cli/monitor.h"
#include "cli/netplan.h"
#include "cli/specs.h"
#include "proto/imagemsg.h"
#include "sandbox/ns.h"
#include "session/mount_spec.h"

#define DISK_WARN (UINT64_C(1) << 30)	/* spec/cli.md section 18 */
#define DISK_ERROR (UINT64_C(256) << 20)
#define MAKE_ROOM "make room (agent-vm prune may find some) or set AGENT_VM_STATE_DIR to another folder"

static const char *variable(const char *name)
{
	return getenv(name);
}

char *preflight_home(void)
{
	const char *home = getenv("HOME");
	const struct passwd *pw;
	char *real;

	if (!home || *home != '/') {
		pw = getpwuid(geteuid());
		home = pw ? pw->pw_dir : NULL;
	}
	if (!home)
		return NULL;
	real = realpath(home, NULL);
	return real ? real : xstrdup(home);
}

static void plan_root(struct cli *cli, struct plan *p)
{
	AUTO_FREE(char, warning);
	struct err err;
	int r;

	r = state_root_path(&p->root_path, &warning, &err);
	if (r == -EINVAL)
		problem_text(&cli->problems, "%s", err.text);
	else if (r < 0 || state_root_check(p->root_path, &err) < 0)
		problem_world(&cli->problems, "%s", err.text);
	if (warning)
		strv_add(&p->warnings, warning);
}

/* A finding about a value that was typed is reported at the word that gave it. */
static void finding_place(struct cli *cli, const char *text)
{
	static const char *const names[] = { "mount", "expose", "hide" };

	problems_at(&cli->problems, PROBLEMS_AT_END);
	for (size_t i = 0; i < cli->parsed.n_uses; i++) {
		const struct opt_use *use = &cli->parsed.uses[i];

		for (size_t k = 0; use->value && k < ARRAY_SIZE(names); k++) {
			AUTO_FREE(char, value);
			AUTO_FREE(char, head);

			if (strcmp(use->opt->name, names[k]) != 0)
				continue;
			value = str_escape(use->value, strlen(use->value));
			head = xasprintf("--%s %s:", names[k], value);
			if (str_starts(text, head)) {
				problems_at(&cli->problems, use->at);
				return;
			}
		}
	}
}

static void take_findings(struct cli *cli, struct plan *p, const struct findings *found)
{
	for (size_t i = 0; i < found->n; i++) {
		const struct finding *f = &found->v[i];

		finding_place(cli, f->text);
		switch (f->kind) {
		case FINDING_TYPED:
			problem_text(&cli->problems, "%s", f->text);
			break;
		case FINDING_WORLD:
			problem_world(&cli->problems, "%s", f->text);
			break;
		case FINDING_WARNING:
			strv_add(&p->warnings, f->text);
			break;
		default:
			strv_add(&p->notes, f->text);
		}
	}
	problems_at(&cli->problems, PROBLEMS_AT_END);
}

static const char *const *list(const struct strv *s)
{
	return s->n > 0 ? (const char *const *)s->v : NULL;
}

/* All that a launch executes or loads, as far as it is there: what is missing is reported elsewhere. The kernel's file lies in
 * the state root, which is never shown. */
static void own_parts(struct strv *own)
{
	static const char *const roles[] = { "agent-vm-vmm", "agent-vm-wire", "agent-vm-vault", "agent-vm-gate", "agent-vm-probe", "agent-vm-image" };
	int (*const finders[])(char **, struct err *) = { find_libkrun,	   find_libkrunfw, find_boot_dir,
							  find_boot_image, find_qemu,	   find_virtiofsd };
	char *path = realpath("/proc/self/exe", NULL);

	if (path)
		strv_take(own, path);
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
		if (find_role(roles[i], &path, NULL) == 0)
			strv_take(own, path);
	for (size_t i = 0; i < ARRAY_SIZE(finders); i++)
		if (finders[i](&path, NULL) == 0)
			strv_take(own, path);
}

static void plan_walls(struct plan *p)
{
	struct err why;

	p->namespaces = ns_probe(&p->ns_kinds, &why) == 0;
	if (!p->namespaces)
		strv_addf(&p->warnings, "%s; without it the guard of .git is the report at the end alone", why.text);
}

/* What a monitor can only do with mounts of its own (agent-vm-vmm refuses it likewise). */
static void need_namespaces(struct cli *cli, const struct plan *p)
{
	bool told = false;

	for (size_t i = 0; i < cli->parsed.n_uses; i++) {
		const struct opt_use *use = &cli->parsed.uses[i];
		struct findings found = { 0 };
		struct mount_spec spec;
		AUTO_FREE(char, shown);

		if (use->bad || strcmp(use->opt->name, "mount") != 0)
			continue;
		if (mount_spec_parse(use->value, &spec, &found) == 0) {
			shown = spec.ro ? str_escape(use->value, strlen(use->value)) : NULL;
			mount_spec_done(&spec);
		}
		findings_done(&found);
		if (!shown)
			continue;
		told = true;
		problems_at(&cli->problems, use->at);
		problem_world(&cli->problems, "--mount %s: cannot be made read-only without namespaces, which this host refuses; mount "
			      "it writable, or see agent-vm doctor for how to allow them", shown);
	}
	problems_at(&cli->problems, PROBLEMS_AT_END);
	for (size_t i = 0; i < p->layout.n_shares && !told; i++) {
		AUTO_FREE(char, shown);

		if (!p->layout.shares[i].ro)
			continue;
		shown = str_escape(p->layout.shares[i].host, strlen(p->layout.shares[i].host));
		problem_world(&cli->problems, "%s: cannot be made read-only for the guest without namespaces, which this host refuses; "
			      "use --git-dir none, or see agent-vm doctor for how to allow them", shown);
	}
}

static void plan_files(struct cli *cli, struct launch_args *args, struct plan *p)
{
	AUTO_FREE(char, state_dir);
	struct findings found = { 0 };
	struct strv own = { 0 };
	struct layout_args la;
	struct err err;

	if (project_open_cwd(&p->project, &err) < 0) {
		problem_world(&cli->problems, "%s", err.text);
		return;
	}
	if (!p->root_path)
		return;
	state_dir = xasprintf("%s/%s", p->root_path, p->project.hash);
	own_parts(&own);
	la = (struct layout_args){
		.project = p->project.path,
		.home = p->home,
		.state_root = p->root_path,
		.state_dir = state_dir,
		.uid = geteuid(),
		.mounts = list(&args->mounts),
		.expose = list(&args->expose),
		.hide = list(&args->hide),
		.own = list(&own),
		.no_hide = args->no_hide,
		.no_git_dir = strcmp(args->git_dir, "none") == 0,
		.git_config_rw = strcmp(args->git_config, "rw") == 0,
		.report_only = !p->namespaces,
	};
	if (layout_plan(&la, &p->layout, &found) == 0)
		for (size_t i = 0; i < p->layout.n_shares; i++)
			prog_shun(p->layout.shares[i].host);
	take_findings(cli, p, &found);
	findings_done(&found);
	strv_done(&own);
	if (!p->namespaces)
		need_namespaces(cli, p);
}

/* The state root as it is: -1 when it is not there. */
static int root_cache(struct cli *cli, const struct plan *p, struct state_root *root)
{
	struct err err, said;
	int r = p->root_path ? state_root_open(p->root_path, false, root, &err) : -ENOENT;

	/* What the check finds plan_root() has told. */
	if (r < 0 && r != -ENOENT && state_root_check(p->root_path, &said) == 0)
		problem_world(&cli->problems, "%s", err.text);
	return r < 0 ? -1 : root->cache_fd;
}

/* @r: of finding a library. A wrong value of a variable is the user's text, a file that is missing is not. */
static void library_missing(struct cli *cli, int r, const struct err *err)
{
	if (r == -EINVAL)
		problem_text(&cli->problems, "%s", err->text);
	else
		problem_world(&cli->problems, "%s", err->text);
}

static void plan_monitor(struct cli *cli, const struct launch_args *args, struct plan *p, int cache_fd)
{
	struct err krun_err = { "" }, qemu_err = { "" }, err;
	struct monitor_choice choice;
	const char *no_krun = NULL, *no_qemu = NULL, *named = variable("AGENT_VM_LIBKRUN");
	int r;

	if (find_role("agent-vm-vmm", &p->vmm_path, &err) < 0)
		problem_world(&cli->problems, "%s", err.text);
	if (find_boot_dir(&p->boot_dir, &err) < 0 || find_boot_image(&p->boot_image, &err) < 0)
		problem_world(&cli->problems, "%s", err.text);
	/* Both monitors boot libkrunfw's kernel. */
	r = find_libkrunfw(&p->libkrunfw, &err);
	if (r < 0)
		library_missing(cli, r, &err);
	/* What the variable names is an error also where QEMU would be used. */
	r = find_libkrun(&p->libkrun, &krun_err);
	if (r < 0 && named && *named)
		library_missing(cli, r, &krun_err);
	else if (r < 0)
		no_krun = krun_err.text;
	if (!p->vmm_path)
		return; /* it answers what follows */
	if (p->libkrunfw && monitor_library_check(p->vmm_path, "--version-krunfw", p->libkrunfw, cache_fd, MONITOR_KRUNFW_FILE,
						  &p->libkrunfw_new, &err) < 0)
		problem_world(&cli->problems, "%s", err.text);
	if (p->libkrun && monitor_library_check(p->vmm_path, "--check-libkrun", p->libkrun, cache_fd, MONITOR_LIBKRUN_FILE,
						&p->libkrun_new, &krun_err) < 0)
		no_krun = krun_err.text;
	if (find_qemu(&p->qemu, &qemu_err) < 0 || find_virtiofsd(&p->virtiofsd, &qemu_err) < 0)
		no_qemu = qemu_err.text;
	if (monitor_choose(args->vmm, p->vmm_path, cache_fd, no_krun, no_qemu, &choice, &err) < 0) {
		problems_at(&cli->problems, opt_at(&cli->parsed, "vmm", 0));
		problem_world(&cli->problems, "%s", err.text);
		problems_at(&cli->problems, PROBLEMS_AT_END);
		return;
	}
	/* It has no mode without a chroot, which an ordinary user has only inside a namespace. */
	if (choice.monitor != VMM_KRUN && !p->namespaces && geteuid() != 0 && strstr(p->virtiofsd, "/qemu/"))
		problem_world(&cli->problems, "virtiofsd: %s, which is part of QEMU 7, serves an ordinary user only inside namespaces, "
			      "and this host refuses them; allow them (agent-vm doctor says how), or install a virtiofsd of version 1",
			      p->virtiofsd);
	/* Each is a device of its own then. */
	if (choice.monitor != VMM_KRUN && !p->namespaces && p->layout.n_shares > VMM_QEMU_SHARES_MAX)
		problem_world(&cli->problems, "%zu shares: with QEMU and without namespaces at most %d are possible; mount less, or see "
			      "agent-vm doctor for how to allow them", p->layout.n_shares, VMM_QEMU_SHARES_MAX);
	if (choice.monitor == VMM_QEMU_KVM && !args->vmm)
		strv_addf(&p->warnings, "%s; QEMU is used in its place", krun_err.text);
	p->monitor = choice.monitor;
	p->probed_now = choice.probed_now;
	p->kvm_reason = choice.reason;
}

static uint64_t available_mib(void)
{
	AUTO_FD(fd);
	AUTO_FREE(char, text);
	const char *at;
	uint64_t kib = 0;

	fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, 65536, &text, NULL) < 0 || !(at = strstr(text, "MemAvailable:")))
		return UINT64_MAX;
	for (at += strlen("MemAvailable:"); *at == ' '; at++)
		;
	for (; *at >= '0' && *at <= '9'; at++)
		kib = kib * 10 + (uint64_t)(*at - '0');
	return kib / 1024;
}

static void plan_resources(struct cli *cli, const struct launch_args *args, const struct host_facts *host,
			   struct plan *p)
{
	uint64_t free_mib = available_mib(), free_bytes;
	struct statvfs fs;
	AUTO_FREE(char, at);

	p->res = launch_resources(args, host, p->monitor == VMM_QEMU_TCG);
	if (free_mib < LAUNCH_MEMORY_MIN_MIB)
		problem_world(&cli->problems, "memory: %lu MiB are free on this host and a VM needs %d MiB at least; end other programs first",
			      (unsigned long)free_mib, LAUNCH_MEMORY_MIN_MIB);
	else if (p->res.memory_mib > free_mib)
		strv_addf(&p->warnings, "--memory: %lu MiB are wanted and %lu MiB are free now; the host may run out, --memory %luM fits",
			  (unsigned long)p->res.memory_mib, (unsigned long)free_mib,
			  (unsigned long)MAX(free_mib * 3 / 4, (uint64_t)LAUNCH_MEMORY_MIN_MIB));
	/* The folder that exists of the root's path: the root itself may not be there yet. */
	at = p->root_path ? xstrdup(p->root_path) : NULL;
	while (at && *at && statvfs(at, &fs) < 0 && errno == ENOENT && strrchr(at, '/'))
		*strrchr(at, '/') = '\0';
	if (!at || statvfs(*at ? at : "/", &fs) < 0)
		return;
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (free_bytes < DISK_ERROR)
		problem_world(&cli->problems,
			      "%s: %lu MiB free and a session needs 256 MiB; " MAKE_ROOM,
			      p->root_path, (unsigned long)(free_bytes >> 20));
	else if (free_bytes < DISK_WARN)
		strv_addf(&p->warnings, "%s: only %lu MiB free for what the guest writes; " MAKE_ROOM, p->root_path,
			  (unsigned long)(free_bytes >> 20));
}

int plan_image_fits(const struct plan *p, struct err *err)
{
	const struct image *img = &p->image;

	if (img->has_known && !(img->has & IM_HAS_BASH))
		return err_set(err, -ENOEXEC,
			       "image %s: it has no bash in PATH, which starts everything; agent-vm pull, or another --image",
			       img->reference);
	if (p->res.disk_mib << 20 < img->min_bytes)
		return err_set(err, -EINVAL, "--disk %luM: the image needs %luM; for 16 GiB write --disk 16",
			       (unsigned long)p->res.disk_mib, (unsigned long)(img->min_bytes >> 20));
	return 0;
}

/* A stored image is never pulled; one that is missing is, when everything else is right. */
static int plan_pull(struct plan *p, const char *ref, struct err *err)
{
	AUTO_FREE(char, full);
	int r;

	r = store_ref_full(ref, &full, err);
	if (r < 0)
		return r;
	if (str_starts(full, IMAGE_REF_LOCAL))
		return err_set(err, -ENOENT, "image %s: not in the store; make it with: agent-vm build --tag %s", full,
			       full + strlen(IMAGE_REF_LOCAL));
	if (str_starts(full, IMAGE_REF_STDIN))
		return err_set(err, -ENOENT, "image %s: not in the store; pipe it in with: agent-vm pull --image -", full);
	if (!p->image_role)
		r = find_role("agent-vm-image", &p->image_role, err);
	if (r < 0)
		return r;
	p->pull = TAKE_PTR(full);
	return 0;
}

static int find_image(struct plan *p, const char *ref, const struct state_root *root, struct err *err)
{
	struct store store;
	int r;

	/* Opening makes the store's folders; nothing may be made yet, so a store that is not there is an empty one. */
	if (root->fd < 0 || faccessat(root->fd, STATE_IMAGES, F_OK, 0) < 0)
		return plan_pull(p, ref, err);
	r = store_open(root->fd, root->path, &store, err);
	if (r < 0)
		return r;
	r = store_find(&store, ref, &p->image, err);
	if (r == -ENOENT) {
		r = images_word_check(&store, ref, err);
		if (r == 0)
			r = plan_pull(p, ref, err);
	}
	store_close(&store);
	return r;
}

static void plan_image(struct cli *cli, const struct launch_args *args, struct plan *p, const struct state_root *root)
{
	const char *opt = "image";
	struct err err;
	int r;

	(void)find_role("agent-vm-image", &p->image_role, NULL);
	r = find_image(p, args->image, root, &err);
	if (r == 0 && !p->pull) {
		r = plan_image_fits(p, &err);
		opt = r == -EINVAL ? "disk" : opt;
	}
	if (r == 0)
		return;
	problems_at(&cli->problems, opt_at(&cli->parsed, opt, 0));
	if (r == -EINVAL && strcmp(opt, "image") == 0)
		(void)err_ctx(&err, r, "%s", opt_given(&cli->parsed, "image") ? "--image" : "AGENT_VM_IMAGE_TAG");
	if (r == -EINVAL)
		problem_text(&cli->problems, "%s", err.text);
	else
		problem_world(&cli->problems, "%s", err.text);
	problems_at(&cli->problems, PROBLEMS_AT_END);
}

static void plan_network(struct cli *cli, const struct launch_args *args, struct plan *p, const struct state_root *root)
{
	static const uint8_t ours[3] = { 0x02, 0x61, 0x76 }; /* network page 1 */
	struct err err;

	memcpy(p->mac, ours, sizeof(ours));
	do
		(void)!getrandom(p->mac + 3, 3, 0);
	while (p->mac[3] == 0 && p->mac[4] == 0); /* the gateway's is 02:61:76:00:00:01 */
	netplan_end(cli, args, &p->net, &p->warnings);
	if (!args->no_network)
		ports_open(cli, root, &p->net.ports);
	if (find_role("agent-vm-wire", &p->net.wire_path, &err) < 0 || find_role("agent-vm-vault", &p->net.vault_path, &err) < 0 ||
	    (creds_lent(&p->creds) && (find_role("agent-vm-gate", &p->net.gate_path, &err) < 0 ||
				       find_role("agent-vm-probe", &p->net.probe_path, &err) < 0)))
		problem_world(&cli->problems, "%s", err.text);
}

static void plan_secrets(struct cli *cli, struct launch_args *args, struct plan *p)
{
	struct err err;

	if (secret_arena_open(SECRET_ARENA, &err) < 0)
		strv_add(&p->warnings, err.text);
	creds_begin(cli, args, getenv, &p->creds, &p->warnings);
}

static void plan_logins(struct cli *cli, struct launch_args *args, struct plan *p)
{
	for (size_t i = 0; i < p->layout.n_shares; i++)
		creds_guard(&p->creds, p->layout.shares[i].host);
	ghlist_take(args, &p->layout, &p->github, &p->warnings);
	if (p->github.n > 0)
		creds_github(args, getenv, p->home, &p->creds, &p->warnings);
	creds_files(cli, args, getenv, p->home, &p->creds, &p->warnings);
	upstream_plan(cli, args, getenv, creds_lent(&p->creds), &p->upstream, &p->warnings);
	p->net.creds = &p->creds;
	p->net.github = &p->github;
	p->net.upstream = &p->upstream;
}

void preflight_policy(struct cli *cli, struct launch_args *args, struct plan *p)
{
	plan_secrets(cli, args, p); /* before any child has a copy of the environment */
	netplan_begin(cli, args, variable, &p->net, &p->warnings); /* names are looked up beside what follows */
	p->home = preflight_home();
	plan_root(cli, p);
	plan_walls(p);
	plan_files(cli, args, p);
	plan_logins(cli, args, p);
}

void preflight(struct cli *cli, struct launch_args *args, struct plan *ret)
{
	struct state_root root = STATE_ROOT_INIT;
	struct host_facts host;
	int cache_fd;

	*ret = PLAN_INIT(args);
	host_facts_read("", &host);
	launch_check(cli, args, &host, getenv);
	preflight_policy(cli, args, ret);
	cache_fd = root_cache(cli, ret, &root);
	plan_monitor(cli, args, ret, cache_fd);
	gitid_read(cache_fd, ret->home, ret->layout.git.admin ? ret->layout.git.admin : ret->layout.git.common, time(NULL), &ret->gitid);
	plan_resources(cli, args, &host, ret);
	plan_network(cli, args, ret, &root);
	plan_image(cli, args, ret, &root);
	state_root_close(&root);
	agent_argv(args->agent, args->agent_part, isatty(STDIN_FILENO) && isatty(STDOUT_FILENO), &ret->argv);
}

void plan_done(struct plan *p)
{
	char **const strings[] = { &p->root_path, &p->home,	 &p->kvm_reason, &p->vmm_path, &p->libkrun, &p->pull, &p->image_role,
				   &p->libkrunfw, &p->kernel, &p->qemu, &p->virtiofsd, &p->boot_dir, &p->boot_image };

	for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
		free(*strings[i]);
	netplan_done(&p->net);
	creds_done(&p->creds);
	upstream_done(&p->upstream);
	gitid_done(&p->gitid);
	host_settings_done(&p->settings);
	project_close(&p->project);
	layout_done(&p->layout);
	image_done(&p->image);
	strv_done(&p->warnings);
	strv_done(&p->notes);
	strv_done(&p->argv);
	strv_done(&p->others);
}
