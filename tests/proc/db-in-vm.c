/* db-in-vm FILE write|lock|count, in a guest: rows without end, each its own transaction in WAL mode, as an agent writes them; a
 * database that nobody else can read; or whether it is whole, how many rows it has and the number of the last one. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

static int fail(sqlite3 *db, const char *what)
{
	(void)fprintf(stderr, "%s: %s\n", what, sqlite3_errmsg(db));
	return 1;
}

static int print(void *unused, int n, char **values, char **names)
{
	return printf("%s ", values[0] ? values[0] : "none") < 0;
}

int main(int argc, char **argv)
{
	sqlite3 *db;

	if (argc != 3 || sqlite3_open(argv[1], &db) != SQLITE_OK)
		return 2;
	(void)sqlite3_busy_timeout(db, 5000);
	if (strcmp(argv[2], "lock") == 0) {
		if (sqlite3_exec(db, "CREATE TABLE t(n INTEGER PRIMARY KEY, s); BEGIN EXCLUSIVE", NULL, NULL, NULL) != SQLITE_OK)
			return fail(db, "lock");
		return pause();
	}
	if (strcmp(argv[2], "count") == 0) {
		if (sqlite3_exec(db, "PRAGMA integrity_check; SELECT count(*) FROM t; SELECT max(n) FROM t", print, NULL, NULL) != SQLITE_OK)
			return fail(db, "count");
		return sqlite3_close(db) != SQLITE_OK || printf("\n") < 0; /* nothing is left beside it */
	}
	if (sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, s)", NULL, NULL, NULL) != SQLITE_OK)
		return fail(db, "create");
	while (sqlite3_exec(db, "INSERT INTO t(s) VALUES(randomblob(500))", NULL, NULL, NULL) == SQLITE_OK)
		(void)usleep(5000);
	return fail(db, "insert");
}
