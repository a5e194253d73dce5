/* agent-vm clipboard: clipboard.txt of the project's state, which the guest sees too, and the desktop's clipboard. The file is
 * the guest's: it is opened as such, bounded, and on a terminal nothing in it acts. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/base64.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/prog.h"
#include "cli/cmd.h"
#include "cli/sessions.h"
#include "session/project.h"

#define CLIP_NAME "clipboard.txt"
#define CLIP_MAX (16 << 20)
#define CLIP_TEXT "16 MiB"
#define OSC52_MAX (100 << 10) /* bytes of base64: most terminals drop what is longer */
#define DESKTOP_MS 5000
#define IN_THE_WAY_MS 5000 /* for what the guest has put there */
#define TICK_MS 20

struct clipboard_args {
	bool sys, osc52;
};

static const struct opt clipboard_opts[] = {
	{ "sys", OPT_FLAG, offsetof(struct clipboard_args, sys), NULL, "exchange with the desktop's clipboard, too", OPT_INITIAL,
	  "By wl-copy and wl-paste, xclip, xsel, or pbcopy and pbpaste. -s is the same." },
	{ "osc52", OPT_FLAG, offsetof(struct clipboard_args, osc52), NULL, "with get: hand it to the terminal (OSC 52), as over ssh" },
	{ NULL },
};

/* The desktop's programs in the order in which they are tried; variable: what must be set for them. */
static const struct desktop {
	const char *variable;
	const char *copy[4], *paste[4];
} desktops[] = {
	{ "WAYLAND_DISPLAY", { "wl-copy" }, { "wl-paste", "--no-newline" } },
	{ "DISPLAY", { "xclip", "-selection", "clipboard" }, { "xclip", "-o", "-selection", "clipboard" } },
	{ "DISPLAY", { "xsel", "-b" }, { "xsel", "-bo" } },
	{ NULL, { "pbcopy" }, { "pbpaste" } },
};

/* Where the display is, and what opens it. */
static const char *const display[] = { "WAYLAND_DISPLAY", "DISPLAY", "XAUTHORITY", NULL };

#define DESKTOP_NONE "no program for the desktop's clipboard here (wl-copy, xclip, xsel or pbcopy, with its display)"

/* The project's state folder; -ENOENT: there is none and @make was not asked for. */
static int open_state(bool make, struct err *err)
{
	struct state_root root = STATE_ROOT_INIT;
	struct project project = PROJECT_INIT;
	AUTO_FREE(char, path);
	AUTO_FREE(char, warning);
	int r, fd = -1;

	r = project_open_cwd(&project, err);
	if (r == 0)
		r = state_root_path(&path, &warning, err);
	if (r == 0)
		r = state_root_open(path, make, &root, err);
	if (r == 0 && make)
		r = dir_make_at(root.fd, project.hash, 0700);
	if (r == 0)
		r = fd = dir_open_own(root.fd, project.hash);
	if (r < 0 && r != -ENOENT && r != -EINVAL)
		(void)err_set(err, r, "%s/%s: cannot be opened: %s", path ? path : "", project.hash, strerror(-r));
	state_root_close(&root);
	project_close(&project);
	return fd >= 0 ? fd : r;
}

/* A program of the desktop for this direction that can be used; NULL: none from @at on. */
static const struct desktop *desktop_next(size_t *at, bool copy, char **ret_path)
{
	while (*at < ARRAY_SIZE(desktops)) {
		const struct desktop *d = &desktops[(*at)++];
		const char *v = d->variable ? getenv(d->variable) : "";

		if (v && (!d->variable || *v) && prog_find(copy ? d->copy[0] : d->paste[0], ret_path) == 0)
			return d;
	}
	return NULL;
}

static void desktop_words(const char *const *words, struct strv *ret)
{
	for (size_t i = 0; i < 4 && words[i]; i++)
		strv_add(ret, words[i]);
}

