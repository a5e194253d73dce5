/* agent-vm setup: the image is got, booted once, and each agent in it started.
 *
 * The proof is a session like any other: this program starts itself as `agent-vm shell` in an empty folder, with a script
 * that reports in lines, and ends it on every way out. What the lines say comes from the image and is shown escaped. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/prog.h"
#include "cli/cmd.h"
#include "cli/find.h"
#include "cli/images.h"
#include "cli/monitor.h"
#include "cli/stop.h"
#include "session/project.h"

#define AGENT_S 20
#define AGENT_EMULATED_S 120
#define BOOT_S 60
#define BOOT_EMULATED_S 180
#define AGENTS 4
#define LINE_MAX_BYTES 4096
#define SHOWN_MAX 100 /* bytes of what an agent says of its version */
#define SELF "/proc/self/exe"

struct setup_args {
	const char *image;
	bool no_verify;
};

static const struct opt setup_opts[] = {
	{ "image", OPT_STRING, offsetof(struct setup_args, image), "REF", "which image", 0,
	  "As agent-vm pull takes it. Default: AGENT_VM_IMAGE_TAG, else what agent-vm build made the default, else "
	  IMAGE_REF_DEFAULT ".", "ghcr.io/me/mine:1" },
	{ "no-verify", OPT_FLAG, offsetof(struct setup_args, no_verify), NULL, "do not start a VM to try the image" },
	{ NULL },
};

/* Ends of lines matter: one fact a line. timeout(1) is coreutils'; without it the whole has a limit all the same. */
static const char script[] =
	"v=; read -r v </etc/agent-vm-image-version; echo \"up $v\"\n"
	"t=; type -P timeout >/dev/null && t=\"timeout $0\"\n"
	"for a in claude codex opencode copilot; do\n"
	"	p=$(type -P $a) || { echo \"$a absent\"; continue; }\n"
	"	echo \"$a begins\"\n"
	"	out=$($t \"$p\" --version </dev/null 2>&1); s=$?\n"
	"	echo \"$a $s ${out%%$'\\n'*}\"\n"
	"done\n";

static const char *const agents[AGENTS] = { "claude", "codex", "opencode", "copilot" };

struct proof {
	pid_t pid;
	int out; /* of the session */
	int stop_fd;
	int agent_s, boot_s;
	int64_t began, deadline;
	size_t n;
	char mem[LINE_MAX_BYTES];
	bool up, failed;
	int works; /* agents that run */
	uint32_t api_version; /* as recorded in the store */
};

static void say(const char *fmt, ...) PRINTF_LIKE(1, 2);

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)fputs("==> ", stdout);
	(void)vprintf(fmt, ap);
	(void)fputc('\n', stdout);
	va_end(ap);
	(void)fflush(stdout);
}

/* --- the check VM --- */

static int start(struct proof *p, const char *dir, const char *image, const sigset_t *mask, struct err *err)
{
	char seconds[16];
	const char *argv[] = { "agent-vm", "shell", "--quiet", "--image", image, "--no-git", "--no-hook", "--no-host-settings",
			       "--no-update-check", "--no-network", "--", "-c", script, seconds, NULL };
	int out[2];

	(void)snprintf(seconds, sizeof(seconds), "%d", p->agent_s);
	if (pipe2(out, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	p->pid = fork();
	if (p->pid == 0) {
		int null = open("/dev/null", O_RDONLY);

		/* Its own group, so that Ctrl-C comes to us alone; gone with us, in order. */
		(void)setpgid(0, 0);
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		(void)sigprocmask(SIG_SETMASK, mask, NULL);
		if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out[1], STDOUT_FILENO) < 0 || chdir(dir) < 0)
			_exit(126);
		(void)execv(SELF, (char *const *)argv);
		_exit(126);
	}
	(void)close(out[1]);
	p->out = out[0];
	if (p->pid < 0)
		return err_set(err, -errno, "agent-vm: a process cannot be started: %s", strerror(errno));
	p->began = now_ns();
	p->deadline = p->began + p->boot_s * INT64_C(1000000000);
	return 0;
}

