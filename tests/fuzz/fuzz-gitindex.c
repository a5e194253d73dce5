/* git's index: paths that are handed out are whole and come from an index that was read to its end. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "session/gitindex.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct strv links = { 0 };
	int r = gitindex_links(SPAN(bytes, n), &links);

	MUST(r == 0 || r == -EBADMSG || r == -ENOTSUP);
	MUST(r == 0 || links.n == 0);
	for (size_t i = 0; i < links.n; i++)
		MUST(links.v[i][0] != '\0' && strlen(links.v[i]) < n);
	strv_done(&links);
	return 0;
}
