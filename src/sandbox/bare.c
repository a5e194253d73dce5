#include "sandbox/bare.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/macros.h"
#include "sandbox/caps.h"
#include "sandbox/hide.h"
#include "sandbox/landlock.h"

int sandbox_bare(const struct seccomp_table *table, struct err *err)
{
	const struct rlimit none = { 0, 0 };
	AUTO_FD(land);
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || hide_process() < 0)
		return err_set(err, -errno, "%s: no new privileges: %m", table->role);
	r = landlock_new(&land, err);
	if (r == 0)
		r = landlock_enforce(land, err);
	if (r < 0 && r != -EOPNOTSUPP)
		return r;
	r = caps_keep(0, err);
	if (r < 0)
		return r;
	if (setrlimit(RLIMIT_NPROC, &none) < 0)
		return err_set(err, -errno, "%s: limits: %m", table->role);
	return seccomp_apply(table, NULL, 0, err);
}