static void agent_line(struct proof *p, const char *name, const char *rest)
{
	AUTO_FREE(char, shown);
	const char *text;
	uint64_t status;
	AUTO_FREE(char, number);

	p->deadline = now_ns() + (p->agent_s + p->boot_s) * INT64_C(1000000000);
	if (strcmp(rest, "begins") == 0)
		return;
	if (strcmp(rest, "absent") == 0) {
		say("%-9s not in this image", name);
		return;
	}
	number = xstrndup(rest, strcspn(rest, " "));
	text = rest + strlen(number);
	text += *text == ' ';
	shown = str_escape(text, MIN(strlen(text), (size_t)SHOWN_MAX));
	if (str_u64(number, 255, &status) < 0)
		status = 255;
	p->failed |= status != 0;
	p->works += status == 0;
	if (status == 0)
		say("%-9s %s", name, shown);
	else if (status == 124)
		say("%-9s does not start: it took longer than %d s", name, p->agent_s);
	else
		say("%-9s does not start: status %u%s%s", name, (unsigned)status, *shown ? ", " : "", shown);
}

static void on_line(struct proof *p, const char *line)
{
	if (!p->up && str_starts(line, "up ")) {
		char found[IMAGE_API_FOUND];
		AUTO_FREE(char, shown);

		p->up = true;
		shown = str_escape(line + 3, MIN(strlen(line + 3), (size_t)16));
		say("%-9s in %.1f s, image API version %s", "boots", (double)(now_ns() - p->began) / 1e9, shown);
		/* The disk is what runs: it must say what was recorded beside it. */
		if (image_api_parse(line + 3, strlen(line + 3), found) != p->api_version) {
			say("%-9s of the store says version %u; the image must be pulled again", "record", p->api_version);
			p->failed = true;
		}
		p->deadline = now_ns() + (p->agent_s + p->boot_s) * INT64_C(1000000000);
	}
	for (size_t i = 0; p->up && i < AGENTS; i++) {
		size_t n = strlen(agents[i]);

		if (strncmp(line, agents[i], n) == 0 && line[n] == ' ')
			agent_line(p, agents[i], line + n + 1);
	}
}

/* 1: more may come; 0: the end. A line that is too long comes in pieces, which are no facts. */
static int read_lines(struct proof *p)
{
	char *nl;
	ssize_t k;

	k = read(p->out, p->mem + p->n, sizeof(p->mem) - 1 - p->n);
	if (k <= 0)
		return k < 0 && (errno == EINTR || errno == EAGAIN);
	p->n += (size_t)k;
	p->mem[p->n] = '\0';
	while ((nl = memchr(p->mem, '\n', p->n))) {
		*nl = '\0';
		on_line(p, p->mem);
		p->n -= (size_t)(nl + 1 - p->mem);
		memmove(p->mem, nl + 1, p->n + 1);
	}
	if (p->n == sizeof(p->mem) - 1)
		p->n = 0;
	return 1;
}

static int watch(struct proof *p, struct err *err)
{
	for (;;) {
		struct pollfd pfd[] = { { .fd = p->stop_fd, .events = POLLIN }, { .fd = p->out, .events = POLLIN } };

		if (now_ns() >= p->deadline)
			return err_set(err, -ETIMEDOUT, "check VM: nothing was heard of it in time; agent-vm logs says more");
		if (poll(pfd, ARRAY_SIZE(pfd), 1000) < 0 && errno != EINTR)
			return err_set(err, -errno, "poll: %s", strerror(errno));
		if (pfd[0].revents)
			return err_set(err, -EINTR, "stopped; the image is stored, it was not tried to the end");
		if (pfd[1].revents && read_lines(p) == 0)
			return 0;
	}
}

/* In order: the session shuts its VM down; it has a limit for that of its own. */
static int stop_session(struct proof *p, bool early)
{
	int status = 0;

	if (p->pid <= 0)
		return 0;
	if (early)
		(void)kill(p->pid, SIGTERM);
	while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
		;
	p->pid = 0;
	return status;
}

