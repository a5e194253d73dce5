/* What pull, setup, images, prune and a launch share about the image store. */
#pragma once

#include "cli/pull_progress.h"
#include "session/root.h"

/* --image if it was given, else AGENT_VM_IMAGE_TAG if it holds something, else NULL for the default. Borrowed. */
const char *images_reference(const char *given);

/**
 * images_full() - The full form of what images_reference() found
 *
 * Return: as store_ref_full(); the text of an error names the option or the variable
 */
int images_full(const char *given, char **ret, struct err *err);

/* A value of AGENT_VM_INSECURE_REGISTRY, or NULL. 0; -EINVAL with @err set. */
int images_insecure_check(const char *value, struct err *err);

/**
 * images_word_check() - Whether a single word was meant for what `agent-vm build --tag WORD` made
 * @given:	From images_reference(), not stored
 *
 * The word alone is a name on Docker Hub, where somebody else may have an image of that name.
 *
 * Return: 0; -ENOENT with @err set when such an image is stored
 */
int images_word_check(const struct store *s, const char *given, struct err *err);

/**
 * images_open() - The state root and the store in it
 * @make:	Make what is missing; without it a store that is not there is 0
 *
 * A warning about the root's path goes to stderr.
 *
 * Return: 1, then both are closed by the caller; 0; -EINVAL: a variable is wrong (exit 2); another negative errno; with
 * @err set
 */
int images_open(bool make, struct state_root *root, struct store *store, struct err *err);

/**
 * images_pull() - Pull one reference and show how it goes
 * @full:	From store_ref_full(), or "-"
 * @stop_fd:	From stop_open()
 * @log_fd:	For what the roles log; -1: pull.log in the store
 * @view:	Initialised here; the caller ends it with pull_view_done() in any case
 *
 * Return: as image_pull(); also -EINVAL for a reference that no registry can have
 */
int images_pull(const struct store *s, const char *full, int stop_fd, int log_fd, bool quiet, bool json,
		struct pull_view *view, struct pull_result *ret, struct err *err);

/* "2.4 GB", "690.1 MB", "12 KB" */
void images_size(uint64_t bytes, char *ret, size_t n);
/* "5m", "3h", "12d" */
void images_age(int64_t seconds, char *ret, size_t n);
