#include "vault/renew.h"

#include <assert.h>

#include "base/macros.h"
#include "vault/guestfile.h"

#define UNKNOWN_S 3600

const char *const renew_program_str[RENEW_PROGRAMS] = {
	[RENEW_NOTHING] = "none",
	[RENEW_CLAUDE_STATUS] = "claude-status",
	[RENEW_CLAUDE_PROMPT] = "claude-prompt",
	[RENEW_CODEX_SERVER] = "codex-server",
	[RENEW_CODEX_SERVER_RENEW] = "codex-server-renew",
	[RENEW_CODEX_EXEC] = "codex-exec",
};

int renew_program_limit_ms(enum renew_program p)
{
	return p == RENEW_CLAUDE_PROMPT ? 45000 : p == RENEW_CODEX_EXEC ? 60000 : 20000;
}

/* What comes after @p; the first one for RENEW_NOTHING. The short one of each provider renews only what is about to
 * end, so a token that was refused before its time needs another. */
static enum renew_program next_program(const struct renew *r, enum renew_program p, bool rejected)
{
	switch (p) {
	case RENEW_NOTHING:
		if (r->prov == PROV_ANTHROPIC)
			return rejected ? RENEW_CLAUDE_PROMPT : RENEW_CLAUDE_STATUS;
		return rejected ? RENEW_CODEX_SERVER_RENEW : RENEW_CODEX_SERVER;
	case RENEW_CLAUDE_STATUS:
		return RENEW_CLAUDE_PROMPT;
	case RENEW_CODEX_SERVER:
	case RENEW_CODEX_SERVER_RENEW:
		return RENEW_CODEX_EXEC;
	default:
		return RENEW_NOTHING;
	}
}

void renew_init(struct renew *r, enum prov prov)
{
	assert(prov == PROV_ANTHROPIC || prov == PROV_OPENAI);
	*r = (struct renew){ .prov = prov };
	for (size_t i = 0; i < RENEW_ASKED_MAX; i++)
		r->asked[i] = INT64_MIN / 2;
}

void renew_rejected(struct renew *r, uint64_t generation)
{
	r->rejected = generation;
}

static bool is_rejected(const struct renew *r, const struct renew_file *f)
{
	return r->rejected != 0 && r->rejected == f->generation;
}

bool renew_is_due(const struct renew *r, const struct renew_file *f, int64_t wall_ms)
{
	/* What is not there cannot be renewed by a program of its own accord. */
	if (f->state != RENEW_FILE_OK)
		return false;
	/* An unknown expiry is 0, which is long ago. */
	return (f->exp_ms - wall_ms) / 1000 <= RENEW_DUE_S || is_rejected(r, f);
}

bool renew_is_over(const struct renew_file *f, int64_t wall_ms)
{
	return f->state == RENEW_FILE_OK && f->exp_ms > 0 && f->exp_ms <= wall_ms;
}

static void finish(struct renew *r)
{
	for (size_t i = 0; i < RENEW_WAITING_MAX; i++)
		r->waiting[i].done |= r->waiting[i].id != 0;
	r->state = RENEW_IDLE;
}

static bool somebody_waits(const struct renew *r)
{
	for (size_t i = 0; i < RENEW_WAITING_MAX; i++)
		if (r->waiting[i].id != 0)
			return true;
	return false;
}

enum renew_reply renew_ask(struct renew *r, const struct renew_file *f, uint32_t id, int64_t now, int64_t wall_ms)
{
	int64_t *oldest = &r->asked[r->asked_at];
	size_t i = 0;

	assert(id != 0);
	if (now - *oldest < RENEW_MINUTE_MS)
		return RENEW_LIMIT;
	*oldest = now;
	r->asked_at = (r->asked_at + 1) % RENEW_ASKED_MAX;
	if (!renew_is_due(r, f, wall_ms))
		return RENEW_ANSWER;
	while (i < RENEW_WAITING_MAX && r->waiting[i].id != 0)
		i++;
	if (i == RENEW_WAITING_MAX)
		return RENEW_LIMIT;
	r->waiting[i].id = id;
	r->waiting[i].until = now + RENEW_DEADLINE_MS;
	r->waiting[i].done = false;
	if (r->state == RENEW_IDLE) {
		r->state = RENEW_LOCKING;
		r->retry_at = now;
	}
	return RENEW_WAITS;
}

void renew_forget(struct renew *r, uint32_t id)
{
	for (size_t i = 0; i < RENEW_WAITING_MAX; i++)
		if (r->waiting[i].id == id)
			r->waiting[i].id = 0;
}

