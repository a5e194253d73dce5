/* agent-vm build: the built-in image, made here without a registry. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "cli/build_progress.h"
#include "cli/cmd.h"
#include "cli/find.h"
#include "cli/images.h"
#include "cli/stop.h"
#include "image/build.h"
#include "image/debstrap.h"
#include "session/root.h"

struct build_cmd_args {
	bool base, minimal, full, latest, if_missing, json, quiet;
	const char *tag, *output;
	struct strv include;
};

static const struct opt build_opts[] = {
	{ "minimal", OPT_FLAG, offsetof(struct build_cmd_args, minimal), NULL,
	  "claude, codex and opencode, with git, curl and a few tools; 450 MB of layers" },
	{ "full", OPT_FLAG, offsetof(struct build_cmd_args, full), NULL,
	  "also Docker's packages, chromium and its DevTools server; 1081 MB" },
	{ "base", OPT_FLAG, offsetof(struct build_cmd_args, base), NULL, "the packages of --minimal, without any agent; 66 MB" },
	{ "latest", OPT_FLAG, offsetof(struct build_cmd_args, latest), NULL,
	  "the newest agents that npm has, not those that this version was tested with" },
	{ "tag", OPT_STRING, offsetof(struct build_cmd_args, tag), "NAME",
	  "name of the image: localhost/agent-vm:NAME, or a whole reference", 0, NULL, "work" },
	{ "include", OPT_STRV, offsetof(struct build_cmd_args, include), "PACKAGE[,PACKAGE]",
	  "more Debian packages; may be given several times", 0, NULL, "golang,make" },
	{ "output", OPT_STRING, offsetof(struct build_cmd_args, output), "oci:DIR",
	  "also write the image as an OCI layout into a new folder, to copy it to a registry", 0, NULL, "oci:agent-vm" },
	{ "if-missing", OPT_FLAG, offsetof(struct build_cmd_args, if_missing), NULL,
	  "do nothing when an image of that name is stored" },
	{ "json", OPT_FLAG, offsetof(struct build_cmd_args, json), NULL, "print events as JSON, one object a line" },
	{ "quiet", OPT_FLAG, offsetof(struct build_cmd_args, quiet), NULL, "print only the result and errors" },
	{ NULL },
};

static void split(const struct strv *from, struct strv *ret)
{
	for (size_t i = 0; i < from->n; i++) {
		const char *s = from->v[i];

		for (;;) {
			size_t n = strcspn(s, ",");

			strv_take(ret, xstrndup(s, n));
			if (s[n] == '\0')
				break;
			s += n + 1;
		}
	}
}

/* What the words say, checked; mistakes go to the list. */
static void read_args(struct cli *cli, const struct build_cmd_args *args, struct build_args *ret, char **ret_ref)
{
	struct err err;

	*ret = (struct build_args){
		.set = args->base ? BUILD_BASE : args->minimal ? BUILD_MINIMAL : args->full ? BUILD_FULL : BUILD_DEFAULT,
		.latest = args->latest,
	};
	if (args->base + args->minimal + args->full > 1) {
		problems_at(&cli->problems, opt_at(&cli->parsed, args->full ? "full" : "minimal", 0));
		problem_text(&cli->problems, "--base, --minimal, --full: only one of them");
	}
	if (args->output && (!str_starts(args->output, "oci:") || strlen(args->output) == strlen("oci:"))) {
		problems_at(&cli->problems, opt_at(&cli->parsed, "output", 0));
		problem_text(&cli->problems, "--output: not oci:DIR; name a folder to make, such as oci:agent-vm");
	} else if (args->output) {
		ret->output = args->output + strlen("oci:");
	}
	if (images_insecure_check(getenv("AGENT_VM_INSECURE_REGISTRY"), &err) < 0) {
		problems_at(&cli->problems, PROBLEMS_AT_END);
		problem_text(&cli->problems, "%s", err.text);
	}
	split(&args->include, &ret->include);
	for (size_t i = 0; i < ret->include.n; i++)
		if (debstrap_package_check(ret->include.v[i], &err) < 0) {
			problems_at(&cli->problems, opt_at(&cli->parsed, "include", 0));
			problem_text(&cli->problems, "%s", err.text);
		}
	if (args->tag) {
		AUTO_FREE(char, full);

		full = strpbrk(args->tag, "/:") ? xstrdup(args->tag) : xasprintf("localhost/agent-vm:%s", args->tag);
		if (ref_normalise(full, ret_ref, &err) < 0) {
			problems_at(&cli->problems, opt_at(&cli->parsed, "tag", 0));
			problem_text(&cli->problems, "--tag: %s", err.text);
		}
	} else {
		*ret_ref = xasprintf("localhost/agent-vm:%s", build_set_str[ret->set]);
	}
	ret->reference = *ret_ref;
}

