/* A ClientHello, perhaps over several records. No front has another verdict than the whole, but that more is needed. */
#include "fuzz.h"

#include <string.h>

#include "gate/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct hello h, f;
	enum hello_verdict whole = hello_parse(SPAN(p, n), &h);

	MUST(n <= HELLO_INPUT_MAX || whole != HELLO_MORE);
	if (whole == HELLO_OK) {
		MUST(memchr(h.sni, '\0', sizeof(h.sni)) && n >= 5 + 4 + 2 + 32 + 1 + 4 + 2);
		for (const char *c = h.sni; *c; c++)
			MUST(!(*c >= 'A' && *c <= 'Z') && *c > ' ' && *c < 0x7f);
	}
	for (size_t i = 0; i < n && i < 512; i++) {
		enum hello_verdict front = hello_parse(SPAN(p, i), &f);

		MUST(front == HELLO_MORE || front == whole);
	}
	return 0;
}
