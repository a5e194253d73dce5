#include "cli/why.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/macros.h"
#include "gate/judge.h"
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
	AUTO_FREE(char, target);
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
	target = xstrndup(s, strcspn(s, "#"));
	u.target = *target == '/' ? TAKE_PTR(target) : xasprintf("/%s", target);
	*ret = u;
	return 0;
}

/* --- inspected hosts --- */

/* A push of one branch, as git begins it: the ref stands in the body. */
#define PUSH_REF "refs/heads/main"
#define ID_OLD "0000000000000000000000000000000000000000"
#define ID_NEW "1111111111111111111111111111111111111111"
#define PUSH_LINE ID_OLD " " ID_NEW " " PUSH_REF "\0report-status"

static void field(struct request *r, const char *name, const char *value)
{
	r->f[r->n++] = (struct http_field){ span_str(name), span_str(value) };
}

/* One question to gate. */
struct question {
	const struct judge *j;
	enum prov_host_id host;
	enum prov_method method;
	const char *target;
	struct request r;
	struct judged d;
};

/* With the usual body: a push of one branch, or none that says anything. */
static enum verdict judge_usual(struct question *q)
{
	static const char line[] = PUSH_LINE, end[] = "0000";
	char body[4 + sizeof(line) + sizeof(end)];
	size_t n = sizeof(line) - 1;
	struct buf out;
	enum verdict v;

	(void)snprintf(body, sizeof(body), "%04zx", 4 + n);
	memcpy(body + 4, line, n);
	memcpy(body + 4 + n, end, sizeof(end));
	buf_init(&out, HTTPMSG_MAX);
	v = judge_body(q->j, &q->r, q->d.github.body == GH_BODY_PUSH ? SPAN(body, 4 + n + 4) : SPAN(body, 0), &q->d,
		       &out);
	buf_done(&out);
	return v;
}

/* What gate says to it with the placeholder of that kind; PH_KINDS: without one. */
static enum verdict ask(struct question *q, enum ph_kind kind)
{
	const char *name = prov_hosts[q->host].name;
	AUTO_FREE(char, bearer);
	enum verdict v;

	memset(&q->r, 0, sizeof(q->r));
	memset(&q->d, 0, sizeof(q->d));
	q->r.method = q->method;
	request_set_target(&q->r, span_str(q->target));
	field(&q->r, "host", name);
	if (q->method != METHOD_GET && q->method != METHOD_HEAD)
		field(&q->r, "content-type", "application/json");
	if (kind < PH_KINDS) {
		bearer = xasprintf("Bearer %s", q->j->set.v[kind]);
		if (prov_slots(kind, q->host) & SLOT_BIT(SLOT_KEY))
			field(&q->r, "x-api-key", q->j->set.v[kind]);
		else
			field(&q->r, "authorization", bearer);
	}
	request_check(&q->r, span_str(name));
	v = judge_request(q->j, q->host, true, &q->r, &q->d);
	return v == JUDGE_BODY && (q->d.github.body == GH_BODY_PUSH || q->d.github.body == GH_BODY_MCP ||
				   q->d.github.body == GH_BODY_AGENT)
		       ? judge_usual(q)
		       : v;
}

static char *foreign(const struct question *q)
{
	return prov_foreign(&q->j->launch, q->host) ? NULL
						    : xasprintf("--api %s=foreign", prov_str[prov_hosts[q->host].prov]);
}

static void refused(const struct question *q, struct why *w)
{
	const struct refusal *f = &q->r.fault;
	const struct gh_decision *g = f->github;
	static const char start[] = "start with ";

	w->decision = "refuse";
	if (prov_closed(q->host, q->r.path)) {
		w->rule = xstrdup("this part of the service is closed, with a login and without (path-denied)");
	} else if (g) {
		w->rule = xasprintf("%s (%s)", g->what, refusal_code_str[g->code]);
		if (str_starts(g->how, start))
			w->opens = xstrdup(g->how + strlen(start));
		else if (g->how[0] != '\0')
			w->note = xstrdup(g->how);
	} else if (f->code == REFUSAL_PATH_DENIED && (f->class == CLASS_NEVER || f->class == CLASS_DEFAULT)) {
		w->rule = xstrdup("no rule lets a login go there (path-denied)");
	} else if (f->code == REFUSAL_PATH_DENIED) {
		w->class = prov_class_str[f->class];
		w->rule = xasprintf("class %s is off (path-denied)", w->class);
		w->opens = xasprintf("--api %s=%s", prov_str[prov_hosts[q->host].prov], w->class);
	} else {
		w->rule = xasprintf("%s (%s)", f->why, refusal_code_str[f->code]);
		w->opens = f->code == REFUSAL_LOGIN_INSIDE ? foreign(q) : NULL;
	}
}

