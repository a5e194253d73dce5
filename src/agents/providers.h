/* Which credential may go where: the table of hosts, slots, paths and classes (credentials page 2.3, 2.4). gate decides
 * by it, and vault decides again, each from its own copy. Data and pure functions, nothing else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "proto/placeholder.h"

/* As in --api PROVIDER=CLASS and in the `login` row. */
enum prov { PROV_ANTHROPIC, PROV_OPENAI, PROV_OPENCODE, PROV_COPILOT, PROV_GITHUB, PROVS };
extern const char *const prov_str[PROVS];

enum prov_class {
	CLASS_DEFAULT, /* on */
	CLASS_CONNECTORS,
	CLASS_FILES,
	CLASS_CLOUD,
	CLASS_NEVER,   /* no flag opens it */
	CLASS_FOREIGN, /* no paths: another account's credential may pass */
	CLASSES,
};
extern const char *const prov_class_str[CLASSES];

/* In order of the method's name in prov_method_str[]; the methods that are let in at all. */
enum prov_method {
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_PUT,
	METHOD_PATCH,
	METHOD_DELETE,
	METHOD_OPTIONS,
	METHODS
};
extern const char *const prov_method_str[METHODS];
/* METHODS if it is none of them; exact case. */
enum prov_method prov_method_find(struct span s);

/* Slot: the header, and the grammar of its whole value, in which a placeholder is exchanged. */
enum prov_slot {
	SLOT_BEARER, /* B  authorization: Bearer PH */
	SLOT_TOKEN,  /* T  authorization: token PH */
	SLOT_BASIC,  /* A  authorization: Basic base64(USER:PH) */
	SLOT_KEY,    /* X  x-api-key: PH */
	SLOTS,
};
#define SLOT_BIT(slot) (1u << (slot))

enum prov_role {
	HOST_API,
	HOST_TOKEN,  /* token endpoint: no slot at all */
	HOST_GITHUB, /* every request is judged by the rules for GitHub */
};

/* The hosts, as numbers between gate and vault; an index of prov_hosts[]. */
enum prov_host_id {
	HOST_ANTHROPIC,
	HOST_ANTHROPIC_MCP,
	HOST_CLAUDE_TOKEN,
	HOST_CONSOLE_TOKEN,
	HOST_CHATGPT,
	HOST_OPENAI,
	HOST_OPENAI_TOKEN,
	HOST_ZAI,
	HOST_ZHIPU,
	HOST_KIMI,
	HOST_MOONSHOT,
	HOST_MOONSHOT_CN,
	HOST_COPILOT,
	HOST_COPILOT_INDIVIDUAL,
	HOST_COPILOT_BUSINESS,
	HOST_COPILOT_ENTERPRISE,
	HOST_GITHUB_API,
	HOST_GITHUB_UPLOADS,
	HOST_GITHUB_GIT,
	HOST_GITHUB_CODELOAD,
	HOST_GITHUB_RAW,
	HOST_GITHUB_MEDIA,
	HOST_GITHUB_GIST,
	HOST_GITHUB_GIST_RAW,
	HOSTS,
};

struct prov_host {
	const char *name; /* lower case */
	enum prov prov;	  /* whose body shape and "foreign" class hold */
	enum prov_role role;
	bool h2; /* may speak HTTP/2 with the guest */
};
extern const struct prov_host prov_hosts[HOSTS];

/* By name in any case, without port or trailing dot; HOSTS if there is none. */
enum prov_host_id prov_host_find(struct span name);

/* What a launch lends and has opened. */
struct prov_launch {
	uint32_t lent;		/* PH_BIT of each kind of the set */
	uint16_t opened[PROVS]; /* 1 << enum prov_class */
};

/* The kinds that a launch verb may lend, if the host has them; 0 for a verb that starts no session. */
uint32_t prov_verb_kinds(const char *verb);

/**
 * prov_open() - Take one --api PROVIDER=CLASS
 *
 * Return: 0; -EINVAL when there is no such provider, or no row of it has that class
 */
int prov_open(struct prov_launch *launch, struct span text);

/* Whether streams to this host are ended by gate: a lent credential may go there, or it is the token endpoint of one.
 */
bool prov_bound(const struct prov_launch *launch, enum prov_host_id host);

/* Whether another account's credential may pass there. */
bool prov_foreign(const struct prov_launch *launch, enum prov_host_id host);

/* The slots that a kind has at a host: SLOT_BIT each; 0: it has no row there. */
unsigned prov_slots(enum ph_kind kind, enum prov_host_id host);

/**
 * prov_allows() - May this credential go out with this request?
 * @path:	Raw and without query; already found well-formed by http_target_check()
 * @ws:		The request is an upgrade to WebSocket
 * @ret_class:	The class of the rule that matched; CLASS_NEVER when none did. May be NULL
 *
 * A literal of a pattern is compared with the raw bytes, and a wildcard takes no percent-encoded letter: what a service
 * might decode into another path matches nothing. Of GitHub's own credential only a frame stands here; the rules for
 * GitHub decide.
 */
bool prov_allows(const struct prov_launch *launch, enum ph_kind kind, enum prov_host_id host, enum prov_method method,
		 struct span path, bool ws, enum prov_class *ret_class);

/* Whether any rule of this host lets a WebSocket begin on this path. */
bool prov_ws(const struct prov_launch *launch, enum prov_host_id host, struct span path);

/* Paths of a host under which even a request without credential is refused, in every form in which a service might read
 * them: other than in prov_allows() a doubt closes. @path: as there. */
bool prov_closed(enum prov_host_id host, struct span path);

/* Whether a cookie, "NAME=VALUE" with or without attributes, may pass at HOST_CHATGPT, in either direction: its bot filter knows
 * its visitor by a few; no session of the user's is among them. */
bool prov_cookie_kept(struct span cookie);

/* Why a sign-in inside is refused, in the token endpoint's answer and in a 403 alike. PROV_ANTHROPIC or PROV_OPENAI. */
const char *prov_login_text(enum prov prov);
