/* WWW-Authenticate and Content-Range: values without control bytes, counts within bounds. */
#include "fuzz.h"

#include <errno.h>

#include "base/macros.h"
#include "base/str.h"
#include "image/challenge.h"
#include "image/registry.h"

static void is_clean(const char *s)
{
	for (; s && *s; s++)
		MUST((unsigned char)*s >= 0x20 && *s != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct challenge c[CHALLENGES_MAX];
	uint64_t first = 7, total = 7;
	AUTO_FREE(char, text);
	int count;

	count = challenge_parse((const char *)p, n, c);
	MUST(count == -EBADMSG || (count >= 0 && count <= CHALLENGES_MAX));
	for (int i = 0; i < count; i++) {
		is_clean(c[i].realm);
		is_clean(c[i].service);
		is_clean(c[i].scope);
		is_clean(c[i].error);
		challenge_done(&c[i]);
	}
	text = xstrndup((const char *)p, n);
	if (content_range_parse(text, &first, &total) == 0)
		MUST(first <= INT64_MAX && total > first);
	else
		MUST(first == 7 && total == 7);
	return 0;
}