static int prove_in(const char *dir, const char *image, uint32_t api_version, int stop_fd, const sigset_t *mask, struct err *err)
{
	AUTO_FREE(char, vmm);
	AUTO_FREE(char, no_kvm);
	AUTO_FREE(char, emulated);
	struct proof p = { .out = -1, .stop_fd = stop_fd, .api_version = api_version };
	int r, status;

	no_kvm = find_role("agent-vm-vmm", &vmm, NULL) == 0 ? monitor_probe_kvm(vmm) : NULL;
	p.agent_s = no_kvm ? AGENT_EMULATED_S : AGENT_S;
	p.boot_s = no_kvm ? BOOT_EMULATED_S : BOOT_S;
	emulated = no_kvm ? monitor_emulated(no_kvm) : NULL;
	if (emulated)
		say("%-9s %s, so this is QEMU emulation and slow", "monitor", emulated);
	r = start(&p, dir, image, mask, err);
	if (r == 0)
		r = watch(&p, err);
	status = stop_session(&p, r < 0);
	close_p(&p.out);
	if (r < 0)
		return r;
	/* It has said why itself. */
	if (!p.up || status != 0)
		return err_set(err, -EIO, "image %s: the check VM %s; see above, and agent-vm doctor", image,
			       p.up ? "ended before all agents were tried" : "did not start");
	if (p.failed)
		return err_set(err, -EIO, "image %s: not all of it works, see above; agent-vm pull, or another --image", image);
	say("ready: %s", p.works > 0 ? "agent-vm claude in a project's folder, or codex, opencode, copilot, shell" : "agent-vm shell in a project's folder; this image has no agents");
	return 0;
}

/* The session's project is gone for good: no history of it is wanted. */
static void forget_project(const char *dir)
{
	struct state_root root = STATE_ROOT_INIT;
	char hash[PROJECT_HASH_LEN + 1];
	AUTO_FREE(char, real);
	struct store store;

	real = realpath(dir, NULL);
	if (!real || images_open(false, &root, &store, NULL) <= 0)
		return;
	project_hash(real, strlen(real), hash);
	(void)file_remove_tree_at(root.fd, hash);
	(void)unlinkat(root.projects_fd, hash, 0);
	(void)unlinkat(root.locks_fd, hash, 0);
	store_close(&store);
	state_root_close(&root);
}

