/* The guest's answers to the self-probe: whatever they are, there is a verdict, and only a whole set of them passes. */
#include "fuzz.h"

#include <string.h>

#include "cli/selfprobe.h"
#include "proto/rec.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const struct network_plan plans[] = {
		{ .probe = "0123456789abcdef0123456789abcdef" },
		{ .probe = "0123456789abcdef0123456789abcdef", .allow_host = true },
		{ .probe = "0123456789abcdef0123456789abcdef", .allow_lan = true },
		{ .probe = "0123456789abcdef0123456789abcdef", .no_network = true },
	};
	struct span in = SPAN(p, n), val;
	struct selfprobe probe;
	struct err err = { "" };
	uint16_t key;
	int r = 0;

	if (n == 0 || selfprobe_open(&probe, &plans[p[n - 1] % 4], false, &err) < 0)
		return 0;
	while (r == 0 && rec_next(&in, &key, &val) == 1)
		r = selfprobe_result(&probe, val);
	MUST(probe.n_results <= probe.n);
	r = selfprobe_judge(&probe, &err);
	MUST(r == 0 ? probe.n_results == probe.n && err.text[0] == '\0' : strstr(err.text, "self-probe: ") == err.text);
	return 0;
}
