/* Which git directory a project uses, found without running git (command line page, section 8.2).
 *
 * The pointer files (.git as a file, commondir, gitdir) and configs are project content: the guest may have written them.
 * They are read below a descriptor with no link followed, capped, and believed only when what they point to points back,
 * belongs to the user and passes section 7. The path that a pointer names is followed only if no component of it is a
 * link: git itself writes resolved paths. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/str.h"
#include "session/exposure.h"
#include "session/finding.h"

enum gitdir_kind {
	GITDIR_NONE,	 /* no work tree around the project, or none that is believed */
	GITDIR_INSIDE,	 /* .git is a folder of the top */
	GITDIR_WORKTREE, /* linked worktree */
	GITDIR_MODULE,	 /* .git is a file and the target's core.worktree is the top (submodules) */
	GITDIR_BARE,	 /* the project is a git directory itself */
	GITDIR_KINDS
};

struct gitdir {
	enum gitdir_kind kind;
	char *top;	    /* top of the work tree; the project itself or a folder above it; NULL for NONE and BARE */
	char *entry;	    /* TOP/.git when it is there, whatever it is; NULL otherwise */
	bool entry_is_file; /* .git is a regular file */
	bool entry_is_odd;  /* .git is a link, a FIFO ...: nothing was read, it cannot be guarded */
	char *common;	    /* git directory with hooks, config, objects; NULL for NONE */
	char *admin;	    /* WORKTREE: COMMON/worktrees/NAME; NULL otherwise */
	bool relative;	    /* the pointer in .git is relative (or there is none): the distances must be kept in the guest */
};

enum gitbind_role { GITBIND_TOP, GITBIND_COMMON, GITBIND_MODULE };

/* What is bound besides the project. */
struct gitbind {
	enum gitbind_role role;
	char *host;
	bool ro;
	char *purpose; /* "common directory of this worktree"; the table's row is MODE HOST (PURPOSE) */
};

#define GITBINDS_MAX 2

struct gitdir_args {
	const char *project; /* canonical */
	const char *home;    /* canonical or NULL; the search ends there */
	uid_t uid;	     /* to whom the target must belong */
	struct exposure *exposure;
};

/**
 * gitdir_find() - Find the work tree and the git directory of a project, and what of them must be bound
 * @binds:	Room for GITBINDS_MAX
 * @rows:	Takes the "exposed" rows of what is bound; may be NULL
 * @found:	Gets a FINDING_NOTE for what is not bound: why, and which --mount would
 *
 * Return: 0, also when there is no repository; -EACCES with a FINDING_WORLD when the project lies inside a git directory
 */
int gitdir_find(const struct gitdir_args *args, struct gitdir *ret, struct gitbind *binds, size_t *ret_n_binds,
		struct strv *rows, struct findings *found);
void gitdir_done(struct gitdir *g);

/**
 * gitdir_follow() - The git directory that the file .git of a folder leads to
 * @top:	Canonical
 * @uid:	To whom the target must belong
 * @ret:	That of hooks, config and objects; caller owns
 *
 * Return: 0; -EISDIR: .git is a folder; -ENOENT: there is none; another one: it is not believed, as in gitdir_find()
 */
int gitdir_follow(const char *top, uid_t uid, char **ret);

void gitbind_done(struct gitbind *b);

/* Could git take the folder for a git directory? It wants a HEAD, and objects and refs in the folder or in that which
 * commondir names, and follows links to them (is_git_directory() of git 2.39). Where a link leads is not asked: that
 * something has the name is enough. */
bool gitdir_looks_like(int dirfd);

/* The same for the folder with this path; what has the name .git is one whatever lacks in it: a guest can put that there. */
bool gitdir_is(const char *path, int dirfd);

/* Does its file commondir name another git directory? One that says "." (which is how the guard keeps another from being
 * made) names this one. What cannot be read counts as another. */
bool gitdir_has_other_common(int dirfd);

/**
 * gitdir_pointer() - Content of a .git file: "gitdir: PATH"
 * @ret:	PATH as written, caller owns
 *
 * Pure. Return: 0; -EBADMSG for anything else, an empty path, a NUL or a control byte in it
 */
int gitdir_pointer(const char *text, size_t n, char **ret);

/* The same for files that hold a bare path: commondir, worktrees/NAME/gitdir. */
int gitdir_path_line(const char *text, size_t n, char **ret);
