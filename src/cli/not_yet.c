#include "cli/not_yet.h"

#include <stddef.h>
#include <string.h>

#include "base/macros.h"

#define LOGINS "this version gives the guest no logins; leave the option out"

static const struct {
	const char *name, *why;
} options[] = {
	{ "repo", LOGINS },
	{ "github", LOGINS },
	{ "api", LOGINS },
	{ "trust-host-ca", "this version leaves certificates to the image; leave the option out" },
}, held[] = {
	{ "no-git", "always so in this version" },
}, commands[] = {
	{ "clipboard", "not in this version; exchange files through the project folder" },
};

const char *not_yet_option(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (strcmp(options[i].name, name) == 0)
			return options[i].why;
	return NULL;
}

const char *not_yet_held(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(held); i++)
		if (strcmp(held[i].name, name) == 0)
			return held[i].why;
	return NULL;
}

const char *not_yet_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return commands[i].why;
	return NULL;
}
