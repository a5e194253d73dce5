/* One login file of the host as the vault's table has it (credentials page 4): looked at before each request that needs
 * it, read again when it changed, never served across a change. Secrets of earlier contents stay known to the scanner
 * of answers for 15 minutes. The clock comes in; the folder is a descriptor of the caller. */
#pragma once

#include <sys/stat.h>

#include "vault/hostfile.h"

#define SOURCE_RETRIES 3
#define SOURCE_RETRY_MS 20
#define SOURCE_GOOD_MS 5000 /* a file that cannot be read is waited for so long: Codex truncates it in place */
#define SOURCE_OLD_MS 900000
#define SOURCE_OLD_MAX 32

enum source_kind { SOURCE_ANTHROPIC, SOURCE_OPENAI, SOURCE_OPENCODE, SOURCE_COPILOT };
#define SOURCES (SOURCE_COPILOT + 1)

/* What tells one content of a file from another. */
struct source_id {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

/* One that is not sent any more and must not come back either. */
struct old_secret {
	struct secret s;
	int64_t until; /* ms; then it is wiped */
};

/* @from is taken and kept for SOURCE_OLD_MS; when all @n places are taken the oldest makes room. */
void old_keep(struct old_secret *v, size_t n, struct secret *from, int64_t now);
/* As source_needles(). */
size_t old_needles(struct old_secret *v, size_t n, int64_t now, struct span *ret, size_t max);
/* When the first of them is past its time; -1: there is none. */
int64_t old_until(const struct old_secret *v, size_t n);

struct source {
	enum source_kind kind;
	int dirfd;			/* borrowed */
	const char *name;		/* kept; one component */
	uid_t owner;			/* beside root */
	bool (*may)(int fd, void *arg); /* whether the file that was opened lies where it may; NULL: anywhere */
	void *arg;

	/* What there is; read-only for others, after source_look() returned 0. */
	struct login login;
	struct host_keys keys;
	uint64_t generation; /* from 1; another number for another content */
	const char *why;     /* the cause of a failure or of what was passed over; fixed text, NULL: none */

	struct source_id id;
	bool have; /* login or keys are of @id */
	bool bad;  /* the last reading failed; of @bad_id */
	struct source_id bad_id;
	int bad_result;
	unsigned retries;
	int64_t bad_since, retry_at;
	struct old_secret old[SOURCE_OLD_MAX];
};

void source_init(struct source *s, enum source_kind kind, int dirfd, const char *name, uid_t owner);
void source_done(struct source *s);

/**
 * source_look() - Make what is there current
 * @now:	Milliseconds of the boot-time clock
 *
 * Return: 0: login or keys can be used; -ENOENT: signed out or no file; -EAGAIN: it seems to be in the middle of a
 * write, ask again at @retry_at; -EBADMSG, -ENOTSUP, -EPERM (not ours, no file, too large, not where it may be), or
 * another negative errno: cannot be used, see @why
 */
int source_look(struct source *s, int64_t now);

/* What the scanner of answers has to find: of a JWT the signature, of others all; borrowed until the next
 * source_look(). At most @max of them; how many. Wipes what is past its time. */
size_t source_needles(struct source *s, int64_t now, struct span *ret, size_t max);
#define SOURCE_NEEDLES_MAX (4 + PH_KINDS + SOURCE_OLD_MAX)
