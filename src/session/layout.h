/* What of the host's files the guest sees: the project, its git directories, the mounts, the state folder, what of them is
 * guarded and what is hidden. One call in pre-flight, which looks and writes nothing; the launcher turns the result into
 * the records of proto/vmmcfg.h (shares with their guards) and proto/guestcfg.h (binds, in this order).
 *
 * Every guard and every hidden path is put on all shares through which its place can be reached, not only on the one it
 * came from: a mount of the project's parent would otherwise be a way around. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "session/finding.h"
#include "session/gitdir.h"
#include "session/guard.h"

struct layout_args {
	const char *project;	 /* canonical current directory */
	const char *home;	 /* NULL: none */
	const char *state_root;	 /* absolute; need not exist */
	const char *state_dir;	 /* ROOT/HASH: shared as /agent-vm-state; need not exist yet */
	const char *image_store; /* NULL: below the root */
	uid_t uid;
	const char *const *mounts; /* as typed; NULL-terminated, may be NULL; so the next three */
	const char *const *expose;
	const char *const *hide;
	const char *const *own; /* our executables and libraries */
	bool no_hide;
	bool no_git_dir; /* --git-dir none */
	bool git_config_rw;
	bool report_only; /* no mount namespaces here: guards cannot be enforced, hiding is an error */
	const char *(*env)(const char *name, void *arg); /* NULL: getenv(3) */
	void *env_arg;
};

enum layout_kind { LAYOUT_PROJECT, LAYOUT_GIT, LAYOUT_MOUNT, LAYOUT_STATE, LAYOUT_SETTINGS, LAYOUT_KINDS };

struct layout_share {
	enum layout_kind kind;
	char *host;  /* canonical */
	char *guest; /* absolute */
	bool ro;
	/* Relative to host; parents before children within each list. VC_GUARD_RO, _SELF, _RW and VC_HIDE. The VMM binds
	 * self first, then ro, then rw, then hide. */
	struct strv guard_ro, guard_self, guard_rw, hide;
};

struct layout_rows {
	struct strv project, git, guard, mounts, hidden, exposed, state; /* one text a row of the table, escaped */
};

struct layout {
	struct layout_share *shares; /* in the order of the guest's binds: parents before children */
	size_t n_shares;
	size_t project; /* index of the project's share */
	char *project_guest;
	char *workspace_why; /* line that says why the project is not at its own path; NULL when it is */
	struct gitdir git;
	struct guard guard; /* make and configs are for the launcher */
	struct layout_rows rows;
};

/**
 * layout_plan() - Decide all of it
 * @found:	Mistakes, warnings and notes in order; findings_stop() says whether the launch ends here
 *
 * Return: 0, and @ret is set; a negative errno when findings stop the launch, then @ret is untouched
 */
int layout_plan(const struct layout_args *args, struct layout *ret, struct findings *found);
void layout_done(struct layout *l);

/* A folder of ours, made after the plan: the copies of the user's own settings. */
void layout_add_settings(struct layout *l, const char *host, const char *guest, bool ro);
