/* Placeholders: what stands for a secret in the guest (credentials page 3).
 *
 *   plain    avm-KIND-R           R = 26 characters of 32 letters and digits, 130 bits
 *   Copilot  gho_avm_R            the program refuses any other prefix
 *   JWT      H.P.S                H fixed, P = claims that the program reads, S = 24 characters, 32 as base64url
 *
 * A set is drawn from one seed of 32 bytes, so that overlapping sessions of a project share it. The seed opens nothing
 * without the vault. Of a JWT the set holds S alone: P changes with every renewal and is never read back. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum ph_kind {
	PH_CLAUDE_A,	  /* Anthropic login: access token */
	PH_CLAUDE_R,	  /* its refresh token */
	PH_ANTHROPIC_OAT, /* CLAUDE_CODE_OAUTH_TOKEN */
	PH_ANTHROPIC_AT,  /* ANTHROPIC_AUTH_TOKEN */
	PH_ANTHROPIC_KEY, /* ANTHROPIC_API_KEY */
	PH_CODEX_A,	  /* OpenAI login as Codex has it; JWT */
	PH_CODEX_R,
	PH_CODEX_ID,   /* JWT */
	PH_CODEX_KEY,  /* Codex in API key mode */
	PH_OPENCODE_A, /* OpenAI login as OpenCode has it; JWT */
	PH_OPENCODE_R,
	PH_OPENCODE_ID, /* JWT */
	PH_OPENAI_KEY,	/* OPENAI_API_KEY */
	PH_GH,
	PH_COPILOT,
	PH_ZAI, /* API keys of OpenCode */
	PH_ZAI_CP,
	PH_ZHIPU,
	PH_ZHIPU_CP,
	PH_KIMI,
	PH_MOONSHOT,
	PH_MOONSHOT_CN,
	PH_KINDS,
};

#define PH_BIT(kind) (1u << (kind))
#define PH_ALL (PH_BIT(PH_KINDS) - 1)

#define PH_SEED 32
#define PH_R 26					       /* characters of R */
#define PH_S 32					       /* of a JWT's third part */
#define PH_P_MAX 512				       /* of its second */
#define PH_MAX 64				       /* a value of a set and its NUL */
#define PH_JWT_H "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0" /* {"alg":"none","typ":"JWT"} */
#define PH_JWT_MAX (sizeof(PH_JWT_H) + 1 + PH_P_MAX + 1 + PH_S)

/* As in files, logs and the vectors: "claude-a". */
extern const char *const ph_kind_str[PH_KINDS];

static inline bool ph_is_jwt(enum ph_kind kind)
{
	return kind == PH_CODEX_A || kind == PH_CODEX_ID || kind == PH_OPENCODE_A || kind == PH_OPENCODE_ID;
}

/* The kind by its name (@s of any bytes), PH_KINDS if there is none. */
enum ph_kind ph_kind_find(struct span s);

/* A session's values, NUL-terminated; of a JWT S alone. Empty: that credential is not lent. */
struct ph_set {
	char v[PH_KINDS][PH_MAX];
};

/**
 * ph_draw() - The set of a seed
 * @lent:	PH_BIT of every kind that is lent; the others stay empty
 *
 * The values of a kind do not depend on @lent. A draw in which one value is part of another, or one looks like a known
 * kind of key, is thrown away and drawn again with the next counter.
 *
 * Return: 0; -EIO when no draw was good, which means a bug in the rules
 */
int ph_draw(const uint8_t seed[PH_SEED], uint32_t lent, struct ph_set *ret);

/* What the last step of ph_draw() asks of a whole set; exported for its test. */
bool ph_set_is_good(const struct ph_set *set);

/* What a JWT tells its program; empty or zero values are left out, strings that do not fit their grammar too. */
struct ph_claims {
	int64_t exp;		/* seconds; the host token's own */
	const char *account_id; /* [A-Za-z0-9_-]{1,64} */
	const char *plan;	/* [a-z0-9_]{1,40}, else "unknown" */
	bool fedramp;
};

/**
 * ph_write() - A placeholder as the guest gets it
 * @claims:	Needed for a JWT, otherwise not looked at
 *
 * Return: 0; -ENOENT: this kind is not lent; -ENOBUFS
 */
int ph_write(const struct ph_set *set, enum ph_kind kind, const struct ph_claims *claims, struct buf *out);

enum ph_match {
	PH_FOREIGN, /* no placeholder */
	PH_OURS,    /* of the set */
	PH_STALE,   /* of another session, or of a credential that is not lent now */
};

/**
 * ph_match() - What a whole value is
 * @ret_kind:	The kind for PH_OURS, and for PH_STALE unless it is a JWT; may be NULL
 */
enum ph_match ph_match(const struct ph_set *set, struct span value, enum ph_kind *ret_kind);

/* Whether a placeholder (ours or stale) is anywhere in these bytes, as they are. */
enum ph_match ph_find(const struct ph_set *set, struct span bytes, enum ph_kind *ret_kind);
