#include "gate/github.h"

#include <string.h>

static bool ends(struct span s, const char *lit)
{
	size_t n = strlen(lit);

	return s.n > n && memcmp(s.p + s.n - n, lit, n) == 0;
}

/* Fetching is a POST, too: of git, and the question of LFS where objects lie. */
static bool is_fetch(enum prov_host_id host, const struct request *r)
{
	return r->method == METHOD_POST && !r->has_query &&
	       ((host == HOST_GITHUB_GIT &&
		 (ends(r->path, "/git-upload-pack") || ends(r->path, "/info/lfs/objects/batch"))) ||
		(host == HOST_GITHUB_GIST && ends(r->path, "/git-upload-pack")));
}

static enum github_verdict refuse(struct request *r, bool asks)
{
	request_fault(r, STAGE_POLICY,
		      (struct refusal){ .status = 403,
					.code = REFUSAL_PATH_DENIED,
					.has_kind = asks,
					.kind = PH_GH,
					.why = "this session writes nothing to GitHub; reading what is public works" });
	return GITHUB_REFUSE;
}

enum github_verdict github_judge(enum prov_host_id host, struct request *r, bool asks, size_t *ret_body_max)
{
	if (r->method == METHOD_GET || r->method == METHOD_HEAD || is_fetch(host, r))
		return GITHUB_ANONYMOUS;
	return refuse(r, asks);
}

enum github_verdict github_body(enum prov_host_id host, struct request *r, bool asks, struct span body,
				struct buf *ret_body)
{
	return refuse(r, asks);
}
