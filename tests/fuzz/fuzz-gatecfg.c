/* The launcher's configuration of gate, as a launcher of another build might write it. */
#include "fuzz.h"

#include <string.h>

#include "gate/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct gate_config c;
	struct err err = { 0 };

	if (gate_config_parse(SPAN(p, n), &c, &err) < 0) {
		MUST(err.text[0] != '\0');
		return 0;
	}
	MUST(strlen(c.session) >= 1 && strlen(c.session) <= GATE_SESSION_MAX);
	MUST((c.launch.lent & ~PH_ALL) == 0);
	for (int i = 0; i < PROVS; i++)
		MUST(c.launch.opened[i] >> CLASSES == 0 && !(c.launch.opened[i] & 1u << CLASS_NEVER));
	return 0;
}
