/* agent-vm-guest-dbs FROM TO: takes the databases in a folder out into an empty one while programs use them.
 *
 * By SQLite's backup interface: it reads pages under one read transaction, so what comes out is the database as it was at one
 * instant, and a writer in WAL mode is not held up. VACUUM INTO, the other way, would run the statements of a schema that
 * programs of the guest have written, and build every index anew; a backup looks at no table and runs nothing.
 *
 * What is left behind is what was there: where a program has the database open (there is a log beside it) ours is a connection
 * that only reads, and its end writes nothing back and removes nothing. Where there is no log, SQLite makes one to read, and
 * takes it away at the end unless somebody has opened the database meanwhile.
 *
 * A file that is no database, whatever its name, is copied as it lies, as at the end of a session. Exit status 0: all were taken
 * out; 1: one line says which one was not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/macros.h"
#include "base/str.h"
#include "guest/dbset.h"

#define BUSY_MS 2000 /* of waiting for one that is locked */
#define HEAP_MAX (32 << 20)
#define HEADER 20 /* bytes, up to the versions; file format page 1.3 */
#define AT_READ_VERSION 19
#define VERSION_WAL 2

enum kind { KIND_NONE, KIND_OTHER, KIND_PLAIN, KIND_WAL };

/* What lies there by that name; KIND_NONE: no regular file. */
static enum kind kind_of(int dir, const char *name, uint64_t *ret_bytes)
{
	uint8_t head[HEADER];
	struct stat st;
	AUTO_FD(fd);

	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return KIND_NONE;
	*ret_bytes = (uint64_t)st.st_size;
	if (pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head) || memcmp(head, "SQLite format 3", 16) != 0)
		return KIND_OTHER;
	return head[AT_READ_VERSION] == VERSION_WAL ? KIND_WAL : KIND_PLAIN;
}

static int failed(const char *name, const char *why)
{
	AUTO_FREE(char, shown);

	shown = str_escape(name, strlen(name));
	(void)fprintf(stderr, "%s: %s\n", shown, why);
	return -EIO;
}

/* Return: SQLITE_OK or another code of SQLite's. */
static int take_out(const char *name, const char *to, int flags, bool used)
{
	sqlite3 *src = NULL, *dst = NULL;
	sqlite3_backup *b = NULL;
	int r, done;

	r = sqlite3_open_v2(name, &src, flags | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_PRIVATECACHE, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_db_config(src, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, used, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_busy_timeout(src, BUSY_MS);
	if (r == SQLITE_OK)
		r = sqlite3_open_v2(to, &dst, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW, NULL);
	/* Nobody wants what was begun, and what is whole is synced where it is copied to. */
	if (r == SQLITE_OK)
		r = sqlite3_exec(dst, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF", NULL, NULL, NULL);
	if (r == SQLITE_OK) {
		b = sqlite3_backup_init(dst, "main", src, "main");
		r = b ? sqlite3_backup_step(b, -1) : sqlite3_errcode(dst);
		done = b ? sqlite3_backup_finish(b) : r;
		r = r == SQLITE_DONE ? done : r;
	}
	done = sqlite3_close(dst);
	(void)sqlite3_close(src);
	return r == SQLITE_OK ? done : r;
}

/* @left: becomes less by what it has. */
static int copy(int from, const char *name, int to, const char *to_path, uint64_t *left)
{
	AUTO_FREE(char, out);
	AUTO_FREE(char, log);
	uint64_t bytes, log_bytes = 0, own = *left;
	enum kind kind;
	bool used;
	int r = SQLITE_NOTADB;

	log = xasprintf("%s-wal", name);
	out = xasprintf("%s/%s", to_path, name);
	kind = kind_of(from, name, &bytes);
	if (kind == KIND_NONE)
		return 0;
	used = kind_of(from, log, &log_bytes) != KIND_NONE;
	if (bytes > *left || log_bytes > *left - bytes)
		return failed(name, "larger than what is saved while a session runs");
	if (kind != KIND_OTHER)
		r = take_out(name, out, kind == KIND_WAL && !used ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY, used);
	if (r == SQLITE_OK) {
		*left -= bytes + log_bytes;
		return 0;
	}
	if (r != SQLITE_NOTADB && r != SQLITE_CORRUPT)
		return failed(name, sqlite3_errstr(r));
	(void)unlinkat(to, name, 0);
	r = dbset_copy_one(from, name, to, false, &own);
	if (r == 1 && used)
		r = dbset_copy_one(from, log, to, false, &own);
	*left = own;
	return r < 0 ? failed(name, strerror(-r)) : 0;
}

static int copy_all(const char *to_path)
{
	uint64_t left = DBSET_MAX_RUNNING;
	struct dirent *e;
	int r = 0, n = 0;
	AUTO_FD(to);
	DIR *d;

	to = open(to_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (to < 0)
		return failed(to_path, strerror(errno));
	d = opendir(".");
	if (!d)
		return failed("the folder", strerror(errno));
	while (r == 0 && (e = readdir(d)))
		if (dbset_is_file(e->d_name) && !dbset_is_log(e->d_name))
			r = ++n > DBSET_FILES_MAX ? failed("the folder", "too many databases") :
						   copy(dirfd(d), e->d_name, to, to_path, &left);
	(void)closedir(d);
	return r;
}

int main(int argc, char **argv)
{
	AUTO_FREE(char, to);

	if (argc != 3) {
		(void)fprintf(stderr, "agent-vm-guest-dbs FROM TO: take the databases in one folder out into another\n");
		return 2;
	}
	(void)umask(077);
	(void)sqlite3_hard_heap_limit64(HEAP_MAX);
	/* SQLite refuses links anywhere in a path: those of an image, such as /var, are none of the agent's. */
	to = realpath(argv[2], NULL);
	if (!to || chdir(argv[1]) < 0)
		return failed(to ? argv[1] : argv[2], strerror(errno)) < 0;
	return copy_all(to) < 0;
}
