#include "session/exposure.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "files.h"
#include "session/path.h"

struct host {
	char *home;
	const char *env_name;
	char *env_value;
	const char *lift[3];
	const char *own[2];
	char *root;
	struct exposure_result r;
};

static const char *env(const char *name, void *arg)
{
	struct host *h = arg;

	return h->env_name && strcmp(h->env_name, name) == 0 ? h->env_value : NULL;
}

static void host_init(struct host *h)
{
	*h = (struct host){ .home = files_tmp("/var/tmp") };
	h->root = files_at(h->home, ".local/state/agent-vm");
	files_sh(h->home, "mkdir -p .local/state/agent-vm/run p/q .claude/skills .codex .ssh .config/gh .aws dot");
}

static void host_done(struct host *h)
{
	exposure_result_done(&h->r);
	free(h->env_value);
	free(h->root);
	files_rm(h->home);
}

static enum exposure_verdict ask_path(struct host *h, const char *path, enum exposure_role role)
{
	struct exposure_args a = {
		.state_root = h->root, .home = h->home, .env = env, .env_arg = h, .lift = h->lift, .own = h->own
	};
	struct exposure *e = exposure_new(&a);
	enum exposure_verdict v;

	exposure_result_done(&h->r);
	v = exposure_check(e, path, role, NULL, &h->r);
	CHECK_INT(v, ==, h->r.verdict);
	exposure_free(e);
	return v;
}

static enum exposure_verdict ask(struct host *h, const char *rel)
{
	char *path = *rel ? files_at(h->home, rel) : xstrdup(h->home);
	enum exposure_verdict v = ask_path(h, path, EXPOSURE_MOUNT);

	free(path);
	return v;
}

TEST(first_row_cannot_be_lifted)
{
	static const char *const paths[] = { "/", "/run", "/proc", "/proc/self", "/sys", "/sys/kernel", "/dev", "/dev/pts" };
	struct host h;

	host_init(&h);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		h.lift[0] = paths[i];
		CHECK_INT(ask_path(&h, paths[i], EXPOSURE_PROJECT), ==, EXPOSURE_REFUSED_HARD);
	}
	CHECK_INT(ask_path(&h, "/dev/shm", EXPOSURE_PROJECT), ==, EXPOSURE_OK);
	h.lift[0] = h.root;
	CHECK_INT(ask(&h, ".local/state/agent-vm"), ==, EXPOSURE_REFUSED_HARD);
	CHECK_INT(ask(&h, ".local/state/agent-vm/run"), ==, EXPOSURE_REFUSED_HARD);
	CHECK_INT(ask(&h, ".local/state"), ==, EXPOSURE_REFUSED_HARD);
	CHECK_INT(ask(&h, "p"), ==, EXPOSURE_OK);
	host_done(&h);
}

TEST(home_folder)
{
	struct host h;
	char *want;

	host_init(&h);
	want = xasprintf("%s: your home folder holds your logins and cannot be a project; run agent-vm in a folder below it",
			 h.home);
	CHECK_INT(ask_path(&h, h.home, EXPOSURE_PROJECT), ==, EXPOSURE_REFUSED_HARD);
	CHECK_STR(h.r.text, want);
	/* With the root elsewhere it can be lifted. */
	free(h.root);
	h.root = xstrdup("/nonexistent/agent-vm");
	CHECK_INT(ask_path(&h, h.home, EXPOSURE_PROJECT), ==, EXPOSURE_REFUSED_SOFT);
	CHECK_STR(h.r.text, want);
	CHECK_INT(ask_path(&h, "/var/tmp", EXPOSURE_PROJECT), ==, EXPOSURE_REFUSED_SOFT);
	h.lift[0] = h.home;
	CHECK_INT(ask_path(&h, h.home, EXPOSURE_PROJECT), ==, EXPOSURE_SHOWN);
	CHECK_INT(h.r.rows.n, >, 1);
	free(want);
	host_done(&h);
}

TEST(logins)
{
	struct host h;
	char *lift;

	host_init(&h);
	CHECK_INT(ask(&h, ".claude"), ==, EXPOSURE_REFUSED_SOFT);
	CHECK(strstr(h.r.text, "--expose"));
	CHECK_INT(ask(&h, ".claude/skills"), ==, EXPOSURE_REFUSED_SOFT);
	CHECK_INT(ask(&h, ".config"), ==, EXPOSURE_REFUSED_SOFT);
	CHECK_INT(ask(&h, ".config/gh"), ==, EXPOSURE_REFUSED_SOFT);
	/* Not there yet, but it would be in it. */
	files_sh(h.home, "mkdir -p .local/share");
	CHECK_INT(ask(&h, ".local/share"), ==, EXPOSURE_REFUSED_SOFT);
	h.lift[0] = lift = files_at(h.home, ".claude/skills");
	CHECK_INT(ask(&h, ".claude/skills"), ==, EXPOSURE_SHOWN);
	CHECK_INT(h.r.rows.n, ==, 1);
	CHECK_INT(ask(&h, ".codex"), ==, EXPOSURE_REFUSED_SOFT);
	free(lift);
	host_done(&h);
}

