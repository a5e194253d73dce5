#include "cli/images.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "cli/find.h"

const char *images_reference(const char *given)
{
	const char *tag = getenv("AGENT_VM_IMAGE_TAG");

	return given ? given : tag && *tag ? tag : NULL;
}

int images_full(const char *given, char **ret, struct err *err)
{
	const char *ref = images_reference(given);
	int r = store_ref_full(ref, ret, err);

	return r < 0 ? err_ctx(err, r, "%s", given ? "--image" : "AGENT_VM_IMAGE_TAG") : 0;
}

int images_insecure_check(const char *value, struct err *err)
{
	AUTO_FREE(char, shown);

	if (!value || !*value || str_switch(value) >= 0)
		return 0;
	shown = str_escape(value, strlen(value));
	return err_set(err, -EINVAL, "AGENT_VM_INSECURE_REGISTRY=%s: neither on nor off; set it to 1 or 0", shown);
}

int images_word_check(const struct store *s, const char *given, struct err *err)
{
	AUTO_FREE(char, local);
	AUTO_FREE(char, full);

	if (!given || strpbrk(given, "/:@"))
		return 0;
	local = xasprintf(IMAGE_REF_LOCAL "%s", given);
	if (!store_has(s, local) || store_ref_full(given, &full, NULL) < 0)
		return 0;
	return err_set(err, -ENOENT, "image %s: not in the store; %s is, which was made here; use that name, or %s for that of Docker Hub",
		       given, local, full);
}

static void on_waits(void *ctx)
{
	(void)fprintf(stderr, "%s\n", IMAGES_WAITS);
}

int images_open(bool make, struct state_root *root, struct store *store, struct err *err)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, warning);
	int r;

	r = state_root_path(&path, &warning, err);
	if (r < 0)
		return r;
	if (warning)
		(void)fprintf(stderr, "agent-vm: warning: %s\n", warning);
	r = state_root_open(path, make, root, err);
	if (r == -ENOENT && !make)
		return 0;
	/* -EINVAL is the wrong variable's. */
	if (r < 0)
		return r == -EINVAL ? -EIO : r;
	if (!make && faccessat(root->fd, STATE_IMAGES, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
		state_root_close(root);
		return 0;
	}
	r = store_open(root->fd, root->path, store, err);
	if (r < 0) {
		state_root_close(root);
		return r;
	}
	store->waits = on_waits;
	return 1;
}

int images_pull(const struct store *s, const char *full, int stop_fd, int log_fd, bool quiet, bool json,
		struct pull_view *view, struct pull_result *ret, struct err *err)
{
	struct pull_args args = { .reference = full, .archive_fd = strcmp(full, "-") == 0 ? STDIN_FILENO : -1,
				  .log_fd = log_fd, .stop_fd = stop_fd, .progress = pull_view_progress, .ctx = view };
	AUTO_FREE(char, role);
	AUTO_FD(log);
	int r;

	pull_view_init(view, full, quiet, json);
	if (str_starts(full, IMAGE_REF_LOCAL))
		return err_set(err, -EINVAL, "image %s: made on this machine, no registry has it; make it with: agent-vm build --tag %s",
			       full, full + strlen(IMAGE_REF_LOCAL));
	if (str_starts(full, IMAGE_REF_STDIN))
		return err_set(err, -EINVAL, "image %s: came by standard input, nothing has it to pull; store it again with: agent-vm pull --image -",
			       full);
	r = find_role("agent-vm-image", &role, err);
	if (r < 0)
		return r;
	if (log_fd < 0)
		log = openat(s->fd, "pull.log", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (log_fd < 0)
		args.log_fd = log;
	args.image_role = role;
	return image_pull(s, &args, ret, err);
}

void images_size(uint64_t bytes, char *ret, size_t n)
{
	if (bytes >= 1000000000)
		(void)snprintf(ret, n, "%.1f GB", (double)bytes / 1e9);
	else if (bytes >= 1000000)
		(void)snprintf(ret, n, "%.1f MB", (double)bytes / 1e6);
	else
		(void)snprintf(ret, n, "%.0f KB", (double)bytes / 1e3);
}

void images_age(int64_t seconds, char *ret, size_t n)
{
	long long s = seconds < 0 ? 0 : seconds;

	if (s < 60)
		(void)snprintf(ret, n, "%llds", s);
	else if (s < 3600)
		(void)snprintf(ret, n, "%lldm", s / 60);
	else if (s < 2 * 86400)
		(void)snprintf(ret, n, "%lldh", s / 3600);
	else
		(void)snprintf(ret, n, "%lldd", s / 86400);
}
