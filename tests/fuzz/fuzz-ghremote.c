/* URLs of remotes and the files that hold them. What is taken for a repository fits the grammar, stands in the URL as
 * it is, and the URL names github.com in front of it. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "session/gitremotes.h"

static void good(struct gh_slug s)
{
	MUST(gh_is_owner(s.owner) && gh_is_name(s.name));
	for (size_t i = 0; i < s.owner.n + s.name.n; i++) {
		uint8_t c = i < s.owner.n ? s.owner.p[i] : s.name.p[i - s.owner.n];

		MUST(c > ' ' && c < 0x7f && !strchr("/\\%@:?#\"'", c));
	}
}

static void each(struct gh_slug repo, void *arg)
{
	good(repo);
	++*(size_t *)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct span url = SPAN(p, n);
	struct gh_slug s;
	char *origin = NULL;
	size_t count = 0;
	int e;

	if (gh_remote_parse(url, &s)) {
		size_t front = (size_t)(s.owner.p - p), at = 0;

		good(s);
		MUST(s.owner.p >= p && s.name.p == s.owner.p + s.owner.n + 1 && s.name.p + s.name.n <= p + n);
		/* Only ".git" and one "/" may follow. */
		MUST((size_t)(p + n - s.name.p) - s.name.n <= strlen(".git/"));
		while (at + 10 < front && !gh_same(SPAN(p + at, 10), span_str("github.com")))
			at++;
		MUST(at + 10 < front);
	}
	e = gitremotes_read((const char *)p, n, each, &count, &origin);
	MUST(e == 0 || (e == -EBADMSG && !origin));
	e = gitmodules_read((const char *)p, n, origin, each, &count);
	MUST(e == 0 || e == -EBADMSG);
	(void)gitmodules_read((const char *)p, n, "git@github.com:acme/app.git", each, &count);
	free(origin);
	return 0;
}
