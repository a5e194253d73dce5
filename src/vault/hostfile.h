/* The host's login files (credentials page 2.1, 2.5): bytes in, what may be lent out. Only the members that are named
 * here are looked at; everything else in a file does not exist for us. Secrets go into the arena, all else is data that
 * may be shown. The files of the guest are made by guestfile.h from the latter alone. */
#pragma once

#include <stdbool.h>

#include "proto/placeholder.h"
#include "vault/secret.h"

#define HOSTFILE_MAX (1 << 20)
#define HOSTFILE_DEPTH 16
#define HOSTFILE_SCOPES 1024

enum login_mode { LOGIN_NONE, LOGIN_ANTHROPIC, LOGIN_CHATGPT, LOGIN_APIKEY, LOGIN_COPILOT };

/* Nothing in it is secret. Texts are checked against their grammar and empty where the host has none. */
struct login_info {
	enum login_mode mode;
	bool has_expiry;	      /* the file has a number for it, whatever that says */
	int64_t exp_ms;		      /* since 1970; 0: unknown */
	char scopes[HOSTFILE_SCOPES]; /* words of [A-Za-z0-9:_.-]{1,64} with one blank between */
	char subscription[65], tier[65];
	char account_id[65], plan[41];
	bool fedramp;
	char last_refresh[65];
};

struct login {
	struct login_info info;
	struct secret access, refresh, id, key;
};

void login_done(struct login *l);

/* API keys by kind; only those of OpenCode's ids are used. */
struct host_keys {
	struct secret key[PH_KINDS];
	const char *id[PH_KINDS]; /* what the file calls it, static text; NULL: it has none */
	uint32_t have;		  /* PH_BIT */
};

void host_keys_done(struct host_keys *k);

/**
 * hostfile_anthropic() - ~/.claude/.credentials.json
 * hostfile_openai() - ~/.codex/auth.json
 * hostfile_opencode() - ~/.local/share/opencode/auth.json
 * hostfile_copilot() - ~/.copilot/config.json, where its program has no keyring, and ~/.cache/claude-vm/copilot-token.json of the
 *	older agent-vm
 * @text:	In the arena, for it holds secrets
 * @ret:	Zeroed or of an earlier reading, which is wiped on success and untouched otherwise
 * @ret_why:	On failure, and for entries that were passed over, the cause as a fixed text without content; else NULL
 *
 * Return: 0: can be lent; -ENOENT: signed out, which is no fault; -EBADMSG: warn once; -ENOTSUP: a kind of login that
 * is not lent, say so once; -ENOMEM: the arena is full
 */
int hostfile_anthropic(struct span text, struct login *ret, const char **ret_why);
int hostfile_openai(struct span text, struct login *ret, const char **ret_why);
int hostfile_opencode(struct span text, struct host_keys *ret, const char **ret_why);
int hostfile_copilot(struct span text, struct login *ret, const char **ret_why);

/**
 * hostfile_token() - A token or key as a program prints it or a variable holds it
 *
 * White space around it is cut off; it must be one word of printable ASCII.
 *
 * Return: 0; -ENOENT when it is empty; -EBADMSG; -ENOMEM
 */
int hostfile_token(struct span text, struct secret *ret);

/* Whether the Copilot service takes a token of this kind; otherwise the reason. */
bool hostfile_copilot_takes(struct span token, const char **ret_why);

/* Whether a key may go to @host although the host has this base URL for it: empty, or https there. */
bool hostfile_base_url_is(const char *url, const char *host);

/* The ids of OpenCode's file that are looked at; NULL behind the last. A kind may have two. */
const char *hostfile_opencode_id(size_t i);
