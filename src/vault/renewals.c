/* Drives vault/renew.c for the two providers that have a program. The launcher has lock, stamp and program, each asked
 * for by a message; what came of it is read in the host's file, which alone decides. */
#include "vault/renewals.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "proto/vaultcfg.h"
#include "vault/logins.h"
#include "vault/renew.h"

#define LOGINS (PROV_OPENAI + 1) /* PROV_ANTHROPIC, PROV_OPENAI */
#define WAITERS 64

enum waiting { NOBODY, A_REQUEST, GATE_LOOKS, GATE_WAITS };

/* The number of one is its place and one. */
struct waiter {
	enum waiting what;
	enum prov prov;
	uint16_t at;		   /* exchange */
	uint32_t gen;		   /* of it */
	uint32_t slot, generation; /* gate's */
	enum ph_kind kind;
	int64_t until; /* GATE_LOOKS: the file is being written */
};

struct renewals {
	struct renew r[LOGINS];
	enum vault_renew_act asked[LOGINS]; /* of the launcher */
	bool waits[LOGINS];		    /* for its answer */
	bool ended[LOGINS];		    /* the program has, and the file is still to be read */
	int64_t look[LOGINS];		    /* when */
	enum renew_program program[LOGINS];
	int64_t began[LOGINS];
	struct waiter w[WAITERS];
};

int renewals_init(struct vault *v)
{
	v->renewals = xcalloc(1, sizeof(*v->renewals));
	renew_init(&v->renewals->r[PROV_ANTHROPIC], PROV_ANTHROPIC);
	renew_init(&v->renewals->r[PROV_OPENAI], PROV_OPENAI);
	return 0;
}

/* What the file holds now. -EAGAIN: it is being written, look again at @ret_at. */
static int look(struct vault *v, enum prov prov, struct renew_file *ret, const struct source **ret_source,
		int64_t *ret_at)
{
	const struct source *s;
	int r = -ENOENT;

	s = logins_source(v, prov, &r);
	*ret = (struct renew_file){ .state = RENEW_FILE_SIGNED_OUT };
	*ret_source = s;
	if (!s || r == -ENOENT)
		return 0;
	if (r == -EAGAIN) {
		*ret_at = s->retry_at * MS;
		return r;
	}
	ret->generation = s->generation;
	ret->exp_ms = s->login.info.exp_ms;
	if (r < 0)
		ret->state = RENEW_FILE_BAD;
	else if (s->login.info.mode == LOGIN_APIKEY)
		ret->state = RENEW_FILE_KEY;
	else if (s->login.access.n > 0)
		ret->state = RENEW_FILE_OK;
	return 0;
}

/* --- who waits --- */

static struct waiter *waiter_new(struct vault *v, enum waiting what, enum prov prov)
{
	for (size_t i = 0; i < WAITERS; i++)
		if (v->renewals->w[i].what == NOBODY) {
			v->renewals->w[i] = (struct waiter){ .what = what, .prov = prov };
			return &v->renewals->w[i];
		}
	return NULL;
}

static uint32_t number(const struct vault *v, const struct waiter *w)
{
	return (uint32_t)(w - v->renewals->w) + 1;
}

void renewals_forget(struct vault *v, uint32_t waiter)
{
	struct waiter *w = waiter > 0 ? &v->renewals->w[waiter - 1] : NULL;

	if (!w)
		return;
	renew_forget(&v->renewals->r[w->prov], waiter);
	w->what = NOBODY;
}

static void renewed(struct vault *v, const struct waiter *w, enum token_lack lack, const struct token_values *t)
{
	struct net_renewed m = { .head = net_head(NET_RENEWED, sizeof(m), w->slot, w->generation), .lack = lack };

	if (lack == TOKEN_LACK_NONE) {
		m.expires_in = t->expires_in;
		m.exp = t->claims.exp;
		m.fedramp = t->claims.fedramp;
		/* Each has a grammar, in which it is shorter than its place. */
		(void)snprintf(m.account_id, sizeof(m.account_id), "%s",
			       t->claims.account_id ? t->claims.account_id : "");
		(void)snprintf(m.plan, sizeof(m.plan), "%s", t->claims.plan ? t->claims.plan : "");
		(void)snprintf(m.scope, sizeof(m.scope), "%s", t->scope);
	}
	link_send(v, &v->gate, &m, sizeof(m), -1);
}

