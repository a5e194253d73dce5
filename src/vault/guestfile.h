/* The login files of the guest (credentials page 2.2): written from an allow-list, never copied. Compact JSON. What
 * goes in is placeholders and struct login_info, in which nothing is secret. */
#pragma once

#include "base/buf.h"
#include "vault/hostfile.h"

#define GUESTFILE_MAX (16 << 10)

/**
 * guestfile_claude() - claude/.credentials.json
 * guestfile_codex() - codex/auth.json, for a login or a key
 * @now_s:	Since 1970; stands for a last_refresh that the host does not have, and an expiry that is unknown
 *
 * Return: 0; -ENOENT: the set has no such placeholder, or the login is of another kind; -ENOBUFS
 */
int guestfile_claude(const struct login_info *info, const struct ph_set *set, struct buf *out);
int guestfile_codex(const struct login_info *info, const struct ph_set *set, int64_t now_s, struct buf *out);

/* codex/auth.json for a host that has the variable OPENAI_API_KEY and no login. */
int guestfile_codex_key(enum ph_kind kind, const struct ph_set *set, struct buf *out);

/* opencode/auth.json. @info NULL: no OpenAI login. @ids: as the host's file has them (struct host_keys), for its models
 * are found by that. */
int guestfile_opencode(const struct login_info *info, const char *const ids[PH_KINDS], const struct ph_set *set,
		       int64_t now_s, struct buf *out);

/* What the placeholders of a login say. An unknown expiry is an hour from now. */
struct ph_claims guestfile_claims(const struct login_info *info, int64_t now_s);
