/* github.com and its hosts for files (2.3): git's smart HTTP, LFS, archives, raw files; gists. Web pages are read
 * anonymously. */
#include "gate/policy/github/decide.h"

#include <errno.h>

#define GET (1u << METHOD_GET | 1u << METHOD_HEAD)
#define POST (1u << METHOD_POST)

enum service { SERVICE_NONE, SERVICE_FETCH, SERVICE_PUSH, SERVICE_UNCLEAR };

static enum service service(const struct request *r)
{
	uint8_t room[32];
	struct span v;
	ssize_t n;
	int found = gh_query(r->query, "service", &v);

	if (found <= 0)
		return found == 0 ? SERVICE_NONE : SERVICE_UNCLEAR;
	n = gh_form_decode(v, room, sizeof(room));
	if (n >= 0 && span_is(SPAN(room, (size_t)n), "git-receive-pack"))
		return span_is(v, "git-receive-pack") ? SERVICE_PUSH : SERVICE_UNCLEAR;
	return span_is(v, "git-upload-pack") ? SERVICE_FETCH : SERVICE_NONE;
}

/* Paths behind the repository that get its credential. */
static const struct row {
	unsigned methods;
	const char *pattern;
	bool writes;
	enum gh_form form;
	const char *rule;
} rows[] = {
	{ POST, "git-upload-pack", false, GH_FORM_FETCH, "git fetch" },
	{ POST, "info/lfs/objects/batch", false, GH_FORM_LFS, "LFS batch" },
	{ GET, "info/lfs/locks", false, GH_FORM_LFS, "LFS locks" },
	{ POST, "info/lfs/locks", true, GH_FORM_LFS, "LFS locks" },
	{ POST, "info/lfs/locks/verify", true, GH_FORM_LFS, "LFS locks" },
	{ POST, "info/lfs/locks/*/unlock", true, GH_FORM_LFS, "LFS locks" },
	{ GET, "archive/**", false, GH_FORM_TEXT, "archive" },
	{ GET, "zipball/**", false, GH_FORM_TEXT, "archive" },
	{ GET, "tarball/**", false, GH_FORM_TEXT, "archive" },
	{ GET, "raw/**", false, GH_FORM_TEXT, "raw file" },
};

static void page(unsigned is_read, struct gh_decision *d)
{
	d->rule = "web page";
	if (is_read)
		d->verdict = GH_ANONYMOUS;
	else
		gh_refuse(d, REFUSAL_PATH, "use the API or git with a listed repository",
			  "forms and sign-ins of the web site are not sent from a sandbox");
}

static void info_refs(const struct gh_scope *s, const struct gh_place *p, const struct request *r,
		      struct gh_decision *d)
{
	enum service what = service(r);

	d->rule = "git info/refs";
	if (what == SERVICE_UNCLEAR)
		gh_refuse(d, REFUSAL_PATH, "write service once and plainly",
			  "what git asks for could be read in two ways");
	else if (what == SERVICE_NONE)
		d->verdict = GH_ANONYMOUS; /* the dumb protocol, which is not spoken there any more */
	else if (gh_decide_repo(s, p, what == SERVICE_PUSH, d))
		d->verdict = GH_CREDENTIAL;
	else if (d->verdict == GH_ANONYMOUS)
		d->reply = GH_REPLY_HINT_GIT;
}

static void site(const struct gh_scope *s, const struct request *r, struct gh_decision *d)
{
	unsigned method = 1u << r->method;
	struct gh_place p;

	gh_place(HOST_GITHUB_GIT, r->path, &p);
	if (p.kind == GH_NOWHERE) {
		page(method & GET, d);
		return;
	}
	if (method & GET && gh_match("info/refs", p.tail)) {
		info_refs(s, &p, r, d);
		return;
	}
	if (method & POST && gh_match("git-receive-pack", p.tail)) {
		/* Only the commands that it begins with make an answer possible that git shows. */
		d->rule = "git push";
		d->form = GH_FORM_PUSH;
		d->verdict = GH_BODY;
		d->body = GH_BODY_PUSH;
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!(rows[i].methods & method) || !gh_match(rows[i].pattern, p.tail))
			continue;
		d->rule = rows[i].rule;
		d->form = rows[i].form;
		if (method & POST && r->has_query) {
			gh_refuse(d, REFUSAL_PATH, "send it without", "this request has no query");
			return;
		}
		/* Fetching is a POST without being a write. */
		if (!gh_decide_repo(s, &p, rows[i].writes, d))
			return;
		d->verdict = GH_CREDENTIAL;
		if (gh_match("info/lfs/objects/batch", p.tail) && d->repo->level < GH_WRITE) {
			d->verdict = GH_BODY;
			d->body = GH_BODY_LFS;
		}
		return;
	}
	page(method & GET, d);
}

/* Files by path: the slug stands in front. */
static void files(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *d)
{
	struct gh_place p;

	d->rule = "file of a repository";
	gh_place(host, r->path, &p);
	if (!(GET & 1u << r->method))
		gh_refuse(d, REFUSAL_METHOD, "GET and HEAD are", "this host takes no writes");
	else if (p.kind == GH_NOWHERE || (p.kind == GH_BY_NAME && p.tail.n == 0))
		d->verdict = GH_ANONYMOUS; /* names no file */
	else if (gh_decide_repo(s, &p, false, d))
		d->verdict = GH_CREDENTIAL;
}

static void gist(enum prov_host_id host, const struct request *r, struct gh_decision *d)
{
	struct span tail = SPAN(r->path.p + 1, r->path.n - 1);
	enum service what = service(r);
	bool fetches = host == HOST_GITHUB_GIST && r->method == METHOD_POST && !r->has_query &&
		       (gh_match("*/git-upload-pack", tail) || gh_match("*/*/git-upload-pack", tail));

	d->rule = "gist";
	if (what == SERVICE_PUSH || what == SERVICE_UNCLEAR || (!(GET & 1u << r->method) && !fetches))
		gh_refuse(d, REFUSAL_CLASS_NEVER, "keep it in a listed repository",
			  "a gist belongs to no repository of the list, so none is written from a sandbox");
	else
		d->verdict = GH_ANONYMOUS;
}

void gh_decide_git(const struct gh_scope *s, enum prov_host_id host, const struct request *r, struct gh_decision *d)
{
	switch (host) {
	case HOST_GITHUB_GIT:
		site(s, r, d);
		break;
	case HOST_GITHUB_CODELOAD:
	case HOST_GITHUB_RAW:
	case HOST_GITHUB_MEDIA:
		files(s, host, r, d);
		break;
	case HOST_GITHUB_GIST:
	case HOST_GITHUB_GIST_RAW:
		gist(host, r, d);
		break;
	default:
		gh_refuse(d, REFUSAL_HOST, NULL, "this is no host of GitHub's that the sandbox knows");
		break;
	}
}
