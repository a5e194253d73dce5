#include "cli/why.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/macros.h"
#include "proto/http.h"
#include "vault/audit.h"

#define FORM "write a URL, HOST:PORT or IP:PORT"

void why_done(struct why *w)
{
	free(w->rule);
	free(w->opens);
	free(w->note);
	*w = (struct why){ 0 };
}

static int host_parse(const char *s, size_t n, struct why_url *u, struct err *err)
{
	AUTO_FREE(char, port);
	bool bracket = n > 0 && s[0] == '[';
	const char *colon = bracket ? memchr(s, ']', n) : memrchr(s, ':', n);
	size_t len = n;
	uint64_t v;

	if (bracket) {
		if (!colon || (colon + 1 < s + n && colon[1] != ':'))
			return err_set(err, -EINVAL, "an IPv6 address that is not closed; " FORM);
		len = (size_t)(colon - s) - 1;
		colon = colon + 1 < s + n ? colon + 1 : NULL;
		s++;
		n--;
	} else if (colon) {
		len = (size_t)(colon - s);
	}
	if (len == 0 || len > POLICY_NAME_MAX)
		return err_set(err, -EINVAL, "no host in it; " FORM);
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)s[i]) && !strchr("-._:", s[i]))
			return err_set(err, -EINVAL, "a host's name cannot have '%c' in it; " FORM,
				       isprint((unsigned char)s[i]) ? s[i] : '?');
		u->host[i] = (char)tolower((unsigned char)s[i]);
	}
	if (len > 1 && u->host[len - 1] == '.')
		u->host[len - 1] = '\0';
	if (!colon)
		return 0;
	port = xstrndup(colon + 1, n - (size_t)(colon + 1 - s));
	if (str_u64(port, UINT16_MAX, &v) < 0 || v == 0)
		return err_set(err, -EINVAL, "no port behind the colon; ports are 1 to 65535");
	u->port = (uint16_t)v;
	return 0;
}

int why_url_parse(const char *s, struct why_url *ret, struct err *err)
{
	struct why_url u = { .tls = true, .port = 443 };
	AUTO_FREE(char, path);
	size_t n;
	int r;

	if (strncasecmp(s, "https://", 8) == 0) {
		u.http = true;
		s += 8;
	} else if (strncasecmp(s, "http://", 7) == 0) {
		u = (struct why_url){ .http = true, .port = 80 };
		s += 7;
	} else if (strstr(s, "://")) {
		return err_set(err, -EINVAL,
			       "only http and https are decided by more than address and port; write HOST:PORT");
	}
	n = strcspn(s, "/?#");
	if (memchr(s, '@', n))
		return err_set(err, -EINVAL, "a user in it, which is no part of the decision; leave it out");
	r = host_parse(s, n, &u, err);
	if (r < 0)
		return r;
	if (!u.http)
		u.tls = u.port == 443;
	s += n;
	path = xstrndup(s, strcspn(s, "?#"));
	u.path = *path ? TAKE_PTR(path) : xstrdup("/");
	*ret = u;
	return 0;
}

/* --- inspected hosts --- */

static void at_endpoint(const struct prov_launch *l, enum prov_host_id host, enum prov_method method, const char *path, struct why *w)
{
	bool token = strcmp(path, host == HOST_OPENAI_TOKEN ? "/oauth/token" : "/v1/oauth/token") == 0;
	bool reads = method == METHOD_GET || method == METHOD_HEAD, foreign = prov_foreign(l, host);

	if (token && method != METHOD_POST) {
		w->rule = xstrdup("token endpoint: this path takes POST alone (method)");
		return;
	}
	if (token) {
		w->decision = "answer";
		w->rule = xasprintf("token endpoint: a renewal is answered on this host, and nothing is sent; %s",
				    foreign ? "signing in inside is on" : "any other grant is refused");
	} else if (reads || foreign) {
		w->decision = "allow";
		w->rule = xasprintf("token endpoint: %s", reads ? "reading goes out without any login" : "signing in inside is on");
		return;
	} else {
		w->rule = xstrdup("token endpoint: signing in inside is off while the host's login is lent (login-inside)");
	}
	if (!foreign)
		w->opens = xasprintf("--api %s=foreign", prov_str[prov_hosts[host].prov]);
}

void why_request(const struct prov_launch *l, enum prov_host_id host, enum prov_method method, const char *path,
		 struct why *w)
{
	enum prov_class best = CLASS_NEVER, class;
	struct span p = span_str(path), raw, query;
	bool any = false, has_query;