static void forwarded(const struct question *q, struct why *w)
{
	bool github = prov_hosts[q->host].role == HOST_GITHUB && q->d.github.rule;
	enum ph_kind kind = q->d.use.n > 0 ? q->d.use.kind[0] : PH_KINDS;
	enum prov_class class;

	w->decision = "allow";
	if (kind < PH_KINDS) {
		w->kind = ph_kind_str[kind];
		if (kind != PH_GH && prov_allows(&q->j->launch, kind, q->host, q->method, q->r.path, false, &class))
			w->class = prov_class_str[class];
		w->rule = xasprintf("%s%sgoes out with the host's login in place of the guest's placeholder (%s)",
				    github ? q->d.github.rule : "", github ? ": " : "", w->kind);
	} else if (github) {
		w->rule = xasprintf("%s: goes out without the user's rights", q->d.github.rule);
		if (q->d.github.reply != GH_REPLY_STREAM && q->d.github.what[0] != '\0')
			w->opens = xasprintf("--repo %s=read", q->d.github.what);
	} else if (prov_hosts[q->host].role != HOST_TOKEN) {
		w->rule = xstrdup("goes out without a login");
	} else {
		w->rule = xasprintf("token endpoint: %s", q->method == METHOD_GET || q->method == METHOD_HEAD
								  ? "reading goes out without any login"
								  : "signing in inside is on");
	}
}

static void say(const struct question *q, enum verdict v, struct why *w)
{
	switch (v) {
	case JUDGE_FORWARD:
		forwarded(q, w);
		break;
	case JUDGE_TOKEN:
		w->decision = "answer";
		w->opens = foreign(q);
		w->rule = xasprintf("token endpoint: a renewal is answered on this host, and nothing is sent; %s",
				    w->opens ? "any other grant is refused" : "signing in inside is on");
		break;
	case JUDGE_REVOKE:
		w->decision = "answer";
		w->rule = xstrdup(
			"token endpoint: signing out is answered here, and nothing is sent; the host's login stays");
		break;
	case JUDGE_BODY:
	case JUDGE_ASK:
		w->decision = "body";
		w->rule = xasprintf("%s: what stands in the body decides", q->d.github.rule);
		break;
	default:
		refused(q, w);
	}
	if (q->d.github.body == GH_BODY_PUSH)
		w->note = xstrdup("judged for a push of " PUSH_REF);
}

void why_request(const struct prov_launch *l, const struct gh_scope *github, enum prov_host_id host,
		 enum prov_method method, const char *target, struct why *w)
{
	static const uint8_t seed[PH_SEED];
	struct judge j = { .launch = *l, .github = github, .foreign_anon = github && gh_scope_has(github, GH_FOREIGN_ANON) };
	struct question q = { .j = &j, .host = host, .method = method, .target = target };
	enum verdict v;
	int r = ph_draw(seed, l->lent, &j.set);

	assert(r == 0);
	(void)r;
	*w = (struct why){ .decision = NULL };
	/* GitHub's login is put in by the rules, whatever the guest sends. */
	for (int k = 0; k < PH_KINDS; k++) {
		if (!(l->lent & PH_BIT(k)) || k == PH_GH || !prov_slots((enum ph_kind)k, host))
			continue;
		v = ask(&q, (enum ph_kind)k);
		if (!w->decision || v == JUDGE_FORWARD) {
			why_done(w);
			say(&q, v, w);
		}
		if (v == JUDGE_FORWARD)
			return;
	}
	v = ask(&q, PH_KINDS);
	if (!w->decision)
		say(&q, v, w);
	else if (v == JUDGE_FORWARD && !w->note)
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
	static const struct addr public = { AF_INET, { 1, 1, 1, 1 } };
	bool known = addr != NULL;
	const char *const names[] = { name, NULL };
	struct policy_question q = { .proto = POLICY_TCP, .dst = known ? *addr : public, .port = port,
				     .names = name ? names : NULL };
	struct policy_answer kept =
		name ? policy_keeps(p, &q.dst, name) : (struct policy_answer){ .verdict = POLICY_ALLOW };
	struct policy_answer a = policy_decide(p, &q);
	struct audit_refused r = { .proto = POLICY_TCP, .name = name, .dst = q.dst, .port = port, .step = a.step,
				   .judged = policy_judged(p, &q.dst) };
	struct audit_dns d = { .q = name, .first = q.dst, .group = kept.group };
	char text[ADDR_TEXT], option[400];

	*w = (struct why){ .decision = "refuse" };
	(void)addr_format(&q.dst, text);
	if (kept.verdict != POLICY_ALLOW && !p->no_network) {
		w->rule = xasprintf("%s: %s address, left out of what the guest hears for this name", text,
				    kept.group == GROUP_PRIVATE ? "a private" : "a reserved");
		if (audit_dns_opens(&d, option)[0] != '\0')
			w->opens = xstrdup(option);
		return;
	}
	w->rule = xasprintf("%s: %s", known ? text : "judged as a public address, for the name does not resolve here",
			    step_words[a.step]);
	if (a.verdict != POLICY_REFUSE) {
		w->decision = "allow";
		return;
	}
	if (audit_opens(&r, option)[0] != '\0')
		w->opens = xstrdup(option);
}
