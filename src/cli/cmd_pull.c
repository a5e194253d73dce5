/* agent-vm pull: an image from a registry, a file or a folder into the store; boots nothing. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "cli/cmd.h"
#include "cli/images.h"
#include "cli/stop.h"

struct pull_cmd_args {
	const char *image;
	bool json, quiet;
};

static const struct opt pull_opts[] = {
	{ "image", OPT_STRING, offsetof(struct pull_cmd_args, image), "REF", "which image", 0,
	  "[HOST[:PORT]/]NAME[:TAG][@DIGEST], oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], or - for "
	  "an archive on standard input, which is stored as stdin:NAME with the name that it has for the image: it never "
	  "replaces one that came from elsewhere. Default: AGENT_VM_IMAGE_TAG, else " IMAGE_REF_DEFAULT ".",
	  "ghcr.io/wirenboard/agent-vm-template:latest" },
	{ "json", OPT_FLAG, offsetof(struct pull_cmd_args, json), NULL, "print events as JSON, one object a line" },
	{ "quiet", OPT_FLAG, offsetof(struct pull_cmd_args, quiet), NULL, "print only the result and errors" },
	{ NULL },
};

static int full_reference(const char *given, char **ret, struct err *err)
{
	if (!given || strcmp(given, "-") != 0)
		return images_full(given, ret, err);
	if (isatty(STDIN_FILENO))
		return err_set(err, -EINVAL, "--image -: standard input is a terminal; pipe an archive into it, as docker save writes one");
	*ret = xstrdup(given);
	return 0;
}

static int pull_it(const struct pull_cmd_args *a, struct pull_view *view, int stop_fd, struct err *err)
{
	struct state_root root = STATE_ROOT_INIT;
	struct pull_result res;
	AUTO_FREE(char, full);
	struct store store;
	int r;

	r = images_insecure_check(getenv("AGENT_VM_INSECURE_REGISTRY"), err);
	if (r == 0)
		r = full_reference(a->image, &full, err);
	if (r == 0)
		r = images_open(true, &root, &store, err);
	if (r < 0)
		return r;
	r = images_pull(&store, full, stop_fd, -1, a->quiet, a->json, view, &res, err);
	if (r == 0) {
		pull_view_result(view, &res, false);
		free(res.reference);
	}
	store_close(&store);
	state_root_close(&root);
	return r;
}

static int pull_cmd_run(struct cli *cli, void *args, char **rest)
{
	struct pull_cmd_args *a = args;
	struct pull_view view = { .p.json = a->json };
	struct err err = { "" };
	AUTO_FD(stop_fd);
	sigset_t old;
	int r;

	stop_fd = stop_open(&old);
	r = pull_it(a, &view, stop_fd, &err);
	if (r < 0)
		progress_error(&view.p, err.text);
	pull_view_done(&view);
	return stop_status(r, stop_fd, &old);
}

const struct cmd cmd_pull = {
	.name = "pull",
	.summary = "get an image, or the newest of it, from its registry",
	.usage = "[OPTIONS]",
	.about = "Loads what is not here yet, makes the image's disk from its layers, and then lets the reference name it. No VM "
		 "is started. Until the end the old image stays in use; a pull that was interrupted goes on where it was. Two at "
		 "once do not disturb each other, and sessions that run keep the disk they have.\n\n"
		 "Logins are those of docker and podman. Plain HTTP is used only for this host, or with "
		 "AGENT_VM_INSECURE_REGISTRY.\n\n"
		 "Standard output has one line with the result, or with --json an object a line: start, manifest, layer, disk, "
		 "done, error.",
	.examples = "agent-vm pull\tthe default image\n"
		    "agent-vm pull --image ghcr.io/me/mine:1\tanother one\n"
		    "docker save mine:1 | agent-vm pull --image -\tfrom Docker on this machine; use it with --image stdin:mine:1\n",
	.opts = pull_opts,
	.args_size = sizeof(struct pull_cmd_args),
	.words = CMD_WORDS_NONE,
	.run = pull_cmd_run,
};
