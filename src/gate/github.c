#include "gate/github.h"

#include "gate/policy/github/push.h"

static void note(struct request *r, const struct gh_decision *d)
{
	if (d->verdict == GH_REFUSE)
		request_fault(r, STAGE_POLICY,
			      (struct refusal){ .status = d->status, .code = d->code, .why = d->what, .github = d });
}

void github_judge(const struct gh_scope *s, enum prov_host_id host, struct request *r, struct gh_decision *ret)
{
	static const struct gh_scope nothing;

	gh_decide(s ? s : &nothing, host, r, ret);
	note(r, ret);
}

enum github_need github_need(struct request *r, struct gh_decision *d, struct span body, bool ended)
{
	struct gh_push p;
	bool push = d->body == GH_BODY_PUSH;

	if (push && gh_push_scan(body, &p) != GH_PUSH_MORE)
		return GITHUB_ENOUGH;
	if (body.n <= (push ? GH_PUSH_MAX : GH_JSON_MAX))
		return ended ? GITHUB_ENOUGH : GITHUB_MORE;
	gh_decide_too_long(d);
	note(r, d);
	return GITHUB_TOO_LONG;
}

void github_judge_body(const struct gh_issues *known, struct request *r, struct span body, struct gh_decision *d)
{
	gh_decide_body(d->scope, known, r, body, d);
	note(r, d);
}

enum prov_slot github_slot(enum prov_host_id host)
{
	return host == HOST_GITHUB_API || host == HOST_GITHUB_UPLOADS ? SLOT_BEARER : SLOT_BASIC;
}