static void read_host(struct cli *cli, const struct build_cmd_args *cmd, const struct build_args *args)
{
	struct strv missing = { 0 };
	struct err err;

	/* With --if-missing there may be nothing to write. */
	if (args->output && !cmd->if_missing && build_output_check(args->output, &err) < 0) {
		problems_at(&cli->problems, opt_at(&cli->parsed, "output", 0));
		problem_world(&cli->problems, "--output: %s", err.text);
	}
	problems_at(&cli->problems, PROBLEMS_AT_END);
	build_missing(&missing);
	for (size_t i = 0; i < missing.n; i++)
		problem_world(&cli->problems, "%s", missing.v[i]);
	strv_done(&missing);
}

static void on_waits(void *ctx)
{
	struct build_view *view = ctx;

	progress_line(&view->p, IMAGES_WAITS);
}

static int build_it(struct build_args *args, const struct build_cmd_args *cmd, struct err *err, struct build_view *view,
		    int stop_fd)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, warning);
	AUTO_FREE(char, role);
	struct state_root root = STATE_ROOT_INIT;
	struct build_result res;
	struct store store;
	int r;

	r = find_role("agent-vm-image", &role, err);
	if (r == 0)
		r = state_root_path(&path, &warning, err);
	if (warning)
		(void)fprintf(stderr, "agent-vm: warning: %s\n", warning);
	if (r == 0)
		r = state_root_open(path, true, &root, err);
	if (r < 0)
		return r;
	r = store_open(root.fd, root.path, &store, err);
	store.stop_fd = stop_fd;
	store.waits = on_waits;
	store.waits_ctx = view;
	if (r == 0 && cmd->if_missing && store_has(&store, args->reference)) {
		store_close(&store);
		state_root_close(&root);
		return 0;
	}
	if (r == 0) {
		args->image_role = role;
		build_view_init(view, args->reference, cmd->quiet, cmd->json);
		r = image_build(&store, args, build_view_progress, view, stop_fd, &res, err);
		store_close(&store);
	}
	state_root_close(&root);
	if (r < 0)
		return r;
	build_view_done(view, &res);
	free(res.reference);
	free(res.note);
	return 0;
}

static int build_run(struct cli *cli, void *cmd_args, char **rest)
{
	struct build_cmd_args *cmd = cmd_args;
	AUTO_FREE(char, reference);
	struct build_view view = { .p.json = cmd->json };
	struct build_args args;
	struct err err = { 0 };
	AUTO_FD(stop_fd);
	sigset_t old;
	int r;

	read_args(cli, cmd, &args, &reference);
	if (cli->problems.n == 0)
		read_host(cli, cmd, &args);
	if (cli->problems.n > 0) {
		strv_done(&args.include);
		return problems_report(&cli->problems, stderr, "nothing was built");
	}
	stop_fd = stop_open(&old);
	r = build_it(&args, cmd, &err, &view, stop_fd);
	strv_done(&args.include);
	if (r < 0)
		progress_error(&view.p, err.text);
	progress_done(&view.p);
	return stop_status(r, stop_fd, &old);
}

const struct cmd cmd_build = {
	.name = "build",
	.summary = "make the built-in image on this machine, without a registry or Docker",
	.usage = "[OPTIONS]",
	.about = "Makes an image of Debian 13 and the agents' programs: packages by mmdebstrap from the Debian mirror that this "
		 "machine's apt uses, programs from their npm packages, in the versions and with the hashes that this version of "
		 "agent-vm knows. No root is needed: mmdebstrap works in a user namespace, with the package uidmap and a range of "
		 "sub-ids. Nothing from npm is run on this machine.\n\n"
		 "The programs are claude, codex, opencode and copilot; see the options for less and for more. What was made before "
		 "from the same is used again. The registry is npm_config_registry, else that of ~/.npmrc, else npm's own. The "
		 "first image becomes the default one.",
	.examples = "agent-vm build\tthe default image\n"
		    "agent-vm build --minimal --include golang\ta small one with Go\n"
		    "agent-vm build --full --output oci:agent-vm\tall of it, also as a folder for skopeo\n",
	.opts = build_opts,
	.args_size = sizeof(struct build_cmd_args),
	.words = CMD_WORDS_NONE,
	.run = build_run,
};