static int prove(const char *image, uint32_t api_version, int stop_fd, const sigset_t *mask, struct err *err)
{
	const char *tmp = getenv("TMPDIR");
	AUTO_FREE(char, dir);
	int r;

	dir = xasprintf("%s/agent-vm-setup-XXXXXX", tmp && *tmp == '/' ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return err_set(err, -errno, "%s: cannot be made: %s; set TMPDIR to a folder that can be written", dir,
			       strerror(errno));
	r = prove_in(dir, image, api_version, stop_fd, mask, err);
	forget_project(dir);
	(void)file_remove_tree_at(AT_FDCWD, dir);
	return r;
}

/* --- the image --- */

/* "HOST: cannot be reached (REASON)" is what the fetching half says; what can be done here is another thing. */
static void no_registry(const struct err *why)
{
	say("%.*s; an equal image can be built here: agent-vm build", (int)strcspn(why->text, ";"), why->text);
}

/* 0: yes; -ENETUNREACH: no, or nobody to ask; -EINTR with @err set. */
static int wants_build(int stop_fd, struct err *err)
{
	struct pollfd pfd[] = { { .fd = stop_fd, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
	char line[16];

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return -ENETUNREACH;
	(void)printf("    build it now? [y/N] ");
	(void)fflush(stdout);
	while (poll(pfd, ARRAY_SIZE(pfd), -1) < 0 && errno == EINTR)
		;
	if (pfd[0].revents)
		return err_set(err, -EINTR, "stopped; nothing was built");
	return fgets(line, sizeof(line), stdin) && (*line == 'y' || *line == 'Y') ? 0 : -ENETUNREACH;
}

/* As if the user had typed it: its own progress, its own messages, its own Ctrl-C. */
static int build_now(const sigset_t *mask)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		const char *argv[] = { "agent-vm", "build", NULL };

		(void)sigprocmask(SIG_SETMASK, mask, NULL);
		(void)execv(SELF, (char *const *)argv);
		_exit(126);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	/* It has said why. */
	return pid > 0 && status == 0 ? 0 : -ENETUNREACH;
}

/* A stored image that a registry cannot have a newer one of, or NULL; caller owns. A build's is also that which a launch
 * without a reference takes. */
static char *not_of_a_registry(const struct store *s, const char *given, const char *full)
{
	AUTO_FREE(char, ref);

	ref = given ? xstrdup(full) : store_default(s);
	if (given ? !str_starts(ref, IMAGE_REF_LOCAL) && !str_starts(ref, IMAGE_REF_STDIN) : strcmp(ref, IMAGE_REF_DEFAULT) == 0)
		return NULL;
	return store_has(s, ref) ? TAKE_PTR(ref) : NULL;
}

static int get_image(const struct setup_args *a, const sigset_t *mask, int stop_fd, struct pull_view *view, char **ret_ref,
		     bool *ret_told, struct err *err)
{
	struct state_root root = STATE_ROOT_INIT;
	struct pull_result res;
	AUTO_FREE(char, full);
	AUTO_FREE(char, made);
	AUTO_FREE(char, text);
	struct store store;
	int r;

	r = images_insecure_check(getenv("AGENT_VM_INSECURE_REGISTRY"), err);
	if (r == 0)
		r = images_full(a->image, &full, err);
	if (r == 0)
		r = images_open(true, &root, &store, err);
	if (r < 0)
		return r;
	store.stop_fd = stop_fd;
	made = not_of_a_registry(&store, images_reference(a->image), full);
	if (made) {
		say("%s: stored on this machine; no registry is asked", made);
		*ret_ref = TAKE_PTR(made);
		r = 0;
	} else {
		r = store_has(&store, full) ? 0 : images_word_check(&store, images_reference(a->image), err);
		if (r == 0)
			r = images_pull(&store, full, stop_fd, -1, false, false, view, &res, err);
		if (r == 0) {
			progress_clear(&view->p);
			text = pull_result_text(&res);
			say("%s", text);
			*ret_ref = res.reference;
		}
	}
	store_close(&store);
	state_root_close(&root);
	if (r != -ENETUNREACH)
		return r;
	progress_clear(&view->p);
	no_registry(err);
	*ret_told = true;
	if (images_reference(a->image) || (r = wants_build(stop_fd, err)) < 0 || (r = build_now(mask)) < 0)
		return r;
	*ret_ref = xstrdup(IMAGE_REF_LOCAL "default");
	return 0;
}

static int stored_api(const char *ref, int stop_fd, uint32_t *ret, struct err *err)
{
	struct state_root root = STATE_ROOT_INIT;
	struct store store;
	struct image img;
	int r;

	r = images_open(true, &root, &store, err);
	if (r < 0)
		return r;
	store.stop_fd = stop_fd;
	r = store_find(&store, ref, &img, err);
	if (r == 0) {
		*ret = img.api_version;
		image_done(&img);
	}
	store_close(&store);
	state_root_close(&root);
	return r;
}

static int setup_run(struct cli *cli, void *args, char **rest)
{
	const struct setup_args *a = args;
	struct pull_view view = { .next_draw_ns = 0 };
	struct err err = { "" };
	AUTO_FREE(char, ref);
	bool told = false;
	uint32_t api = 0;
	AUTO_FD(stop_fd);
	sigset_t old;
	int r;

	stop_fd = stop_open(&old);
	r = get_image(a, &old, stop_fd, &view, &ref, &told, &err);
	progress_clear(&view.p);
	if (r == 0 && a->no_verify)
		say("stored; not tried, as --no-verify asks");
	else if (r == 0)
		r = stored_api(ref, stop_fd, &api, &err);
	if (r == 0 && !a->no_verify)
		r = prove(ref, api, stop_fd, &old, &err);
	if (r < 0 && (!told || r != -ENETUNREACH))
		progress_error(&view.p, err.text);
	pull_view_done(&view);
	return stop_status(r, stop_fd, &old);
}

const struct cmd cmd_setup = {
	.name = "setup",
	.summary = "get the image and try it: does it boot, does each agent start",
	.usage = "[OPTIONS]",
	.about = "Pulls the default image, starts a VM from it, and runs --version of each of the four agents in it. The VM has "
		 "no network and is gone at the end. An agent that the image does not have is said to be missing; one that "
		 "does not start is an error. A stored image that agent-vm build made or that came by standard input is tried as "
		 "it is: no registry has it.\n\n"
		 "When no registry can be reached, agent-vm build makes an image here from Debian's packages.",
	.examples = "agent-vm setup\tonce, after the installation\nagent-vm setup --image ghcr.io/me/mine:1\tthe same for another image\n",
	.opts = setup_opts,
	.args_size = sizeof(struct setup_args),
	.words = CMD_WORDS_NONE,
	.run = setup_run,
};
