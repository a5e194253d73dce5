/* What runs on the host: by name alone, nothing is opened (command line page, section 15.1). */
#pragma once

#include <stdbool.h>

#include "session/gitconfig.h"

enum sink_class {
	SINK_NONE,
	SINK_ITSELF, /* runs by itself: an editor, a shell's hook or git starts it */
	SINK_BUILD,  /* runs on build, test or push, or when an agent reads it */
	SINK_CLASSES
};

/* The class of a file, or of what lies in a file's place. @path: relative to the top of the tree. Not about .git. */
enum sink_class sink_class_of(const char *path);

/* Can this setting start nothing? Names it does not know can. */
bool sink_config_is_harmless(const struct gitconfig_entry *e);
