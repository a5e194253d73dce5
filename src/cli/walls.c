#include "cli/walls.h"

#include "base/macros.h"
#include "base/str.h"
#include "proto/vmmcfg.h"

#define NAMESPACES (CAGE_MOUNT_NS | CAGE_NET_NS | CAGE_PID_NS)

char *walls_warning(unsigned walls, bool root)
{
	static const struct {
		unsigned bits;
		const char *name;
	} all[] = { { NAMESPACES, "namespaces" }, { CAGE_LANDLOCK, "Landlock" }, { CAGE_SECCOMP, "seccomp" } };
	bool open = (walls & NAMESPACES) != NAMESPACES && !(walls & CAGE_LANDLOCK);
	AUTO_FREE(char, list);

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		char *more;

		if ((walls & all[i].bits) == all[i].bits)
			continue;
		more = list ? xasprintf("%s, no %s", list, all[i].name) : xasprintf("no %s", all[i].name);
		free(list);
		list = more;
	}
	if (!list)
		return NULL;
	return xasprintf("cage: %s around the VM's monitor; %s; agent-vm doctor says what to do", list,
			 !open ? "the other walls stand" :
			 root  ? "a guest that takes the monitor over has root's files on this host" :
				 "a guest that takes the monitor over has your files on this host");
}
