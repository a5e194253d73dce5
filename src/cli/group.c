#include "cli/group.h"

#include <sys/resource.h>

#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"

#define MIB (UINT64_C(1) << 20)
#define BASE_MIB 512	       /* programs, threads, queues; and the files' pages that a guest under pressure still needs */
#define TCG_MIB 1024	       /* translated code: QEMU's buffer is an eighth of the host's memory, at most this */
#define PER_FILE 2560	       /* kernel memory for a file that the guest knows of: virtio-fs keeps it open */
#define FILES_MAX (1 << 20)    /* where nothing limits them */
#define PIDS 512	       /* QEMU and the virtiofsd in it have pools of 64 threads each */

struct cgroup_limits group_limits(const struct plan *p)
{
	uint64_t files = FILES_MAX;
	struct rlimit lim;

	/* The cage raises it to the hard one. */
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0)
		files = MIN((uint64_t)lim.rlim_max, FILES_MAX);
	return (struct cgroup_limits){
		.memory_bytes = (p->res.memory_mib + BASE_MIB + (p->monitor == VMM_QEMU_TCG ? TCG_MIB : 0)) * MIB + files * PER_FILE,
		.pids = PIDS + p->res.cpus,
	};
}

char *group_plan(const char *session, struct cgroup_place *place)
{
	struct err why;

	*place = (struct cgroup_place){ 0 };
	if (cgroup_find(place, &why) == 0)
		return xasprintf("%s/%s", place->path, session);
	log_info("no cgroup around the monitor: %s", why.text);
	return NULL;
}

int group_make(const struct plan *p, const char *session, const struct cgroup_place *place)
{
	struct cgroup_limits l;
	struct err why;
	int fd;

	if (!place->path)
		return -1;
	l = group_limits(p);
	fd = cgroup_make(place, session, &l, &why);
	if (fd >= 0)
		log_info("cgroup %s/%s: %lu MiB of memory, %lu processes", place->path, session,
			 (unsigned long)(l.memory_bytes / MIB), (unsigned long)l.pids);
	else
		log_warn("no cgroup around the monitor: %s", why.text);
	return fd < 0 ? -1 : fd;
}
