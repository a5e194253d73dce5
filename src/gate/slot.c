#include "gate/slot.h"

#include <string.h>

#include "base/base64.h"
#include "base/macros.h"

static const char *const headers[] = { "authorization", "x-api-key", "api-key", "x-goog-api-key" };
enum { AUTHORIZATION, X_API_KEY, HEADERS = ARRAY_SIZE(headers) };

static const struct {
	const char *name;
	enum prov_slot slot;
} schemes[] = { { "bearer", SLOT_BEARER }, { "token", SLOT_TOKEN }, { "basic", SLOT_BASIC } };

static size_t header_find(struct span name)
{
	for (size_t i = 0; i < HEADERS; i++)
		if (http_is(name, headers[i]))
			return i;
	return HEADERS;
}

bool slot_is_credential(struct span name)
{
	return header_find(name) < HEADERS;
}

bool slot_is_empty(struct span value)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (http_is(value, schemes[i].name))
			return true;
	return value.n == 0;
}

/* The part behind ":" of USER:PH in base64; false when it is none, or not written canonically. */
static bool basic(struct span value, uint8_t *out, size_t size, struct span *ret)
{
	ssize_t n = base64_decode(BASE64_STD, value, out, size);
	const uint8_t *colon = n > 0 ? memchr(out, ':', (size_t)n) : NULL;

	if (!colon)
		return false;
	*ret = SPAN(colon + 1, (size_t)(out + n - colon) - 1);
	return true;
}

/* The placeholder that the whole value of a header is, by the grammars of slots; SLOTS for a header without one. */
static enum ph_match exact(const struct ph_set *set, size_t header, struct span value, enum ph_kind *ret_kind,
			   enum prov_slot *ret_slot)
{
	uint8_t scratch[PH_JWT_MAX + HTTP_NAME_MAX];

	*ret_slot = header == X_API_KEY ? SLOT_KEY : SLOTS;
	if (header != AUTHORIZATION)
		return ph_match(set, value, ret_kind);
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		size_t n = strlen(schemes[i].name);
		struct span rest;

		if (!http_begins(value, schemes[i].name) || value.n <= n || value.p[n] != ' ')
			continue;
		rest = SPAN(value.p + n + 1, value.n - n - 1);
		*ret_slot = schemes[i].slot;
		if (schemes[i].slot == SLOT_BASIC && !basic(rest, scratch, sizeof(scratch), &rest))
			return PH_FOREIGN;
		return ph_match(set, rest, ret_kind);
	}
	return ph_match(set, value, ret_kind);
}

/* Both need room for a whole head, and builds may clear what is on the stack: kept out of the way of fields that need
 * none. */
__attribute__((noinline)) static enum ph_match in_percent(const struct ph_set *set, struct span bytes,
							  enum ph_kind *ret_kind)
{
	uint8_t scratch[HTTP_HEAD_MAX];

	return ph_find(set, SPAN(scratch, http_percent_decode(bytes, scratch)), ret_kind);
}

/* What a careless reader makes of base64: either alphabet, no padding needed, and what is no digit of it left out. */
static size_t loosely(struct span s, uint8_t *out)
{
	unsigned bits = 0, have = 0;
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = s.p[i];
		int d = c >= 'A' && c <= 'Z'   ? c - 'A'
			: c >= 'a' && c <= 'z' ? c - 'a' + 26
			: c >= '0' && c <= '9' ? c - '0' + 52
			: c == '+' || c == '-' ? 62
			: c == '/' || c == '_' ? 63
					       : -1;

		if (d < 0)
			continue;
		bits = bits << 6 | (unsigned)d;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		out[n++] = (uint8_t)(bits >> have);
	}
	return n;
}

__attribute__((noinline)) static enum ph_match in_basic(const struct ph_set *set, struct span bytes,
							enum ph_kind *ret_kind)
{
	uint8_t scratch[HTTP_HEAD_MAX];

	return ph_find(set, SPAN(scratch, loosely(bytes, scratch)), ret_kind);
}

/* A placeholder anywhere in these bytes: as they are, percent-decoded once, or inside Basic. */
static enum ph_match anywhere(const struct ph_set *set, struct span bytes, enum ph_kind *ret_kind)
{
	static const char scheme[] = "basic ";
	enum ph_match m = ph_find(set, bytes, ret_kind);

	if (m == PH_FOREIGN && bytes.n > 0 && bytes.n <= HTTP_HEAD_MAX && memchr(bytes.p, '%', bytes.n))
		m = in_percent(set, bytes, ret_kind);
	if (m == PH_FOREIGN && http_begins(bytes, scheme))
		m = in_basic(set, SPAN(bytes.p + strlen(scheme), bytes.n - strlen(scheme)), ret_kind);
	return m;
}

/* Names of fields have no case, and a service may send one back in lower case. */
static enum ph_match in_any_case(const struct ph_set *set, struct span s, enum ph_kind *ret_kind)
{
	uint8_t lower[HTTP_NAME_MAX];
	enum ph_match m = ph_find(set, s, ret_kind);

