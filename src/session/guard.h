/* What runs on the host must not be written by the guest (command line page, section 8.4): the list of places, as host
 * paths. The layout turns it into paths relative to every share through which a place can be reached.
 *
 * A read-only bind over hooks/ is worth nothing while a folder above it can be renamed and made anew, so every folder
 * between the share and the place is bound onto itself ("self"). Besides the places of the page's table these are guarded,
 * because each of them replaces the configuration that git reads:
 *   - the content of a .git file and of worktrees/NAME/commondir (they name the git directory),
 *   - config.worktree, made empty when missing, if extensions.worktreeConfig is on. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "session/finding.h"
#include "session/gitdir.h"

#define GUARD_MODULE_DEPTH 12	/* folders below modules/: names may hold slashes, and modules have modules */
#define GUARD_ENTRIES_MAX 20000 /* folder entries looked at in modules/ and worktrees/ */
#define GUARD_PLACES_MAX 4096	/* each is a mount in the cage */

struct guard {
	struct strv ro;	      /* host paths bound onto themselves read-only */
	struct strv self;     /* host paths bound onto themselves writable, so that they stay where they are */
	struct strv make_dir; /* of ro: empty folders to be made before the binds (guard_make()) */
	struct strv make_file; /* of ro: empty files to be made before the binds */
	struct strv watch;    /* places that cannot be guarded (missing, or a link): the report at the end looks at them */
	struct strv configs;  /* git configs that were left writable (--git-config rw) */
};

/**
 * guard_git() - Add the places of one git directory
 * @common:	Host path of the git directory
 * @admin:	For a linked worktree: its folder in COMMON/worktrees, others are then read-only whole; NULL: of every
 *		worktree the pointer files are
 * @config_rw:	--git-config rw
 * @found:	A warning for what cannot be guarded; FINDING_WORLD when there is more than the bounds allow
 *
 * Looks at the host, changes nothing. Return: 0 or a negative errno with a finding
 */
int guard_git(struct guard *g, const char *common, const char *admin, bool config_rw, struct findings *found);

/* Add DIR/.git (file: read-only; folder: self), and DIR/.agentvmignore and DIR/.agent-vm.conf where they exist. */
int guard_top(struct guard *g, const char *dir, struct findings *found);

/**
 * guard_make() - Make the missing places; after pre-flight, before the VM
 * @made:	Host paths that were really made: to be kept in the session's record for guard_unmake()
 */
int guard_make(const struct guard *g, struct strv *made, struct err *err);

/* Remove again what guard_make() made and is still empty; no link followed; errors do not matter. */
void guard_unmake(const struct strv *made);

void guard_done(struct guard *g);