TEST(variables_and_links_move_logins)
{
	static const struct {
		const char *name, *dir, *asked;
	} rows[] = {
		{ "CLAUDE_SECURESTORAGE_CONFIG_DIR", "p/q", "p" }, { "CLAUDE_CONFIG_DIR", "p/q", "p" },
		{ "CODEX_HOME", "p/q", "p/q" },			     { "GH_CONFIG_DIR", "p/q", "p" },
		{ "XDG_DATA_HOME", "p", "p" },			     { "XDG_CONFIG_HOME", "p", "p" },
	};
	struct host h;

	host_init(&h);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		h.env_name = NULL;
		CHECK_INT(ask(&h, rows[i].asked), ==, EXPOSURE_OK);
		h.env_name = rows[i].name;
		free(h.env_value);
		h.env_value = files_at(h.home, rows[i].dir);
		CHECK_INT(ask(&h, rows[i].asked), ==, EXPOSURE_REFUSED_SOFT);
		/* Empty and relative values do not count. */
		h.env_value[0] = '\0';
		CHECK_INT(ask(&h, rows[i].asked), ==, EXPOSURE_OK);
	}
	h.env_name = NULL;
	files_sh(h.home, "rm -r .claude && mkdir dot/claude && ln -s dot/claude .claude");
	CHECK_INT(ask(&h, "dot"), ==, EXPOSURE_REFUSED_SOFT);
	files_sh(h.home, "rm .claude && mkdir .claude && touch dot/claude/c && ln -s ../dot/claude/c .claude/.credentials.json");
	CHECK_INT(ask(&h, "dot/claude"), ==, EXPOSURE_REFUSED_SOFT);
	host_done(&h);
}

TEST(secrets_warn)
{
	struct host h;
	char *lift;

	host_init(&h);
	CHECK_INT(ask(&h, ".ssh"), ==, EXPOSURE_WARN);
	CHECK(strstr(h.r.text, "SSH keys") && h.r.rows.n == 1);
	CHECK_INT(ask(&h, ".aws"), ==, EXPOSURE_WARN);
	h.lift[0] = lift = files_at(h.home, ".ssh");
	CHECK_INT(ask(&h, ".ssh"), ==, EXPOSURE_SHOWN);
	CHECK(!h.r.text && h.r.rows.n == 1);
	free(lift);
	/* A secret that the user does not have is not warned of. */
	h.lift[0] = NULL;
	files_sh(h.home, "mkdir -p x && rm -r .aws && touch x/prog");
	CHECK_INT(ask(&h, "x"), ==, EXPOSURE_OK);
	h.own[0] = lift = files_at(h.home, "x/prog");
	CHECK_INT(ask(&h, "x"), ==, EXPOSURE_WARN);
	free(lift);
	host_done(&h);
}

/* Who can write a folder above a program can put another folder in its place. */
TEST(programs_below_a_writable_folder_warn)
{
	struct host h;
	char *prog;
	pid_t pid;
	int status;

	host_init(&h);
	files_sh(h.home, "mkdir -p x/a/b && touch x/a/b/prog && chmod 555 x/a x/a/b && chmod 444 x/a/b/prog && "
			 "if test $(id -u) = 0; then chown 65534 . x; fi");
	h.own[0] = prog = files_at(h.home, "x/a/b/prog");
	pid = fork();
	if (pid == 0) {
		if (geteuid() == 0 && (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
			_exit(3);
		_exit(ask(&h, "x") == EXPOSURE_WARN ? 0 : 1);
	}
	CHECK_INT(waitpid(pid, &status, 0), ==, pid);
	CHECK_INT(status, ==, 0);
	files_sh(h.home, "chmod 755 x/a x/a/b");
	free(prog);
	host_done(&h);
}

/* Bind mounts, in a mount namespace of a child; 77 where those are refused. */
static void bind_child(struct host *h)
{
	char *a = files_at(h->home, ".claude/skills"), *b = files_at(h->home, "p/q"), *c = files_at(h->home, ".ssh");

	if (unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount(a, b, NULL, MS_BIND, NULL) < 0)
		_exit(77);
	/* Part of a login is shown at p/q, and by p, which holds that. */
	if (ask(h, "p/q") != EXPOSURE_REFUSED_SOFT)
		_exit(1);
	if (ask(h, "p") != EXPOSURE_REFUSED_SOFT)
		_exit(2);
	if (ask(h, "dot") != EXPOSURE_OK)
		_exit(3);
	/* The other way round: the login is mounted from dot. */
	if (umount(b) < 0 || ask(h, "p") != EXPOSURE_OK)
		_exit(4);
	free(b);
	b = files_at(h->home, "dot");
	if (mount(b, c, NULL, MS_BIND, NULL) < 0 || ask(h, "dot") != EXPOSURE_WARN)
		_exit(5);
	_exit(0);
}

TEST(bind_mounts_are_no_way_around)
{
	struct host h;
	int status;
	pid_t pid;

	host_init(&h);
	pid = fork();
	if (pid == 0)
		bind_child(&h);
	CHECK_INT(waitpid(pid, &status, 0), ==, pid);
	CHECK(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("no mount namespaces here: bind mounts not tried\n");
	else
		CHECK_INT(WEXITSTATUS(status), ==, 0);
	host_done(&h);
}

TEST(unused_lifts_are_known)
{
	struct host h;
	struct exposure_args a;
	struct exposure *e;
	char *p, *ssh;

	host_init(&h);
	p = files_at(h.home, "p");
	ssh = files_at(h.home, ".ssh");
	h.lift[0] = p;
	h.lift[1] = ssh;
	a = (struct exposure_args){ .state_root = h.root, .home = h.home, .env = env, .env_arg = &h, .lift = h.lift };
	e = exposure_new(&a);
	(void)exposure_check(e, ssh, EXPOSURE_MOUNT, NULL, &h.r);
	CHECK_INT(exposure_unused(e, -1), ==, 0);
	CHECK_INT(exposure_unused(e, 0), ==, -1);
	exposure_free(e);
	free(p);
	free(ssh);
	host_done(&h);
}
