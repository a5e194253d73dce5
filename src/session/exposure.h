/* What may not be shown to the guest (command line page, section 7).
 *
 * A path "touches" a thing when it is it, contains it, or lies in it. That is asked three times: of the canonical paths, by
 * whole components; of the file systems below them (device and path in it, from mountinfo), so that a bind mount of a
 * login folder, or a project that has such a mount somewhere inside, counts; and of device and inode of the ancestors, so
 * that a folder that ignores case does not help. A thing that is a link counts at its own place and where it leads.
 *
 * Bounds: a mount made after the check is not seen, neither is a hard link to a single file. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

struct exposure_args {
	const char *state_root;	 /* absolute; need not exist yet */
	const char *image_store; /* NULL: below the root */
	const char *home;	 /* NULL: none */
	const char *const *own;	 /* our executables and libraries, NULL-terminated; may be NULL */
	const char *const *lift; /* --expose, made absolute by the caller, NULL-terminated; may be NULL */
	const char *(*env)(const char *name, void *arg); /* NULL: getenv(3) */
	void *env_arg;
};

enum exposure_role { EXPOSURE_PROJECT, EXPOSURE_MOUNT, EXPOSURE_GIT };

enum exposure_verdict {
	EXPOSURE_OK,
	EXPOSURE_SHOWN,		/* allowed: row "exposed", no warning, because --expose names it */
	EXPOSURE_WARN,		/* allowed: row "exposed" and a warning */
	EXPOSURE_REFUSED_SOFT,	/* refused; --expose lifts it */
	EXPOSURE_REFUSED_HARD,	/* refused, cannot be lifted */
	EXPOSURE_VERDICTS
};

struct exposure_result {
	enum exposure_verdict verdict;
	char *text;	  /* of a refusal or warning: "PATH: CAUSE; WHAT TO DO", escaped; NULL otherwise */
	struct strv rows; /* for the table's row "exposed": the things that the guest will see */
};

struct exposure;

/* Collects the things to guard; looks at the host. Ends the program without memory. */
struct exposure *exposure_new(const struct exposure_args *args);
void exposure_free(struct exposure *e);

/**
 * exposure_check() - May @path be shown?
 * @path:	Canonical and existing
 * @object:	What the text names, such as "--mount ~/.ssh:ro"; NULL: @path
 *
 * An --expose counts when it is @path or the thing touched; then no other thing is lifted by it.
 *
 * Return: the verdict, also in @ret, which is always set; exposure_result_done() afterwards
 */
enum exposure_verdict exposure_check(struct exposure *e, const char *path, enum exposure_role role, const char *object,
				     struct exposure_result *ret);
void exposure_result_done(struct exposure_result *r);

/* The --expose that no check so far needed, by index into lift[]; -1 when there is none after @from. */
int exposure_unused(const struct exposure *e, int from);