	*w = (struct why){ .decision = "refuse" };
	if (http_target_check(p, &raw, &query, &has_query) < 0) {
		w->rule = xstrdup("a path that a service may read as another one (path)");
		return;
	}
	if (prov_hosts[host].role == HOST_TOKEN) {
		at_endpoint(l, host, method, path, w);
		return;
	}
	for (int k = 0; k < PH_KINDS; k++) {
		/* Of GitHub's own login only the frame stands in the table. */
		if (!(l->lent & PH_BIT(k)) || k == PH_GH || !prov_slots((enum ph_kind)k, host))
			continue;
		any = true;
		if (prov_allows(l, (enum ph_kind)k, host, method, p, false, &class)) {
			w->decision = "allow";
			w->kind = ph_kind_str[k];
			w->class = prov_class_str[class];
			w->rule = xasprintf("goes out with the host's login in place of the guest's placeholder (%s)",
					    w->kind);
			return;
		}
		if (class != CLASS_NEVER)
			best = class;
	}
	if (prov_closed(host, p)) {
		w->rule = xstrdup("this part of the service is closed, with a login and without (path-denied)");
		return;
	}
	if (prov_hosts[host].role == HOST_GITHUB) {
		w->rule = xstrdup("the rules for GitHub decide by the launch's list: reading what is not on it goes out without a "
				  "login, writing it is refused");
		w->decision = method == METHOD_GET || method == METHOD_HEAD ? "allow" : "refuse";
		return;
	}
	w->class = best == CLASS_NEVER ? NULL : prov_class_str[best];
	w->rule = !any			? xstrdup("no login that is lent has a place at this host")
		  : best == CLASS_NEVER ? xstrdup("no rule lets a login go there (path-denied)")
					: xasprintf("class %s is off (path-denied)", prov_class_str[best]);
	if (best != CLASS_NEVER)
		w->opens = xasprintf("--api %s=%s", prov_str[prov_hosts[host].prov], prov_class_str[best]);
	w->note = xstrdup("without a login it goes out as it is");
}

/* --- the network --- */

static const char *const step_words[] = {
	[STEP_NO_NETWORK] = "there is no network",
	[STEP_GATEWAY] = "the gateway",
	[STEP_NEVER] = "an address that is never reached",
	[STEP_HOST] = "this host",
	[STEP_METADATA] = "a cloud's metadata service",
	[STEP_LINK_LOCAL] = "link-local",
	[STEP_GITHUB_SSH] = "SSH to GitHub, whose rules are for https",
	[STEP_QUIC] = "QUIC to a host that is inspected",
	[STEP_FLAG] = "an option opens it",
	[STEP_ALLOW_HOST] = "--allow-host",
	[STEP_ALLOW_LAN] = "--allow-lan",
	[STEP_PORT] = "a port that is closed by default",
	[STEP_PRIVATE] = "private network",
	[STEP_RESERVED] = "reserved",
	[STEP_PUBLIC] = "public internet",
	[STEP_REBIND] = "left out of answers for this name",
	[STEP_FOREIGN_NAME] = "an address of an inspected host, under a name that is not its own",
};
static_assert(ARRAY_SIZE(step_words) == STEPS, "step_words[] is incomplete");

void why_network(const struct policy *p, const char *name, const struct addr *addr, uint16_t port, struct why *w)
{
	const char *const names[] = { name, NULL };
	struct policy_question q = { .proto = POLICY_TCP, .dst = *addr, .port = port, .names = name ? names : NULL };
	struct policy_answer kept =
		name ? policy_keeps(p, addr, name) : (struct policy_answer){ .verdict = POLICY_ALLOW };
	struct policy_answer a = policy_decide(p, &q);
	struct audit_refused r = { .proto = POLICY_TCP, .name = name, .dst = *addr, .port = port, .step = a.step };
	struct audit_dns d = { .q = name, .first = *addr, .group = kept.group };
	char text[ADDR_TEXT], option[400];

	*w = (struct why){ .decision = "refuse" };
	(void)addr_format(addr, text);
	if (kept.verdict != POLICY_ALLOW && !p->no_network) {
		w->rule = xasprintf("%s: %s address, left out of what the guest hears for this name", text,
				    kept.group == GROUP_PRIVATE ? "a private" : "a reserved");
		if (audit_dns_opens(&d, option)[0] != '\0')
			w->opens = xstrdup(option);
		return;
	}
	w->rule = xasprintf("%s: %s", text, step_words[a.step]);
	if (a.verdict != POLICY_REFUSE) {
		w->decision = "allow";
		return;
	}
	if (audit_opens(&r, option)[0] != '\0')
		w->opens = xstrdup(option);
}