/* A program that takes the clipboard goes on as a process of its own to serve it, so only its first process is waited for. */
static bool copy_with(const struct desktop *d, const char *path, int in)
{
	struct prog p = PROG_INIT;
	struct strv words = { 0 };
	struct timespec tick = { 0, TICK_MS * 1000000L };
	int status = 1, left = DESKTOP_MS;
	struct err err;
	pid_t pid;

	desktop_words(d->copy, &words);
	p.path = path;
	p.argv = words.v;
	p.in = in;
	prog_env_keep(&p.env, display);
	if (prog_start(&p, &pid, &err) == 0) {
		for (; waitpid(pid, &status, WNOHANG) == 0 && left > 0; left -= TICK_MS)
			(void)nanosleep(&tick, NULL);
		if (left <= 0)
			status = prog_stop(pid, 100) | 1;
	}
	strv_done(&p.env);
	strv_done(&words);
	return status == 0;
}

static bool to_desktop(const char *text, size_t n)
{
	const struct desktop *d;
	size_t at = 0;
	char *path;

	while ((d = desktop_next(&at, true, &path))) {
		AUTO_FD(in);
		bool done;

		in = memfd_create("clipboard", MFD_CLOEXEC);
		done = in >= 0 && fd_write_all(in, text, n) == 0 && lseek(in, 0, SEEK_SET) == 0 && copy_with(d, path, in);
		free(path);
		if (done)
			return true;
	}
	return false;
}

static int from_desktop(char **ret, size_t *ret_n, struct err *err)
{
	const struct desktop *d;
	size_t at = 0;
	char *path;

	while ((d = desktop_next(&at, false, &path))) {
		struct prog p = PROG_INIT;
		struct strv words = { 0 };
		int r;

		desktop_words(d->paste, &words);
		p.path = path;
		p.argv = words.v;
		prog_env_keep(&p.env, display);
		r = prog_output(&p, CLIP_MAX, DESKTOP_MS, ret, err);
		strv_done(&p.env);
		strv_done(&words);
		free(path);
		if (r == -EFBIG)
			return err_set(err, r, "desktop's clipboard: larger than " CLIP_TEXT "; exchange files through the project folder");
		if (r == 0) {
			*ret_n = strlen(*ret);
			return 0;
		}
	}
	return err_set(err, -ENOENT, "clipboard: " DESKTOP_NONE "; put it in by: agent-vm clipboard put < FILE");
}

static int read_clip(char **ret, size_t *ret_n, struct err *err)
{
	AUTO_FD(state);
	int r;

	*ret = NULL;
	*ret_n = 0;
	state = open_state(false, err);
	if (state == -ENOENT)
		return 0;
	if (state < 0)
		return state;
	r = file_read_beneath(state, CLIP_NAME, CLIP_MAX, ret, ret_n);
	if (r == -EFBIG) {
		struct stat st = { 0 };

		(void)fstatat(state, CLIP_NAME, &st, AT_SYMLINK_NOFOLLOW);
		return err_set(err, r, "/agent-vm-state/" CLIP_NAME ": %lld bytes, more than " CLIP_TEXT "; exchange files through the project "
			       "folder", (long long)st.st_size);
	}
	if (r == 0 || r == -ENOENT)
		return 0;
	return err_set(err, -EIO, "/agent-vm-state/" CLIP_NAME ": %s; the guest has put it there, remove it in the guest",
		       r == -ELOOP ? "is a link" : r == -EINVAL || r == -ENXIO ? "is no regular file" : strerror(-r));
}

/* Nothing but text, line ends and tabs acts on the terminal. */
static void show(const char *text, size_t n)
{
	while (n > 0) {
		size_t plain = 0;
		AUTO_FREE(char, shown);

		while (plain < n && text[plain] != '\n' && text[plain] != '\t')
			plain++;
		shown = str_escape(text, plain);
		(void)fputs(shown, stdout);
		if (plain < n)
			(void)fputc(text[plain++], stdout);
		text += plain;
		n -= plain;
	}
}