/* By the truth table. */
static void answer_now(struct vault *v, const struct waiter *w, const struct renew_file *f, const struct source *s)
{
	static const struct login_info none;
	struct token_values t;
	enum token_lack lack =
		renew_values(&v->renewals->r[w->prov], f, s ? &s->login.info : &none, w->kind, wall_ms(), &t);

	renewed(v, w, lack, &t);
}

static void consider(struct vault *v, struct waiter *w)
{
	const struct source *s;
	struct renew_file f;
	enum renew_reply reply;

	w->what = GATE_LOOKS;
	if (look(v, w->prov, &f, &s, &w->until) == -EAGAIN)
		return;
	reply = logins_renewable(v, w->prov)
			? renew_ask(&v->renewals->r[w->prov], &f, number(v, w), v->now / MS, wall_ms())
			: RENEW_ANSWER;
	w->what = GATE_WAITS;
	v->again = true;
	if (reply == RENEW_WAITS)
		return;
	if (reply == RENEW_ANSWER)
		answer_now(v, w, &f, s);
	else
		renewed(v, w, TOKEN_LACK_LIMIT, NULL);
	w->what = NOBODY;
}

void renewals_ask(struct vault *v, const struct net_renew *m)
{
	enum prov prov = m->kind == PH_CLAUDE_R ? PROV_ANTHROPIC : PROV_OPENAI;
	struct waiter *w = waiter_new(v, GATE_LOOKS, prov);

	if (!w) {
		renewed(v, &(struct waiter){ .slot = m->head.slot, .generation = m->head.generation }, TOKEN_LACK_LIMIT,
			NULL);
		return;
	}
	w->slot = m->head.slot;
	w->generation = m->head.generation;
	w->kind = (enum ph_kind)m->kind;
	consider(v, w);
}

int renewals_want(struct vault *v, enum prov prov, struct exchange *x)
{
	const struct source *s;
	struct renew_file f;
	struct waiter *w;
	int64_t at;

	if (!logins_renewable(v, prov) || look(v, prov, &f, &s, &at) < 0 || !renew_is_over(&f, wall_ms()))
		return 0;
	w = waiter_new(v, A_REQUEST, prov);
	if (!w)
		return -1;
	w->at = x->at;
	w->gen = x->gen;
	v->again = true;
	if (renew_ask(&v->renewals->r[prov], &f, number(v, w), v->now / MS, wall_ms()) == RENEW_WAITS) {
		x->waiter = number(v, w);
		return 1;
	}
	w->what = NOBODY;
	return -1;
}

void renewals_rejected(struct vault *v, enum ph_kind kind, uint64_t generation)
{
	if (kind == PH_CLAUDE_A)
		renew_rejected(&v->renewals->r[PROV_ANTHROPIC], generation);
	else if (kind == PH_CODEX_A || kind == PH_OPENCODE_A)
		renew_rejected(&v->renewals->r[PROV_OPENAI], generation);
	else if (kind == PH_GH || kind == PH_COPILOT)
		logins_refused(v, kind, generation);
}

/* --- the launcher --- */

static void ask_launcher(struct vault *v, enum prov prov, enum vault_renew_act act, enum renew_program program)
{
	struct vault_renew m = {
		.what = NET_CTL_RENEW, .prov = (uint8_t)prov, .act = (uint8_t)act, .program = (uint8_t)program
	};
	struct renewals *n = v->renewals;

	n->asked[prov] = act;
	n->waits[prov] = act != VAULT_RENEW_UNLOCK;
	n->program[prov] = program;
	n->began[prov] = v->now;
	if (fd_send(NET_FD_CONTROL, &m, sizeof(m), NULL, 0) != sizeof(m))
		vault_end(v, "the launcher does not listen");
}

/* What the program said last, as one line of text. */
static void log_errors(enum prov prov, const struct vault_renewed *m)
{
	char text[VAULT_RENEW_ERRORS];
	size_t n = strnlen(m->errors, sizeof(m->errors) - 1), from = 0;

	for (size_t i = 0; i < n; i++)
		text[i] = m->errors[i] >= ' ' && m->errors[i] < 0x7f ? m->errors[i] : ' ';
	text[n] = '\0';
	/* The launcher keeps the end. What it cut may be a secret, and its rest is none that the filter knows. */
	while (n == sizeof(m->errors) - 1 && from < n && text[from] != ' ')
		from++;
	if (from < n)
		log_info("renewal %s: it said: %s", prov_str[prov], text + from);
}

