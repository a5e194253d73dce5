#include "vault/recheck.h"

#include "base/macros.h"

static const char *const credential_fields[] = { "authorization", "x-api-key", "api-key", "x-goog-api-key" };

bool recheck_scans_body(const struct httpmsg_request *m)
{
	return m->w.kind[0] != HTTPMSG_NO_CRED && (prov_hosts[m->w.host].role != HOST_GITHUB ||
						   m->w.host == HOST_GITHUB_API || m->w.host == HOST_GITHUB_UPLOADS);
}

static enum refusal_code credential(const struct prov_launch *launch, const struct httpmsg_request *m, uint8_t kind,
				    uint8_t slot)
{
	bool upgrade = m->w.flags & HTTPMSG_UPGRADE;

	if (kind >= PH_KINDS || slot >= SLOTS)
		return REFUSAL_FRAMING;
	if (prov_slots((enum ph_kind)kind, (enum prov_host_id)m->w.host) == 0)
		return REFUSAL_WRONG_HOST;
	if (!(prov_slots((enum ph_kind)kind, (enum prov_host_id)m->w.host) & SLOT_BIT(slot)))
		return REFUSAL_SLOT;
	/* GitHub's rules name one slot a host, whatever the guest wrote. */
	if (kind == PH_GH && slot != (m->w.host == HOST_GITHUB_API || m->w.host == HOST_GITHUB_UPLOADS ? SLOT_BEARER : SLOT_BASIC))
		return REFUSAL_SLOT;
	return prov_allows(launch, (enum ph_kind)kind, (enum prov_host_id)m->w.host, (enum prov_method)m->w.method,
			   m->path, upgrade, NULL)
		       ? REFUSAL_NONE
		       : REFUSAL_PATH_DENIED;
}

static bool field_may_go(const struct httpmsg_request *m, const struct http_field *f)
{
	bool credentialed = m->w.kind[0] != HTTPMSG_NO_CRED;

	if (http_stays_here(f->name) || http_sets_method(f->name) || http_sets_path(f->name))
		return false;
	if (http_is_one_of(f->name, credential_fields, ARRAY_SIZE(credential_fields)))
		return m->w.flags & HTTPMSG_FOREIGN;
	if (http_is(f->name, "cookie"))
		return m->w.host == HOST_CHATGPT;
	if (http_is(f->name, "chatgpt-account-id"))
		return !credentialed || m->w.host != HOST_CHATGPT;
	if (http_is(f->name, "range") || http_is(f->name, "if-range"))
		return !credentialed || prov_hosts[m->w.host].role == HOST_GITHUB;
	return true;
}

enum refusal_code recheck(const struct prov_launch *launch, const struct httpmsg_request *m)
{
	bool credentialed = m->w.kind[0] != HTTPMSG_NO_CRED, two = m->w.kind[1] != HTTPMSG_NO_CRED;
	enum prov_host_id host = (enum prov_host_id)m->w.host;
	size_t codings = 0;

	if (m->w.host >= HOSTS || !prov_bound(launch, host))
		return REFUSAL_HOST;
	if (prov_hosts[host].role != HOST_GITHUB && http_has_coded_slash(m->path))
		return REFUSAL_PATH;
	if (m->w.method >= METHODS || (credentialed && m->w.method == METHOD_OPTIONS))
		return REFUSAL_METHOD;
	for (int i = 0; i < HTTPMSG_CREDS; i++) {
		enum refusal_code code = m->w.kind[i] == HTTPMSG_NO_CRED
						 ? REFUSAL_NONE
						 : credential(launch, m, m->w.kind[i], m->w.slot[i]);

		if (code != REFUSAL_NONE)
			return code;
	}
	/* A login and a key, each in a header of its own. */
	if (two && (host != HOST_ANTHROPIC || (m->w.slot[0] == SLOT_KEY) == (m->w.slot[1] == SLOT_KEY)))
		return REFUSAL_CRED_TWICE;
	if (m->w.flags & HTTPMSG_FOREIGN && (credentialed || !prov_foreign(launch, host)))
		return REFUSAL_FOREIGN_CRED;
	if (!credentialed && prov_closed(host, m->path))
		return REFUSAL_PATH_DENIED;
	if (m->w.flags & HTTPMSG_UPGRADE && (m->w.method != METHOD_GET || m->w.body == HTTP_BODY_STREAM ||
					     m->w.body_len > 0 || !prov_ws(launch, host, m->path)))
		return REFUSAL_UPGRADE;
	if (m->w.flags & HTTPMSG_ACCOUNT && (!credentialed || host != HOST_CHATGPT))
		return REFUSAL_FRAMING;
	for (size_t i = 0; i < m->w.n_fields; i++) {
		if (!field_may_go(m, &m->f[i]))
			return REFUSAL_FRAMING;
		if (!http_is(m->f[i].name, "accept-encoding"))
			continue;
		codings++;
		if (recheck_scans_body(m) && !http_is(m->f[i].value, "identity"))
			return REFUSAL_ENCODING;
	}
	return recheck_scans_body(m) && codings != 1 ? REFUSAL_ENCODING : REFUSAL_NONE;
}