	for (size_t i = 0; i < s.n; i++)
		lower[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (uint8_t)(s.p[i] | 0x20) : s.p[i];
	return m != PH_FOREIGN ? m : ph_find(set, SPAN(lower, s.n), ret_kind);
}

/* As it is, and percent-decoded once: what stands in front may take its first letter into a code ("%7avm-"). */
static enum ph_match in_name(const struct ph_set *set, struct span name, enum ph_kind *ret_kind)
{
	uint8_t text[HTTP_NAME_MAX];
	enum ph_match m = in_any_case(set, name, ret_kind);

	return m != PH_FOREIGN ? m : in_any_case(set, SPAN(text, http_percent_decode(name, text)), ret_kind);
}

static void refuse(struct request *r, uint16_t status, enum refusal_code code, const enum ph_kind *kind,
		   const char *why)
{
	request_fault(r, STAGE_CREDENTIALS,
		      (struct refusal){ .status = status,
					.code = code,
					.why = why,
					.has_kind = kind && *kind < PH_KINDS,
					.kind = kind ? *kind : PH_KINDS });
}

/* One credential header with a value. True: the placeholder stands in its slot. */
static bool one(const struct prov_launch *launch, const struct ph_set *set, enum prov_host_id host, bool anon,
		struct request *r, size_t header, struct span value, struct slot_use *use)
{
	enum ph_kind kind = PH_KINDS;
	enum prov_slot slot;
	enum ph_match m = exact(set, header, value, &kind, &slot);
	bool whole = m == PH_OURS;

	if (m == PH_FOREIGN)
		m = anywhere(set, value, &kind);
	if (m == PH_STALE) {
		refuse(r, 403, REFUSAL_STALE, &kind,
		       "this stands for a login of an earlier session, or for one that this session was not given; the "
		       "agent "
		       "must be started anew to read its login again");
	} else if (m == PH_FOREIGN && prov_foreign(launch, host)) {
		use->foreign = true;
	} else if (m == PH_FOREIGN && anon) {
		return false;
	} else if (m == PH_FOREIGN) {
		refuse(r, 403, REFUSAL_FOREIGN_CRED, NULL,
		       "another account's credential does not leave this sandbox, because it would be a way out for "
		       "data; use the "
		       "login that the session has");
	} else if (prov_slots(kind, host) == 0) {
		refuse(r, 403, REFUSAL_WRONG_HOST, &kind, "this login belongs to another host; it is never sent here");
	} else if (!whole || slot == SLOTS || !(prov_slots(kind, host) & SLOT_BIT(slot))) {
		refuse(r, 403, REFUSAL_SLOT, &kind,
		       "this login is written in another header or form at this host; write the header as the host's "
		       "own client "
		       "does and nothing else in it");
	} else {
		use->kind[use->n] = kind;
		use->slot[use->n++] = slot;
		return true;
	}
	return false;
}

static void elsewhere(const struct ph_set *set, struct request *r)
{
	static const char why[] =
		"a placeholder stands where no credential is exchanged; it is sent in its own header, and "
		"nowhere else in a request's head";
	enum ph_kind kind = PH_KINDS;

	for (size_t i = 0; i < r->n; i++)
		if (in_name(set, r->f[i].name, &kind) != PH_FOREIGN ||
		    (!slot_is_credential(r->f[i].name) && anywhere(set, r->f[i].value, &kind) != PH_FOREIGN)) {
			refuse(r, 403, REFUSAL_SLOT, &kind, why);
			return;
		}
	if (anywhere(set, r->target, &kind) != PH_FOREIGN)
		refuse(r, 403, REFUSAL_SLOT, &kind, why);
}

void slot_judge(const struct prov_launch *launch, const struct ph_set *set, enum prov_host_id host, bool anon,
		struct request *r, struct slot_use *ret)
{
	struct slot_use use = { 0 };
	const struct span *value[HEADERS] = { NULL };
	size_t n = 0;

	if (r->fault.status != 0)
		return;
	for (size_t i = 0; i < r->n; i++) {
		size_t h = header_find(r->f[i].name);

		if (h == HEADERS || slot_is_empty(r->f[i].value))
			continue;
		value[h] = &r->f[i].value;
		n++;
	}
	if (r->fault.status == 0 && n > 1 &&
	    !(host == HOST_ANTHROPIC && n == 2 && value[AUTHORIZATION] && value[X_API_KEY]))
		refuse(r, 400, REFUSAL_CRED_TWICE, NULL, "the request has more than one credential; send one");
	if (r->fault.status == 0 && n > 0 && r->method == METHOD_OPTIONS)
		refuse(r, 403, REFUSAL_SLOT, NULL, "OPTIONS never carries a credential; send it without");
	for (size_t h = 0; h < HEADERS && r->fault.status == 0; h++) {
		bool in_slot = value[h] && one(launch, set, host, anon, r, h, *value[h], &use);

		/* Two may go together only when both are ours and in their place. */
		if (value[h] && n > 1 && !in_slot) {
			r->fault.status = 0;
			refuse(r, 400, REFUSAL_CRED_TWICE, NULL, "the request has two credential headers; send one");
		}
	}
	elsewhere(set, r);
	if (r->fault.status == 0)
		*ret = use;
}