static void ran(struct vault *v, enum prov prov, const struct vault_renewed *m)
{
	struct renewals *n = v->renewals;
	const char *program = renew_program_str[n->program[prov]];

	if (m->result < 0)
		log_warn("renewal %s: %s: %s", prov_str[prov], program, strerror(-m->result));
	else
		log_info("renewal %s: %s ended", prov_str[prov], program);
	audit_renewal(&v->audit, prov_str[prov], program,
		      m->result == 0		? "ran"
		      : m->result == -ETIMEDOUT ? "timed-out"
						: "failed",
		      (uint32_t)((v->now - n->began[prov]) / MS));
	n->ended[prov] = true;
	n->look[prov] = v->now;
	v->again = true;
}

bool renewals_message(struct vault *v, const void *msg, size_t size)
{
	struct renewals *n = v->renewals;
	const struct source *s;
	struct vault_renewed m;
	struct renew_file f;
	int64_t at;

	if (size != sizeof(m))
		return false;
	memcpy(&m, msg, sizeof(m));
	if (m.what != NET_CTL_RENEWED || m.prov >= LOGINS || !n->waits[m.prov] || m.act != n->asked[m.prov] ||
	    m.result > 0 || m.errors[sizeof(m.errors) - 1] != '\0')
		return false;
	n->waits[m.prov] = false;
	v->again = true;
	if (m.act == VAULT_RENEW_LOCK) {
		/* In the middle of a write nothing is known; the lock is kept, and the program finds out. */
		(void)look(v, (enum prov)m.prov, &f, &s, &at);
		if (m.result < 0 && m.result != -EWOULDBLOCK)
			log_warn("renewal %s: its lock: %s", prov_str[m.prov], strerror(-m.result));
		renew_lock(&n->r[m.prov], m.result == 0, m.age_ms, &f, v->now / MS, wall_ms());
		return true;
	}
	ran(v, (enum prov)m.prov, &m);
	/* Needles are of what the file holds now, so before the line. */
	(void)look(v, (enum prov)m.prov, &f, &s, &at);
	log_errors((enum prov)m.prov, &m);
	return true;
}

/* --- what is due --- */

static void tell(struct vault *v, uint32_t id, bool pending, const struct renew_file *f, const struct source *s)
{
	struct waiter *w = &v->renewals->w[id - 1], was = *w;

	w->what = NOBODY;
	if (was.what == A_REQUEST)
		exchange_renewed(v, was.at, was.gen, pending);
	else if (was.what == GATE_WAITS && pending)
		renewed(v, &was, TOKEN_LACK_PENDING, NULL);
	else if (was.what == GATE_WAITS)
		answer_now(v, &was, f, s);
}

static int64_t drive(struct vault *v, enum prov prov)
{
	struct renewals *n = v->renewals;
	struct renew *r = &n->r[prov];
	enum renew_program program = RENEW_NOTHING;
	const struct source *s;
	struct renew_file f;
	int64_t at, wake;
	bool pending;
	uint32_t id;

	wake = renew_wake(r);
	if (!n->ended[prov] && !r->locked && (wake == INT64_MAX || wake * MS > v->now) && r->state == RENEW_IDLE)
		return wake == INT64_MAX ? -1 : wake * MS;
	if (look(v, prov, &f, &s, &at) == -EAGAIN)
		return at;
	if (n->ended[prov]) {
		n->ended[prov] = false;
		renew_ended(r, &f, wall_ms());
	}
	while (!n->waits[prov] && !v->ended) {
		enum renew_act act = renew_act(r, &f, v->now / MS, wall_ms(), &program);

		if (act == RENEW_NO_ACT)
			break;
		ask_launcher(v, prov,
			     act == RENEW_LOCK	? VAULT_RENEW_LOCK
			     : act == RENEW_RUN ? VAULT_RENEW_RUN
						: VAULT_RENEW_UNLOCK,
			     program);
	}
	while ((id = renew_next_done(r, v->now / MS, &pending)))
		tell(v, id, pending, &f, s);
	wake = renew_wake(r);
	return wake == INT64_MAX ? -1 : MAX(wake * MS, v->now + MS);
}

int64_t renewals_tick(struct vault *v)
{
	struct renewals *n = v->renewals;
	int64_t next = -1;

	for (size_t i = 0; i < WAITERS; i++) {
		if (n->w[i].what == GATE_LOOKS && n->w[i].until <= v->now)
			consider(v, &n->w[i]);
		if (n->w[i].what == GATE_LOOKS)
			next = sooner(next, n->w[i].until);
	}
	next = sooner(next, drive(v, PROV_ANTHROPIC));
	return sooner(next, drive(v, PROV_OPENAI));
}
