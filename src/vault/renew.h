/* When the host's own program renews a login, and what the guest is told (credentials page 6.2, 6.3). Decisions only:
 *the clock and what was read of the host's file come in, what to do next comes out. Files, locks and programs belong to
 *the launcher.
 *
 *	IDLE --ask, due--> LOCKING --lock, still due, not damped--> RUNNING --program ended--> RUNNING (next) or IDLE
 *	                      \--file is fresh, damped, or nobody waits any more--> IDLE
 *
 * Nobody waits longer than RENEW_DEADLINE_MS; a program may run on behind that, and who asks then joins it. */
#pragma once

#include "agents/tokens.h"
#include "vault/hostfile.h"

#define RENEW_DUE_S 300 /* whole seconds left, at which Claude Code and Codex ask as well */
#define RENEW_DEADLINE_MS 15000
#define RENEW_RETRY_MS 50     /* between two tries for the lock */
#define RENEW_DAMPER_MS 30000 /* no second start after one */
#define RENEW_WAITING_MAX 8
#define RENEW_ASKED_MAX 30 /* a minute */
#define RENEW_MINUTE_MS 60000

/* What the host's file holds now. */
struct renew_file {
	enum { RENEW_FILE_OK, RENEW_FILE_SIGNED_OUT, RENEW_FILE_BAD, RENEW_FILE_KEY } state;
	int64_t exp_ms;	     /* since 1970; 0: unknown */
	uint64_t generation; /* another number for another content */
};

enum renew_program {
	RENEW_NOTHING,
	RENEW_CLAUDE_STATUS,
	RENEW_CLAUDE_PROMPT,
	RENEW_CODEX_SERVER,
	RENEW_CODEX_SERVER_RENEW,
	RENEW_CODEX_EXEC,
	RENEW_PROGRAMS
};
extern const char *const renew_program_str[RENEW_PROGRAMS];
int renew_program_limit_ms(enum renew_program p);

enum renew_act {
	RENEW_NO_ACT,
	RENEW_LOCK,   /* try the lock without waiting; then renew_lock() */
	RENEW_RUN,    /* write the stamp, then run @program; then renew_ended() */
	RENEW_UNLOCK, /* the lock is not needed any more */
};

enum renew_reply {
	RENEW_WAITS,  /* renew_next_done() will name it */
	RENEW_ANSWER, /* at once, by renew_values() */
	RENEW_LIMIT,  /* 503 */
};

struct renew {
	enum prov prov;
	enum { RENEW_IDLE, RENEW_LOCKING, RENEW_RUNNING } state;
	bool locked;
	enum renew_program program;
	int64_t retry_at;
	uint64_t rejected; /* generation that the service did not take; 0: none */
	uint64_t before;   /* generation when the run began */
	struct {
		uint32_t id; /* 0: free */
		int64_t until;
		bool done;
	} waiting[RENEW_WAITING_MAX];
	int64_t asked[RENEW_ASKED_MAX]; /* a ring of times */
	unsigned asked_at;
};

void renew_init(struct renew *r, enum prov prov); /* PROV_ANTHROPIC or PROV_OPENAI */

/* The service answered 401 to a request with this generation. */
void renew_rejected(struct renew *r, uint64_t generation);

/* Whether the file's token should be renewed before the guest hears of it. */
bool renew_is_due(const struct renew *r, const struct renew_file *f, int64_t wall_ms);
/* Whether a request must wait for a renewal before it goes out: nothing is left of the token. */
bool renew_is_over(const struct renew_file *f, int64_t wall_ms);

/**
 * renew_ask() - A renewal is asked for, or a request found its token over
 * @id:		Not 0; names the one who waits
 * @now:	Milliseconds of the boot-time clock
 */
enum renew_reply renew_ask(struct renew *r, const struct renew_file *f, uint32_t id, int64_t now, int64_t wall_ms);

/* One who waited is gone. */
void renew_forget(struct renew *r, uint32_t id);

/**
 * renew_act() - What is to be done now; called after each event and at renew_wake()
 * @ret_program: For RENEW_RUN
 */
enum renew_act renew_act(struct renew *r, const struct renew_file *f, int64_t now, int64_t wall_ms,
			 enum renew_program *ret_program);

/* The outcome of RENEW_LOCK. @since_start_ms: age of the stamp, negative: none. */
void renew_lock(struct renew *r, bool got, int64_t since_start_ms, const struct renew_file *f, int64_t now,
		int64_t wall_ms);
/* The outcome of RENEW_RUN; the file was read anew, and it alone decides. */
void renew_ended(struct renew *r, const struct renew_file *f, int64_t wall_ms);

/* The next one whose answer is due: its id, or 0. @ret_pending: at the deadline, while the renewal goes on. */
uint32_t renew_next_done(struct renew *r, int64_t now, bool *ret_pending);
/* When renew_act() or renew_next_done() has something to do without an event; INT64_MAX: never. */
int64_t renew_wake(const struct renew *r);

/**
 * renew_values() - The truth table
 * @kind:	Whose refresh placeholder it was
 * @ret:	Numbers for the answer; set for TOKEN_LACK_NONE alone
 *
 * Return: TOKEN_LACK_NONE: 200; else why it is a 503
 */
enum token_lack renew_values(const struct renew *r, const struct renew_file *f, const struct login_info *info,
			     enum ph_kind kind, int64_t wall_ms, struct token_values *ret);
