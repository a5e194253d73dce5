#include "session/project.h"

#include <errno.h>
#include <fcntl.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/str.h"

void project_hash(const void *path, size_t n, char ret[PROJECT_HASH_LEN + 1])
{
	static const char digits[] = "0123456789abcdef";
	uint8_t sum[SHA256_DIGEST_LENGTH];
	SHA2_CTX ctx;

	SHA256Init(&ctx);
	SHA256Update(&ctx, path, n);
	SHA256Final(sum, &ctx);
	for (int i = 0; i < PROJECT_HASH_LEN; i += 2) {
		ret[i] = digits[sum[i / 2] >> 4];
		ret[i + 1] = digits[sum[i / 2] & 15];
	}
	ret[PROJECT_HASH_LEN] = '\0';
}

int project_open_cwd(struct project *ret, struct err *err)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, shown);
	AUTO_FD(fd);
	struct stat here, there;

	/* getcwd() gives the path that the kernel knows, so all links are resolved; $PWD is what somebody says. */
	path = getcwd(NULL, 0);
	if (!path && errno == ENOENT)
		return err_set(err, -ENOENT,
			       "current folder: it was removed; change to a folder that exists and run agent-vm there");
	if (!path)
		return err_set(err, -errno, "current folder: its path cannot be read: %s; run agent-vm in another folder",
			       strerror(errno));
	/* The kernel says "(unreachable)/..." for a folder outside our root folder; glibc turns that into ENOENT in new
	 * versions only. */
	if (path[0] != '/')
		return err_set(err, -ENOENT,
			       "current folder: it is not below / here; change to a folder by its full path");
	shown = str_escape(path, strlen(path));
	fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: cannot be read: %s; run agent-vm in a folder that you may read", shown,
			       strerror(errno));
	if (fstat(fd, &here) < 0 || stat(path, &there) < 0)
		return err_set(err, -errno, "%s: cannot be reached by this path: %s; change to a folder that can", shown,
			       strerror(errno));
	if (here.st_dev != there.st_dev || here.st_ino != there.st_ino)
		return err_set(err, -ESTALE,
			       "%s: another folder lies there now; change to the folder again (cd .) and repeat", shown);
	project_hash(path, strlen(path), ret->hash);
	ret->path = TAKE_PTR(path);
	ret->fd = TAKE_FD(fd);
	return 0;
}

void project_close(struct project *p)
{
	free(p->path);
	p->path = NULL;
	if (p->fd >= 0)
		(void)close(p->fd);
	p->fd = -1;
}

void session_name(const char *hash, pid_t pid, unsigned int nth, char ret[SESSION_NAME_MAX + 1])
{
	if (nth > 1)
		(void)snprintf(ret, SESSION_NAME_MAX + 1, SESSION_NAME_PREFIX "%s-%d-%u", hash, (int)pid, nth);
	else
		(void)snprintf(ret, SESSION_NAME_MAX + 1, SESSION_NAME_PREFIX "%s-%d", hash, (int)pid);
}

bool session_name_is_ours(const char *name)
{
	const char *at = name + strlen(SESSION_NAME_PREFIX);

	if (!str_starts(name, SESSION_NAME_PREFIX) || strlen(name) > SESSION_NAME_MAX)
		return false;
	return strspn(at, "0123456789abcdef") == PROJECT_HASH_LEN && at[PROJECT_HASH_LEN] == '-' &&
	       at[PROJECT_HASH_LEN + 1] != '\0' &&
	       strspn(at + PROJECT_HASH_LEN, "0123456789-") == strlen(at + PROJECT_HASH_LEN);
}