enum renew_act renew_act(struct renew *r, const struct renew_file *f, int64_t now, int64_t wall_ms,
			 enum renew_program *ret_program)
{
	/* Another session may have renewed it; for that no lock is needed. */
	if (r->state == RENEW_LOCKING && !r->locked && (!renew_is_due(r, f, wall_ms) || !somebody_waits(r)))
		finish(r);
	switch (r->state) {
	case RENEW_IDLE:
		if (!r->locked)
			return RENEW_NO_ACT;
		r->locked = false;
		return RENEW_UNLOCK;
	case RENEW_LOCKING:
		if (now < r->retry_at)
			return RENEW_NO_ACT;
		r->retry_at = INT64_MAX; /* until the outcome is known */
		return RENEW_LOCK;
	case RENEW_RUNNING:
		break;
	}
	if (r->program == RENEW_NOTHING || r->retry_at == INT64_MAX)
		return RENEW_NO_ACT;
	assert(r->locked);
	r->retry_at = INT64_MAX;
	*ret_program = r->program;
	return RENEW_RUN;
}

void renew_lock(struct renew *r, bool got, int64_t since_start_ms, const struct renew_file *f, int64_t now,
		int64_t wall_ms)
{
	r->locked = got;
	if (r->state != RENEW_LOCKING)
		return;
	if (!got) {
		r->retry_at = now + RENEW_RETRY_MS;
	} else if (!renew_is_due(r, f, wall_ms) || (since_start_ms >= 0 && since_start_ms < RENEW_DAMPER_MS)) {
		finish(r);
	} else {
		r->state = RENEW_RUNNING;
		r->before = f->generation;
		r->program = next_program(r, RENEW_NOTHING, is_rejected(r, f));
		r->retry_at = now;
	}
}

void renew_ended(struct renew *r, const struct renew_file *f, int64_t wall_ms)
{
	if (r->state != RENEW_RUNNING)
		return;
	r->program = next_program(r, r->program, false);
	r->retry_at = 0;
	/* Another token, or none: what the next program would do is done, or not wanted. */
	if (f->generation != r->before || !renew_is_due(r, f, wall_ms) || r->program == RENEW_NOTHING)
		finish(r);
}

uint32_t renew_next_done(struct renew *r, int64_t now, bool *ret_pending)
{
	for (size_t i = 0; i < RENEW_WAITING_MAX; i++) {
		uint32_t id = r->waiting[i].id;

		if (id == 0 || (!r->waiting[i].done && now < r->waiting[i].until))
			continue;
		*ret_pending = !r->waiting[i].done;
		r->waiting[i].id = 0;
		return id;
	}
	return 0;
}

int64_t renew_wake(const struct renew *r)
{
	int64_t at = r->state == RENEW_IDLE ? INT64_MAX : r->retry_at;

	for (size_t i = 0; i < RENEW_WAITING_MAX; i++)
		if (r->waiting[i].id != 0)
			at = MIN(at, r->waiting[i].done ? 0 : r->waiting[i].until);
	return at;
}

enum token_lack renew_values(const struct renew *r, const struct renew_file *f, const struct login_info *info,
			     enum ph_kind kind, int64_t wall_ms, struct token_values *ret)
{
	int64_t left = f->exp_ms - wall_ms, floor_s = kind == PH_OPENCODE_R ? 30 : RENEW_DUE_S;

	switch (f->state) {
	case RENEW_FILE_SIGNED_OUT:
		return TOKEN_LACK_LOGIN;
	case RENEW_FILE_BAD:
		return TOKEN_LACK_FILE;
	case RENEW_FILE_KEY:
		return TOKEN_LACK_KEY;
	case RENEW_FILE_OK:
		break;
	}
	if (is_rejected(r, f))
		return TOKEN_LACK_REJECTED;
	if (f->exp_ms <= 0 && r->prov == PROV_ANTHROPIC)
		return TOKEN_LACK_UNKNOWN;
	if (f->exp_ms > 0 && left <= 0)
		return TOKEN_LACK_EXPIRED;
	if (f->exp_ms > 0 && left / 1000 <= floor_s)
		return TOKEN_LACK_SOON;
	*ret = (struct token_values){ .expires_in = f->exp_ms > 0 ? left / 1000 : UNKNOWN_S,
				      .claims = guestfile_claims(info, wall_ms / 1000),
				      .scope = info->scopes };
	return TOKEN_LACK_NONE;
}