static int osc52(const char *text, size_t n, struct err *err)
{
	AUTO_FREE(char, digits);
	AUTO_FD(tty);
	int r;

	if (BASE64_LEN(n) > OSC52_MAX)
		return err_set(err, -EFBIG, "--osc52: %zu bytes, more than terminals take; use --sys, or a file in the project folder", n);
	tty = open("/dev/tty", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (tty < 0)
		return err_set(err, -errno, "--osc52: /dev/tty: %s; there is no terminal to hand it to", strerror(errno));
	digits = xmalloc(BASE64_LEN(n) + 1);
	digits[base64_encode(BASE64_STD, SPAN(text, n), digits)] = '\0';
	r = dprintf(tty, "\033]52;c;%s\a", digits);
	return r < 0 ? err_set(err, -errno, "--osc52: /dev/tty: %s", strerror(errno)) : 0;
}

static int get(const struct clipboard_args *a)
{
	AUTO_FREE(char, text);
	struct err err = { "" };
	size_t n;
	int r = read_clip(&text, &n, &err);

	if (r == 0 && a->osc52)
		r = osc52(text ? text : "", n, &err);
	if (r < 0)
		return sessions_fail(r, &err);
	if (a->sys && text && !to_desktop(text, n))
		(void)fprintf(stderr, "agent-vm: warning: clipboard: " DESKTOP_NONE "; only printed\n");
	if (a->osc52)
		return 0;
	if (isatty(STDOUT_FILENO))
		show(text ? text : "", n);
	else
		(void)fwrite(text ? text : "", 1, n, stdout);
	return sessions_flush();
}

static int put(const struct clipboard_args *a, const char *value)
{
	AUTO_FREE(char, text);
	AUTO_FD(state);
	struct err err = { "" };
	size_t n = 0;
	int r;

	state = open_state(true, &err);
	r = state < 0 ? state : 0;
	if (r == 0 && a->sys) {
		r = from_desktop(&text, &n, &err);
	} else if (r == 0 && value) {
		n = strlen(value);
		text = xstrdup(value);
		if (n > CLIP_MAX)
			r = err_set(&err, -EFBIG, "clipboard put: %zu bytes, more than " CLIP_TEXT, n);
	} else if (r == 0) {
		r = fd_read_file(STDIN_FILENO, CLIP_MAX, &text, &n);
		if (r == -EFBIG)
			(void)err_set(&err, r, "clipboard put: standard input is longer than " CLIP_TEXT "; exchange files through the project "
				      "folder");
		else if (r < 0)
			(void)err_set(&err, r, "clipboard put: standard input: %s", strerror(-r));
	}
	if (r == 0) {
		/* What a guest may have put in the way of the new file. */
		(void)file_remove_tree_within(state, "." CLIP_NAME ".new", IN_THE_WAY_MS);
		r = file_replace_at(state, CLIP_NAME, text, n, 0600);
		if (r < 0)
			(void)err_set(&err, r, "/agent-vm-state/" CLIP_NAME ": cannot be written: %s", strerror(-r));
	}
	return r < 0 ? sessions_fail(r, &err) : 0;
}

static int clipboard_run(struct cli *cli, void *args, char **rest)
{
	const struct clipboard_args *a = args;
	bool is_put = rest[0] && strcmp(rest[0], "put") == 0;
	struct err err;

	if (!rest[0] || (!is_put && strcmp(rest[0], "get") != 0))
		return sessions_fail(err_set(&err, -EINVAL, "clipboard: get or put must follow; see agent-vm clipboard --help"), &err);
	if (!is_put && rest[1])
		return sessions_fail(err_set(&err, -EINVAL, "clipboard get: takes no value; to set one write clipboard put VALUE"), &err);
	if (is_put && a->osc52)
		return sessions_fail(err_set(&err, -EINVAL, "clipboard put: terminals do not tell what they hold; leave --osc52 out"), &err);
	return is_put ? put(a, rest[1]) : get(a);
}

const struct cmd cmd_clipboard = {
	.name = "clipboard",
	.summary = "exchange a text with the guest of this project",
	.usage = "[-s] get | put [VALUE]",
	.about = "get prints what the guest has written to /agent-vm-state/" CLIP_NAME "; put writes VALUE, or standard input, there. It works "
		 "with and without a session, for texts of " CLIP_TEXT " at most. On a terminal control characters are shown and not sent.",
	.examples = "agent-vm clipboard put 'some text'\tfor the guest to read\n"
		    "agent-vm clipboard get -s\tprint it and put it on the desktop's clipboard\n"
		    "agent-vm clipboard put -s\ttake the desktop's\n",
	.opts = clipboard_opts,
	.args_size = sizeof(struct clipboard_args),
	.words = CMD_WORDS_MIXED,
	.max_words = 2,
	.run = clipboard_run,
};
