#include "sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/landlock.h>

#include "base/macros.h"
#include "base/str.h"

/* Newer than the kernel headers of Debian 12 (Linux 6.1). */
#define ACCESS_REFER (1ULL << 13)
#define ACCESS_TRUNCATE (1ULL << 14)
#define ACCESS_IOCTL_DEV (1ULL << 15)
#define NET_BIND 1ULL  /* of TCP */
#define NET_ALL 3ULL   /* bind and connect */
#define SCOPE_ALL 3ULL /* abstract unix sockets and signals */

struct attr {
	uint64_t fs, net, scope;
};

#define FS_V1 (LANDLOCK_ACCESS_FS_MAKE_SYM | (LANDLOCK_ACCESS_FS_MAKE_SYM - 1)) /* bits 0 to 12 */
#define FS_FILE                                                                                                 \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | ACCESS_TRUNCATE | \
	 ACCESS_IOCTL_DEV)

int landlock_abi(void)
{
	long r = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return r < 0 ? 0 : (int)r;
}

/* What this kernel can refuse; what it does not know must not be asked for. */
static uint64_t fs_handled(void)
{
	int abi = landlock_abi();

	return FS_V1 | (abi >= 2 ? ACCESS_REFER : 0) | (abi >= 3 ? ACCESS_TRUNCATE : 0) | (abi >= 5 ? ACCESS_IOCTL_DEV : 0);
}

static int new_set(uint64_t net, int *ret_fd, struct err *err)
{
	int abi = landlock_abi();
	struct attr a = { .fs = fs_handled() };
	size_t n = sizeof(a.fs);
	int fd;

	if (abi < 2)
		return err_set(err, -EOPNOTSUPP, "Landlock: this kernel has ABI %d; Linux 5.19 and later have what is needed", abi);
	if (abi >= 4) {
		a.net = net;
		n += sizeof(a.net);
	}
	if (abi >= 6) {
		a.scope = SCOPE_ALL;
		n += sizeof(a.scope);
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &a, n, 0);
	if (fd < 0)
		return err_set(err, -errno, "Landlock: %s", strerror(errno));
	*ret_fd = fd;
	return 0;
}

int landlock_new(int *ret_fd, struct err *err)
{
	return new_set(NET_ALL, ret_fd, err);
}

int landlock_new_client(int *ret_fd, struct err *err)
{
	return new_set(NET_BIND, ret_fd, err);
}

static uint64_t rights_to_access(uint32_t rights)
{
	uint64_t a = 0;

	if (rights & LANDLOCK_READ)
		a |= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
	if (rights & LANDLOCK_WRITE)
		a |= LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_TRUNCATE;
	if (rights & LANDLOCK_EXEC)
		a |= LANDLOCK_ACCESS_FS_EXECUTE;
	if (rights & LANDLOCK_MAKE)
		a |= (FS_V1 & ~FS_FILE & ~(uint64_t)LANDLOCK_ACCESS_FS_READ_DIR) | ACCESS_REFER;
	if (rights & LANDLOCK_IOCTL)
		a |= ACCESS_IOCTL_DEV;
	return a;
}

int landlock_allow(int fd, const char *path, uint32_t rights, struct err *err)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = rights_to_access(rights) & fs_handled() };
	AUTO_FREE(char, shown);
	struct stat st;
	AUTO_FD(p);

	shown = str_escape(path, strlen(path));
	p = open(path, O_PATH | O_CLOEXEC);
	if (p < 0 || fstat(p, &st) < 0)
		return err_set(err, -errno, "Landlock: %s: %s", shown, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		rule.allowed_access &= FS_FILE; /* the kernel refuses a folder's rights on a file */
	rule.parent_fd = p;
	if (syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return err_set(err, -errno, "Landlock: %s: %s", shown, strerror(errno));
	return 0;
}

int landlock_enforce(int fd, struct err *err)
{
	if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return err_set(err, -errno, "Landlock: %s", strerror(errno));
	return 0;
}
