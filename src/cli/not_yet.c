#include "cli/not_yet.h"

#include <stddef.h>
#include <string.h>

#include "base/macros.h"

#define LOGINS "this version gives the guest no login for GitHub; leave the option out"

static const struct {
	const char *name, *why;
} options[] = {
	{ "repo", LOGINS },
	{ "github", LOGINS },
};

const char *not_yet_option(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (strcmp(options[i].name, name) == 0)
			return options[i].why;
	return NULL;
}

