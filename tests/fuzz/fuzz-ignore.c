/* Patterns of hidden files: input is the file's text, a NUL, and a path. Whatever both are, the answer comes, it does not
 * change when asked again, and a path below a hidden folder is hidden. */
#include "fuzz.h"

#include <string.h>

#include "base/str.h"
#include "session/ignore.h"

#define PATH_MOST 512
#define TEXT_MOST 2048 /* cost is their product: keep runs short */

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	const uint8_t *nul = n > 0 ? memchr(p, 0, n) : NULL;
	size_t text = nul ? (size_t)(nul - p) : n;
	struct ignore *ig;
	char *path, *below;

	if (text > TEXT_MOST || (nul && n - text - 1 > PATH_MOST))
		return 0;
	ig = ignore_new();
	path = nul ? xstrndup((const char *)nul + 1, n - text - 1) : xstrdup("a/b");
	if (n == 0 || ignore_add_file(ig, (const char *)p, text) == 0) {
		bool file = ignore_hides(ig, path, false), dir = ignore_hides(ig, path, true);

		MUST(file == ignore_hides(ig, path, false));
		below = xasprintf("%s/x", path);
		MUST(!dir || *path == '\0' || path[0] == '/' || ignore_hides(ig, below, false));
		free(below);
	}
	free(path);
	ignore_free(ig);
	return 0;
}
