/* What runs on the host must not be written by the guest (command line page, section 8.4): the list of places, as host
 * paths. The layout turns it into paths relative to every share through which a place can be reached.
 *
 * A read-only bind over hooks/ is worth nothing while a folder above it can be renamed and made anew, so every folder
 * between the share and the place is bound onto itself ("self"). Besides the places of the page's table these are guarded,
 * because each of them replaces the configuration that git reads:
 *   - the content of a .git file and of worktrees/NAME/commondir (they name the git directory),
 *   - commondir of a git directory. One that is missing is made and says ".", which changes nothing (tried with git 2.39:
 *     commit, gc, worktrees, submodules, clone, push): an empty one is an error to git, and there is no mount over nothing,
 *   - config, made empty when missing, and config.worktree, made empty when missing, if extensions.worktreeConfig is on,
 *   - the .git of submodules and worktrees below the project: "git status" above runs in the submodules of its index; and
 *     that of every repository below a folder that is in none. Other clones inside a work tree (what a build or a package
 *     manager fetched) are not: their folders could then not be removed by the guest, and git above does not enter them. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "session/finding.h"
#include "session/gitdir.h"

#define GUARD_MODULE_DEPTH 12	/* folders below modules/: names may hold slashes, and modules have modules */
#define GUARD_ENTRIES_MAX 20000 /* folder entries looked at in modules/ and worktrees/ */
#define GUARD_PLACES_MAX 4096	/* each is a mount in the cage */

#define GUARD_COMMONDIR ".\n" /* content of a commondir of ours */

struct guard {
	struct strv ro;	      /* host paths bound onto themselves read-only */
	struct strv self;     /* host paths bound onto themselves writable, so that they stay where they are */
	struct strv make;     /* of ro: made before the binds where they are missing, and removed at the end (session/made.h) */
	struct strv configs;  /* git configs that were left writable (--git-config rw), for session/confwatch.h */
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
 * guard_below() - Add the .git of the repositories below @dir, as above, and the places of those that are git directories
 * @gitdir:	Folder with the index of @dir's work tree, host path; NULL: it is none, or not the top
 * @common:	Its common directory; NULL with @gitdir
 *
 * Bounded as session/treewalk.h says; links are not followed. Return: 0 or a negative errno with a finding
 */
int guard_below(struct guard *g, const char *dir, const char *gitdir, const char *common, bool config_rw,
		struct findings *found);

/* A place of struct guard.make, made or removed; the folder is opened without following links. */

/* hooks: a folder; commondir: a file that says "."; others: an empty file. 0; -EEXIST; a negative errno. */
int guard_place_make(const char *path);
/* Only one that is as guard_place_make() made it; errors do not matter. */
void guard_place_remove(const char *path);
/* 0; -ENOENT: it is missing; a negative errno. */
int guard_place_there(const char *path);

/* Opens the folder of an absolute path, O_RDONLY, no link on the way. @ret_name points into @path. Negative errno. */
int guard_open_parent(const char *path, const char **ret_name);

void guard_done(struct guard *g);
