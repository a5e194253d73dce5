/* A DNS question of the guest. What is taken has a name that ends in its root label and consists of whole labels; a taken
 * question cut by a byte is none. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "wire/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct dns_question q, cut;
	size_t at = 0;
	int r = dns_parse(p, n, &q);

	MUST(r == -EBADMSG || r == DNS_NOERROR || r == DNS_FORMERR || r == DNS_NOTIMP || r == DNS_BADVERS);
	if (r != DNS_NOERROR)
		return 0;
	MUST(q.name_len >= 1 && q.question == q.name_len + 4u && q.size >= 512 && q.size <= 4096);
	while (q.name[at] != 0) {
		MUST(q.name[at] <= 63);
		at += q.name[at] + 1u;
		MUST(at < q.name_len);
	}
	MUST(at + 1 == q.name_len);
	MUST(dns_parse(p, n - 1, &cut) != DNS_NOERROR);
	return 0;
}
