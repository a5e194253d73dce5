#include "session/renewlock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sha2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "session/lock.h"
#include "session/procid.h"

#define STAMP_MAX 128
#define ID_HEX 16

int renewlock_folder(const char *runtime_dir, struct err *err)
{
	AUTO_FD(parent);
	AUTO_FD(fd);
	struct stat st;
	int r;

	if (!runtime_dir || runtime_dir[0] != '/')
		return -ENOENT;
	parent = open(runtime_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == EACCES
			       ? -ENOENT
			       : err_set(err, -errno, "%s: cannot be opened: %s", runtime_dir, strerror(errno));
	r = dir_make_at(parent, "agent-vm", 0700);
	if (r == 0)
		fd = openat(parent, "agent-vm", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (r == 0 && fd < 0)
		r = -errno;
	if (r == 0 && fstat(fd, &st) < 0)
		r = -errno;
	if (r < 0)
		return err_set(err, r, "%s/agent-vm: cannot be used: %s; remove it", runtime_dir, strerror(-r));
	if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
		return err_set(err, -EPERM, "%s/agent-vm: belongs to another user or is open to others; remove it",
			       runtime_dir);
	return TAKE_FD(fd);
}

void renewlock_init(struct renewlock *l, int dirfd, const char *provider, const char *source)
{
	char hex[SHA256_DIGEST_STRING_LENGTH];

	(void)SHA256Data((const uint8_t *)source, strlen(source), hex);
	l->dirfd = dirfd;
	(void)snprintf(l->name, sizeof(l->name), "refresh-%.16s-%.*s", provider, ID_HEX, hex);
}

static const char *name_of(const struct renewlock *l, const char *ending, char out[RENEWLOCK_NAME + 8])
{
	(void)snprintf(out, RENEWLOCK_NAME + 8, "%s.%s", l->name, ending);
	return out;
}

int renewlock_try(const struct renewlock *l)
{
	char name[RENEWLOCK_NAME + 8];

	return lock_file_at(l->dirfd, name_of(l, "lock", name), 0);
}

/* "BOOT-ID MILLISECONDS\n", of the boot-time clock. */
int renewlock_stamp(const struct renewlock *l)
{
	char name[RENEWLOCK_NAME + 8], text[STAMP_MAX];
	struct proc_id self;
	int r = proc_id_self(&self);

	if (r < 0)
		return r;
	(void)snprintf(text, sizeof(text), "%s %" PRId64 "\n", self.boot_id, now_ns() / 1000000);
	return file_replace_unsynced_at(l->dirfd, name_of(l, "stamp", name), text, strlen(text), 0600);
}

int64_t renewlock_age_ms(const struct renewlock *l)
{
	char name[RENEWLOCK_NAME + 8];
	AUTO_FREE(char, text);
	int64_t now = now_ns() / 1000000;
	struct proc_id self;
	uint64_t at;
	size_t n;

	if (proc_id_self(&self) < 0 || file_read_beneath(l->dirfd, name_of(l, "stamp", name), STAMP_MAX, &text, &n) < 0)
		return -1;
	if (n < BOOT_ID_LEN + 3 || text[n - 1] != '\n' || text[BOOT_ID_LEN] != ' ' ||
	    memcmp(text, self.boot_id, BOOT_ID_LEN) != 0)
		return -1;
	text[n - 1] = '\0';
	if (str_u64(text + BOOT_ID_LEN + 1, INT64_MAX, &at) < 0 || (int64_t)at > now)
		return -1;
	return now - (int64_t)at;
}

/* "DEV INO SIZE MTIME\n" */
void renewlock_look(const char *source, char ret[RENEWLOCK_SEEN])
{
	struct stat st;

	ret[0] = '\0';
	if (stat(source, &st) == 0)
		(void)snprintf(ret, RENEWLOCK_SEEN, "%ju %ju %jd %jd.%09ld\n", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino,
			       (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

void renewlock_leave(const struct renewlock *l, const char *source, const char *was)
{
	char name[RENEWLOCK_NAME + 8], now[RENEWLOCK_SEEN];

	renewlock_look(source, now);
	/* Without it the change is told once too often. */
	if (now[0] != '\0' && strcmp(now, was) != 0)
		(void)file_replace_unsynced_at(l->dirfd, name_of(l, "left", name), now, strlen(now), 0600);
}

bool renewlock_wrote(const struct renewlock *l, const char *source)
{
	char name[RENEWLOCK_NAME + 8], now[RENEWLOCK_SEEN];
	AUTO_FREE(char, left);
	AUTO_FD(lock);
	size_t n;

	renewlock_look(source, now);
	if (now[0] == '\0')
		return false;
	lock = renewlock_try(l);
	if (lock == -EWOULDBLOCK)
		return true;
	return file_read_beneath(l->dirfd, name_of(l, "left", name), RENEWLOCK_SEEN, &left, &n) == 0 && n == strlen(now) &&
	       memcmp(left, now, n) == 0;
}
