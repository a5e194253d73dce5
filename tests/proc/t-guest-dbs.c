/* The databases of a session on their way into the project's state: the program that takes them out, the sets, and sessions that
 * are killed. Each session is a process of its own, as it is a guest of its own; its databases are in a folder of its name. */
#include "../unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "../unit/files.h"
#include "own-net.h"
#include "base/fd.h"
#include "base/macros.h"
#include "guest/dbs.h"
#include "guest/dbwatch.h"
#include "guest/guest.h"

#define TEXT 2000
#define TURNS 25 /* of sessions that are killed */

struct session {
	const char *name;
	char *dir; /* of its databases */
	pid_t pid;
	int to, from;
	char log[TEXT]; /* of its beginning */
};

struct answer {
	int r;
	char why[256];
	char log[TEXT];
};

static char *top, *state;

static void begin_world(void)
{
	top = files_tmp("/tmp");
	state = files_at(top, "state");
	CHECK_INT(mkdir(state, 0700), ==, 0);
}

static void end_world(void)
{
	free(state);
	files_rm(top);
}

/* --- a session --- */

static struct guest guest;

static void answer(int fd, int r, const char *why)
{
	struct answer a = { .r = r };
	struct span log = buf_span(&guest.port.out);
	size_t n = 0;

	(void)snprintf(a.why, sizeof(a.why), "%s", why);
	for (size_t i = 0; i < log.n && n < sizeof(a.log) - 1; i++)
		if (log.p[i] >= ' ' && log.p[i] < 127)
			a.log[n++] = (char)log.p[i];
	buf_consume(&guest.port.out, log.n);
	(void)fd_write_all(fd, &a, sizeof(a));
}

static bool obeys_modes; /* the sessions, whoever runs them */
static bool cannot_list; /* folders: EIO */

static void obey_modes(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];

	CHECK_INT(syscall(SYS_capget, &h, d), ==, 0);
	d[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
	CHECK_INT(syscall(SYS_capset, &h, d), ==, 0);
}

static void stop_lists(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getdents64, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = ARRAY_SIZE(f), .filter = f };

	CHECK_INT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
	CHECK_INT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), ==, 0);
}

/* k: save while it runs; K: without end; e: end; c: begun anew in the state */
static void serve(const char *name, const char *local, const char *const *live, int in, int out)
{
	char id[] = "opencode", copilot[] = "copilot", link[] = "session-store.db", why[256], order;
	struct config c = { .dbs = { { id, id, NULL }, { copilot, copilot, link } }, .n_dbs = 2, .flags = GC_F_LIVE };
	struct err err = { "" };
	size_t n;

	if (!live)
		c.flags = 0;
	for (; live && *live; live++)
		c.live[c.n_live++] = span_str(*live);
	buf_init(&guest.port.out, PORT_OUT_MAX);
	if (obeys_modes)
		obey_modes();
	if (cannot_list)
		stop_lists();
	dbs_at(local, state, name);
	dbwatch_open(getenv("GUEST_DBS"));
	answer(out, dbs_load(&guest, &c, &err), err.text);
	while (read(in, &order, 1) == 1) {
		int r = 0;

		*why = '\0';
		if (order == 'e')
			dbs_save(&guest);
		else
			do
				r = dbwatch_save(&dbs_sets(&n)[0], why, sizeof(why));
			while (order == 'K');
		answer(out, r, why);
		if (order == 'e')
			_exit(0);
	}
	_exit(0);
}

static struct answer ask(const struct session *s, char order)
{
	struct answer a;

	CHECK_INT(fd_write_all(s->to, &order, 1), ==, 0);
	if (fd_read_exact(s->from, &a, sizeof(a)) < 0)
		fail_msg("session %s has died", s->name);
	return a;
}

/* @live: names of the others, NULL-terminated; NULL: nobody knows. */
static struct session begin_with(const char *name, const char *const *live)
{
	struct session s = { .name = name };
	int to[2], from[2];
	char *local = files_at(top, name);
	struct answer a;

	CHECK(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
	CHECK(mkdir(local, 0700) == 0 || errno == EEXIST);
	s.dir = files_at(local, "opencode");
	s.pid = fork();
	if (s.pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody */
		(void)close(to[1]);
		(void)close(from[0]);
		serve(name, local, live, to[0], from[1]);
	}
	(void)close(to[0]);
	(void)close(from[1]);
	s.to = to[1];
	s.from = from[0];
	if (fd_read_exact(s.from, &a, sizeof(a)) < 0 || a.r < 0)
		fail_msg("session %s does not begin: %s", name, a.why);
	(void)snprintf(s.log, sizeof(s.log), "%s", a.log);
	free(local);
	return s;
}

static const char *const alone[] = { NULL };

static struct session begin(const char *name)
{
	return begin_with(name, alone);
}

static void gone(struct session *s)
{
	int status;

	CHECK_INT(waitpid(s->pid, &status, 0), ==, s->pid);
	(void)close(s->to);
	(void)close(s->from);
	free(s->dir);
}

static struct answer end(struct session *s)
{
	struct answer a = ask(s, 'e');

	gone(s);
	return a;
}

static void killed(struct session *s)
{
	(void)kill(s->pid, SIGKILL);
	gone(s);
}

static void kept(const struct session *s)
{
	struct answer a = ask(s, 'k');

	if (a.r < 0)
		fail_msg("%s: %s (%s)", s->name, strerror(-a.r), a.why);
}

/* --- databases --- */

#define SCHEMA "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, s); CREATE TABLE IF NOT EXISTS u(n INTEGER PRIMARY KEY)"
#define ROW "BEGIN; INSERT INTO t(s) VALUES(randomblob(abs(random()) % 3000)); INSERT INTO u DEFAULT VALUES; COMMIT"

static sqlite3 *db_open(const char *dir, const char *name)
{
	char *path = xasprintf("file:%s/%s", dir, name);
	sqlite3 *db;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL) != SQLITE_OK)
		fail_msg("%s: %s", path, sqlite3_errmsg(db));
	free(path);
	return db;
}

static void sql(sqlite3 *db, const char *text)
{
	if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", text, sqlite3_errmsg(db));
}

static char *one(sqlite3 *db, const char *text)
{
	sqlite3_stmt *s;
	char *got;

	if (sqlite3_prepare_v2(db, text, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
		fail_msg("%s: %s", text, sqlite3_errmsg(db));
	got = xstrdup(sqlite3_column_type(s, 0) == SQLITE_NULL ? "" : (const char *)sqlite3_column_text(s, 0));
	(void)sqlite3_finalize(s);
	return got;
}

static int number(sqlite3 *db, const char *text)
{
	char *got = one(db, text);
	int n = atoi(got);

	free(got);
	return n;
}

/* How many transactions a database has; fails unless it is whole, and has each up to the last one. */
static int rows(const char *dir, const char *more)
{
	char *name = xasprintf("opencode.db%s", more), *check;
	sqlite3 *db = db_open(dir, name);
	int n;

	check = one(db, "PRAGMA integrity_check");
	CHECK_STR(check, "ok");
	n = number(db, "SELECT count(*) FROM t");
	CHECK_INT(number(db, "SELECT coalesce(max(n), 0) FROM t"), ==, n);
	CHECK_INT(number(db, "SELECT count(*) FROM u"), ==, n);
	(void)sqlite3_close(db);
	free(check);
	free(name);
	return n;
}

static void add_rows(const char *dir, int n)
{
	sqlite3 *db = db_open(dir, "opencode.db");

	sql(db, SCHEMA);
	while (n-- > 0)
		sql(db, ROW);
	(void)sqlite3_close(db);
}

static int row_count(const char *set)
{
	char *dir = xasprintf("%s/db/%s", state, set);
	int n = rows(dir, "?immutable=1");

	free(dir);
	return n;
}

/* Sorted, with a space behind each. */
static char *names(const char *dir)
{
	struct dirent **v;
	int n = scandir(dir, &v, NULL, alphasort);
	char *all = xstrdup("");

	for (int i = 0; i < n; i++) {
		if (strcmp(v[i]->d_name, ".") != 0 && strcmp(v[i]->d_name, "..") != 0) {
			str_append(&all, v[i]->d_name);
			str_append(&all, " ");
		}
		free(v[i]);
	}
	if (n >= 0)
		free(v);
	return all;
}

static void check_names(const char *dir, const char *want)
{
	char *got = names(dir);

	CHECK_STR(got, want);
	free(got);
}

static void check_sets(const char *want)
{
	char *db = files_at(state, "db");

	check_names(db, want);
	free(db);
}

/* Writes until it is killed. What it has committed, and how often it was refused. @stop: it stops itself, between two transactions:
 * for an instant of each the log's index is such that a reader has to wait for the writer. */
static struct written {
	volatile int rows, refused, stop;
} *written;

static pid_t writer(const char *dir)
{
	pid_t pid;

	written = mmap(NULL, sizeof(*written), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(written != MAP_FAILED);
	pid = fork();
	if (pid == 0) {
		sqlite3 *db = db_open(dir, "opencode.db");

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		sql(db, SCHEMA);
		for (;;) {
			if (sqlite3_exec(db, ROW, NULL, NULL, NULL) == SQLITE_OK) {
				written->rows++;
			} else {
				written->refused++;
				(void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
			}
			if (written->stop)
				(void)raise(SIGSTOP);
			(void)usleep(500);
		}
	}
	while (written->rows == 0)
		(void)usleep(1000);
	return pid;
}

static void writer_end(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
	(void)munmap((void *)written, sizeof(*written));
}

/* --- */

TEST(a_database_that_is_written_without_end_is_whole_in_each_set)
{
	struct session s;
	pid_t pid;

	begin_world();
	s = begin("a");
	pid = writer(s.dir);
	for (int i = 0; i < 40; i++) {
		int before = written->rows, n;

		kept(&s);
		n = row_count("opencode.1.a");
		/* Nothing that was committed when it began is missing; one transaction may be committed and not counted. */
		if (n < before || n > written->rows + 1)
			fail_msg("save %d: %d rows, of %d to %d", i, n, before, written->rows);
		check_sets("opencode.1.a ");
	}
	CHECK_INT(written->refused, ==, 0);
	check_names(s.dir, "opencode.db opencode.db-shm opencode.db-wal ");
	writer_end(pid);
	CHECK(strcmp(end(&s).log, "") == 0);
	check_sets("opencode.1 ");
	s = begin("b");
	CHECK_INT(rows(s.dir, ""), >, 0);
	killed(&s);
	end_world();
}

TEST(what_was_open_stays_open_and_what_was_closed_stays_closed)
{
	struct session s;
	struct stat before, after;
	char *path, *log;
	sqlite3 *db;

	begin_world();
	s = begin("a");
	add_rows(s.dir, 3);
	check_names(s.dir, "opencode.db ");
	path = files_at(s.dir, "opencode.db");
	log = files_at(s.dir, "opencode.db-wal");
	CHECK_INT(stat(path, &before), ==, 0);
	kept(&s);
	CHECK_INT(row_count("opencode.1.a"), ==, 3);
	CHECK_INT(stat(path, &after), ==, 0);
	CHECK(before.st_mtim.tv_sec == after.st_mtim.tv_sec && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
	check_names(s.dir, "opencode.db ");
	/* A program that has it open, and one that died with it open: its log is not written back. */
	for (int i = 0; i < 2; i++) {
		pid_t pid = writer(s.dir);

		if (i == 1) {
			writer_end(pid);
		} else {
			written->stop = 1;
			CHECK_INT(waitpid(pid, NULL, WUNTRACED), ==, pid);
		}
		CHECK_INT(stat(log, &before), ==, 0);
		CHECK_INT(before.st_size, >, 0);
		kept(&s);
		CHECK_INT(row_count("opencode.1.a"), >, 3);
		CHECK_INT(stat(log, &after), ==, 0);
		CHECK(before.st_size == after.st_size && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
		if (i == 0)
			writer_end(pid);
	}
	/* And its user's own end is as always. */
	db = db_open(s.dir, "opencode.db");
	sql(db, ROW);
	kept(&s);
	CHECK_INT(sqlite3_close(db), ==, SQLITE_OK);
	check_names(s.dir, "opencode.db ");
	free(path);
	free(log);
	killed(&s);
	end_world();
}

/* @anew: there is a set that none of them can read. */
static void kill_at_any_instant(bool anew)
{
	int64_t longest = 1;
	unsigned seed = 1;
	int sure = 0, all = 0;

	begin_world();
	if (anew)
		files_sh(state, "mkdir -p db/opencode.1 db/opencode.2; echo old > db/opencode.2/opencode.db; chmod 0 db/opencode.2/opencode.db");
	obeys_modes = anew;
	CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), ==, 0);
	for (int turn = 0; turn < TURNS; turn++) {
		char name[16];
		struct session s;
		int64_t start;
		int n;

		(void)snprintf(name, sizeof(name), "s%d", turn);
		s = begin(name);
		n = turn == 0 ? 0 : rows(s.dir, "");
		if (n < sure || n > all)
			fail_msg("turn %d: %d rows, where %d were saved of %d", turn, n, sure, all);
		add_rows(s.dir, 5);
		start = now_ns();
		kept(&s);
		longest = MAX(longest, now_ns() - start);
		sure = n + 5;
		add_rows(s.dir, 5);
		all = n + 10;
		CHECK_INT(fd_write_all(s.to, "K", 1), ==, 0);
		(void)usleep((useconds_t)(rand_r(&seed) % (unsigned)(longest * 5 / 4 / 1000 + 1)));
		killed(&s);
		while (waitpid(-1, NULL, 0) > 0) /* what it had started dies with it, and is ours then */
			;
	}
	/* Every one of them was killed, and what they left does not add up. */
	{
		struct session s = begin("last");
		char *db = files_at(state, "db"), *got, *want;

		add_rows(s.dir, 1);
		kept(&s);
		got = names(db);
		want = anew ? xstrdup("opencode.1 opencode.2 opencode.anew.last ") : xasprintf("opencode.%d opencode.%d.last ", TURNS, TURNS + 1);
		CHECK_STR(got, want);
		CHECK(*end(&s).log == '\0' || anew);
		free(got);
		if (!anew) {
			free(want);
			want = xasprintf("opencode.%d opencode.%d ", TURNS, TURNS + 1);
		}
		check_names(db, want);
		free(want);
		free(db);
	}
	obeys_modes = false;
	end_world();
}

TEST(a_session_that_is_killed_at_any_instant_leaves_a_whole_set)
{
	kill_at_any_instant(false);
}

TEST(so_does_one_that_could_not_read_the_last_one)
{
	kill_at_any_instant(true);
}

TEST(of_two_sessions_at_once_nothing_is_lost)
{
	static const char *const a_lives[] = { "a", NULL }, *const both[] = { "a", "b", NULL };
	struct session a, b, c;
	struct answer said;

	begin_world();
	a = begin("a");
	b = begin_with("b", a_lives);
	add_rows(a.dir, 1);
	add_rows(b.dir, 2);
	for (int i = 0; i < 3; i++) {
		kept(&a);
		kept(&b);
	}
	check_sets("opencode.1.a opencode.1.b ");
	CHECK(row_count("opencode.1.a") == 1 && row_count("opencode.1.b") == 2);
	/* Both live, so none of theirs is taken over. */
	c = begin_with("c", both);
	check_names(c.dir, "");
	(void)end(&c);
	c = begin_with("c", NULL);
	check_names(c.dir, "");
	(void)end(&c);
	CHECK_STR(end(&a).log, "");
	check_sets("opencode.1 opencode.1.b ");
	add_rows(b.dir, 2);
	kept(&b);
	CHECK(row_count("opencode.1.b") == 4);
	said = end(&b);
	CHECK(strstr(said.log, "another session has saved the databases of opencode meanwhile; those of this one are db/opencode.1.b"));
	check_sets("opencode.1 opencode.1.b ");
	CHECK(row_count("opencode.1") == 1 && row_count("opencode.1.b") == 4);
	c = begin("c");
	CHECK_INT(rows(c.dir, ""), ==, 1);
	(void)end(&c);
	end_world();
}

TEST(of_two_sessions_the_killed_one_s_is_what_is_gone_on_with)
{
	static const char *const b_lives[] = { "b", NULL };
	struct session a, b, c;
	struct answer said;

	begin_world();
	a = begin("a");
	b = begin_with("b", (const char *const[]){ "a", NULL });
	add_rows(a.dir, 1);
	add_rows(b.dir, 2);
	kept(&a);
	kept(&b);
	killed(&a);
	c = begin_with("c", b_lives);
	CHECK_INT(rows(c.dir, ""), ==, 1);
	check_sets("opencode.1 opencode.1.b ");
	/* The other one goes on, and is told at its end. */
	add_rows(b.dir, 2);
	kept(&b);
	add_rows(c.dir, 5);
	said = end(&c);
	CHECK_STR(said.log, "");
	check_sets("opencode.1 opencode.1.b opencode.2 ");
	/* It is kept beside the last set, wherever that is by now, so that it is not what is removed next. */
	add_rows(b.dir, 1);
	said = end(&b);
	CHECK(strstr(said.log, "db/opencode.2.b"));
	check_sets("opencode.1 opencode.2 opencode.2.b ");
	CHECK(row_count("opencode.2") == 6 && row_count("opencode.2.b") == 5);
	end_world();
}

TEST(of_two_killed_sessions_the_younger_one_s_is_gone_on_with_and_the_other_kept)
{
	struct session a, b;

	begin_world();
	a = begin("a");
	b = begin_with("b", (const char *const[]){ "a", NULL });
	add_rows(a.dir, 1);
	add_rows(b.dir, 2);
	kept(&b);
	(void)usleep(20000);
	kept(&a);
	killed(&a);
	killed(&b);
	a = begin("c");
	CHECK_INT(rows(a.dir, ""), ==, 1);
	check_sets("opencode.1 opencode.1.b ");
	add_rows(a.dir, 1);
	(void)end(&a);
	check_sets("opencode.1 opencode.1.b opencode.2 ");
	CHECK_INT(row_count("opencode.1.b"), ==, 2);
	end_world();
}

TEST(at_an_instant_between_two_renames_the_older_set_counts)
{
	char *name, *old, *begun;
	struct session s;

	begin_world();
	s = begin("a");
	add_rows(s.dir, 1);
	kept(&s);
	killed(&s);
	name = files_at(state, "db/opencode.1.a");
	old = files_at(state, "db/opencode.1.a.old");
	begun = files_at(state, "db/.opencode.new.a");
	CHECK(rename(name, old) == 0 && mkdir(begun, 0700) == 0);
	s = begin_with("b", (const char *const[]){ "a", NULL });
	check_names(s.dir, "");
	check_sets(".opencode.new.a opencode.1.a.old ");
	killed(&s);
	s = begin("b");
	CHECK_INT(rows(s.dir, ""), ==, 1);
	check_sets("opencode.1 ");
	kept(&s);
	killed(&s);
	/* And with both there, the one that was to go, perhaps half gone, does not. */
	free(old);
	old = files_at(state, "db/opencode.2.b.old");
	CHECK_INT(mkdir(old, 0700), ==, 0);
	s = begin("c");
	CHECK_INT(rows(s.dir, ""), ==, 1);
	killed(&s);
	free(name);
	free(old);
	free(begun);
	end_world();
}

TEST(a_locked_database_is_waited_for_a_while_and_the_last_set_stays)
{
	struct session s;
	struct answer a;
	int64_t start;
	sqlite3 *db;

	begin_world();
	s = begin("a");
	db = db_open(s.dir, "opencode.db");
	sql(db, "CREATE TABLE t(n INTEGER PRIMARY KEY, s); CREATE TABLE u(n INTEGER PRIMARY KEY)");
	sql(db, ROW);
	kept(&s);
	sql(db, "BEGIN EXCLUSIVE; INSERT INTO t(s) VALUES(1)");
	start = now_ns();
	a = ask(&s, 'k');
	CHECK_INT(a.r, ==, -EIO);
	CHECK_STR(a.why, "opencode.db: database is locked");
	CHECK_INT(now_ns() - start, <, (int64_t)60 * 1000000000);
	CHECK_INT(row_count("opencode.1.a"), ==, 1);
	sql(db, "INSERT INTO u DEFAULT VALUES; COMMIT");
	kept(&s);
	CHECK_INT(row_count("opencode.1.a"), ==, 2);
	(void)sqlite3_close(db);
	killed(&s);
	end_world();
}

TEST(what_is_no_database_is_copied_as_it_lies_or_left_out)
{
	struct session s;
	char *set;

	begin_world();
	s = begin("a");
	add_rows(s.dir, 1);
	files_write(s.dir, "notes.db", "text");
	files_write(s.dir, "notes.db-wal", "more");
	files_write(s.dir, "empty.sqlite", "");
	files_sh(s.dir, "printf 'SQLite format 3\\000%0200d' 0 > bad.db; mkfifo fifo.db; ln -s /etc/passwd link.db; ln -s opencode.db another.db; mkdir dir.db; echo x > other");
	kept(&s);
	set = files_at(state, "db/opencode.1.a");
	check_names(set, "bad.db empty.sqlite notes.db notes.db-wal opencode.db ");
	files_sh(set, "cmp notes.db ../../../a/opencode/notes.db && cmp bad.db ../../../a/opencode/bad.db && [ $(cat notes.db-wal) = more ]");
	CHECK_INT(row_count("opencode.1.a"), ==, 1);
	free(set);
	killed(&s);
	end_world();
}

/* A backup looks at no table. VACUUM INTO would make the text of the first one's index, 900 MB, and find no schema in the second
 * one; what SQLite does not take at all is copied byte for byte, so that the schema's number, which a backup changes, tells. */
TEST(a_hostile_schema_runs_nothing)
{
	struct session s;
	sqlite3 *db;
	char *set;

	begin_world();
	s = begin("a");
	db = db_open(s.dir, "opencode.db");
	sql(db, "CREATE TABLE t(n INTEGER PRIMARY KEY, s DEFAULT (randomblob(1000000000)), g AS (zeroblob(1000000000)));"
		"CREATE INDEX i ON t(n); INSERT INTO t VALUES(1, 1); CREATE VIEW v AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x FROM r) SELECT x FROM r;"
		"CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO t(s) SELECT x FROM v; END;"
		"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE INDEX i ON t(hex(zeroblob(450000000)))' WHERE name='i'");
	(void)sqlite3_close(db);
	db = db_open(s.dir, "broken.db");
	sql(db, "CREATE TABLE t(n); PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES('table','x','x',0,'CREATE VIRTUAL TABLE x USING nosuch(load_extension)');"
		"UPDATE sqlite_schema SET sql='CREATE NONSENSE' WHERE name='t'");
	(void)sqlite3_close(db);
	kept(&s);
	set = files_at(state, "db/opencode.1.a");
	files_sh(set, "for f in opencode.db broken.db; do cmp -i 100 $f ../../../a/opencode/$f || exit 1; ! cmp -s $f ../../../a/opencode/$f || exit 1; done");
	free(set);
	killed(&s);
	end_world();
}

TEST(a_set_that_is_too_large_is_not_taken_out)
{
	struct session s;
	struct answer a;

	begin_world();
	s = begin("a");
	add_rows(s.dir, 1);
	kept(&s);
	files_sh(s.dir, "truncate -s 200M two.db; truncate -s 57M three.db");
	a = ask(&s, 'k');
	CHECK_INT(a.r, ==, -EIO);
	CHECK(strstr(a.why, ".db: larger than what is saved while a session runs"));
	check_sets("opencode.1.a ");
	CHECK_INT(row_count("opencode.1.a"), ==, 1);
	files_sh(s.dir, "rm two.db");
	kept(&s);
	killed(&s);
	end_world();
}

/* A mount namespace of this program's own, for all tests that come. */
static void own_mounts(void)
{
	static bool done;
	uid_t uid = getuid();
	gid_t gid = getgid();
	char map[32];

	if (done)
		return;
	done = true;
	if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) < 0)
		fail_msg("no mount namespace can be made: %s", strerror(errno));
	if (uid != 0) {
		own_net_write("/proc/self/setgroups", "deny");
		(void)snprintf(map, sizeof(map), "0 %u 1", uid);
		own_net_write("/proc/self/uid_map", map);
		(void)snprintf(map, sizeof(map), "0 %u 1", gid);
		own_net_write("/proc/self/gid_map", map);
	}
	CHECK_INT(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), ==, 0);
}

TEST(on_a_full_disk_the_last_set_stays_and_nothing_else)
{
	own_mounts();
	for (int i = 0; i < 2; i++) {
		struct session s;
		struct answer a;
		char *disk, *local;

		begin_world();
		local = files_at(top, "a");
		disk = i == 0 ? local : state;
		CHECK(mkdir(local, 0700) == 0 && mount("tmpfs", disk, "tmpfs", 0, "size=2m,mode=0700") == 0);
		s = begin("a");
		add_rows(s.dir, 1);
		kept(&s);
		{
			sqlite3 *db = db_open(s.dir, "opencode.db");

			sql(db, "INSERT INTO t(s) VALUES(zeroblob(600000))");
			(void)sqlite3_close(db);
		}
		files_sh(disk, i == 0 ? "head -c 1300000 /dev/zero > fill" : "head -c 1600000 /dev/zero > fill");
		a = ask(&s, 'k');
		if (i == 0)
			CHECK_STR(a.why, "opencode.db: database or disk is full");
		CHECK_INT(a.r, ==, i == 0 ? -EIO : -ENOSPC);
		check_sets("opencode.1.a ");
		CHECK_INT(row_count("opencode.1.a"), ==, 1);
		check_names(local, i == 0 ? "copilot fill opencode " : "copilot opencode ");
		/* At the end neither: what was saved while it ran is what the next session begins with. */
		if (i == 1) {
			a = end(&s);
			CHECK(strstr(a.log, "the databases of opencode cannot be saved: No space left on device; the last set is kept"));
			files_sh(disk, "rm fill");
			s = begin("b");
			CHECK_INT(rows(s.dir, ""), ==, 1);
		}
		killed(&s);
		CHECK_INT(umount2(disk, MNT_DETACH), ==, 0);
		free(local);
		end_world();
	}
}

/* --- a set that cannot be loaded --- */

#define MANY 600 /* rows, of 1.5 KB */

/* A session whose disk has no room for them. */
static struct session begin_small(const char *name, const char *const *live)
{
	char *local = files_at(top, name);

	CHECK(mkdir(local, 0700) == 0 && mount("tmpfs", local, "tmpfs", 0, "size=400k,mode=0700") == 0);
	free(local);
	return begin_with(name, live);
}

/* Two sets, the last one with MANY rows. */
static void save_two(void)
{
	for (int i = 0; i < 2; i++) {
		struct session s = begin(i == 0 ? "one" : "two");

		add_rows(s.dir, i == 0 ? MANY - 1 : 1);
		CHECK_STR(end(&s).log, "");
	}
	check_sets("opencode.1 opencode.2 ");
}

static void end_small(const char *const *names)
{
	for (; *names; names++) {
		char *local = files_at(top, *names);

		CHECK_INT(umount2(local, MNT_DETACH), ==, 0);
		free(local);
	}
	end_world();
}

TEST(a_set_without_room_for_it_outlives_each_session_and_what_those_begin_lies_beside)
{
	struct session s, b;
	struct answer said;

	own_mounts();
	begin_world();
	save_two();
	s = begin_small("a", alone);
	check_names(s.dir, "");
	add_rows(s.dir, 1);
	kept(&s);
	check_sets("opencode.1 opencode.2 opencode.anew.a ");
	add_rows(s.dir, 1);
	said = end(&s);
	CHECK(strstr(said.log, "the databases of opencode could not be read: no space left (a larger --disk would do); they stay in db/opencode.2 in the "
			       "project's state until a session has read them or you remove them; those of this session are db/opencode.anew.a"));
	CHECK(!strstr(said.log, "another session"));
	check_sets("opencode.1 opencode.2 opencode.anew.a ");
	/* Killed before it has saved, killed behind that, and one that changes nothing: each goes on with the last one's. */
	s = begin_small("b", alone);
	CHECK_INT(rows(s.dir, ""), ==, 2);
	killed(&s);
	check_sets("opencode.1 opencode.2 opencode.anew.b ");
	s = begin_small("c", alone);
	add_rows(s.dir, 1);
	kept(&s);
	killed(&s);
	s = begin_small("d", alone);
	CHECK_INT(rows(s.dir, ""), ==, 3);
	said = end(&s);
	CHECK(strstr(said.log, "they stay in db/opencode.2 "));
	check_sets("opencode.1 opencode.2 opencode.anew.d ");
	/* Two at once. */
	s = begin_small("e", alone);
	b = begin_small("f", (const char *const[]){ "e", NULL });
	CHECK_INT(rows(s.dir, ""), ==, 3);
	check_names(b.dir, "");
	add_rows(b.dir, 7);
	add_rows(s.dir, 1);
	(void)end(&b);
	(void)end(&s);
	check_sets("opencode.1 opencode.2 opencode.anew.e opencode.anew.f ");
	s = begin_small("g", alone);
	CHECK_INT(rows(s.dir, ""), ==, 4);
	(void)end(&s);
	check_sets("opencode.1 opencode.2 opencode.anew.g ");
	/* With room it is the same as ever, however often; the other one stays. */
	for (int i = 0; i < 3; i++) {
		const char *const name[] = { "h", "i", "j" };

		s = begin(name[i]);
		CHECK_INT(rows(s.dir, ""), ==, MANY + i);
		CHECK(strstr(s.log, "db/opencode.anew.g in the project's state has the databases that opencode began anew"));
		add_rows(s.dir, 1);
		CHECK_STR(end(&s).log, "");
	}
	check_sets("opencode.4 opencode.5 opencode.anew.g ");
	CHECK_INT(row_count("opencode.anew.g"), ==, 4);
	end_small((const char *const[]){ "a", "b", "c", "d", "e", "f", "g", NULL });
}

TEST(beside_a_session_that_has_loaded_it_one_that_has_not_is_in_nobody_s_way)
{
	static const char *const a_lives[] = { "a", NULL };
	struct session a, b;

	own_mounts();
	begin_world();
	save_two();
	a = begin("a");
	b = begin_small("b", a_lives);
	add_rows(a.dir, 1);
	add_rows(b.dir, 2);
	kept(&a);
	kept(&b);
	check_sets("opencode.2 opencode.3.a opencode.anew.b ");
	killed(&a);
	killed(&b);
	a = begin_small("c", alone);
	CHECK_INT(rows(a.dir, ""), ==, 2);
	CHECK(strstr(end(&a).log, "they stay in db/opencode.3 "));
	check_sets("opencode.2 opencode.3 opencode.anew.c ");
	/* Those that a person removes are none any more, and the last of all is what was begun anew. */
	files_sh(state, "rm -r db/opencode.3");
	a = begin("d");
	CHECK_INT(rows(a.dir, ""), ==, MANY);
	(void)end(&a);
	files_sh(state, "rm -r db/opencode.2");
	a = begin("e");
	CHECK_INT(rows(a.dir, ""), ==, 2);
	add_rows(a.dir, 1);
	CHECK_STR(end(&a).log, "");
	check_sets("opencode.1 opencode.2 ");
	end_small((const char *const[]){ "b", "c", NULL });
}

TEST(a_set_that_cannot_be_read_or_is_damaged_is_kept)
{
	static const struct {
		const char *how, *why, *back;
	} turns[] = {
		{ "chmod 0 db/opencode.2/opencode.db", "Permission denied", "chmod 600 db/opencode.2/opencode.db" },
		{ "chmod 0 db/opencode.2", "Permission denied", "chmod 700 db/opencode.2" },
		{ "mv db/opencode.2 keep; mkfifo db/opencode.2", "Not a directory", "rm db/opencode.2; mv keep db/opencode.2" },
		{ "chmod 300 db", "Permission denied", "chmod 700 db" },
		{ "truncate -s 4T db/opencode.2/more.db", "File too large", "rm db/opencode.2/more.db" },
		{ "cp -r db/opencode.2 keep; truncate -s -4096 db/opencode.2/opencode.db", "a database is damaged", "rm -r db/opencode.2; mv keep db/opencode.2" },
		{ "cp -r db/opencode.2 keep; truncate -s 50 db/opencode.2/opencode.db", "a database is damaged", "rm -r db/opencode.2; mv keep db/opencode.2" },
		{ "head -c 8192 /dev/zero > db/opencode.2/zeros.sqlite", "a database is damaged", "rm db/opencode.2/zeros.sqlite" },
	};

	obeys_modes = true;
	for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
		const char *const three[] = { "a", "b", "c" };
		struct session s;

		begin_world();
		save_two();
		files_sh(state, turns[i].how);
		for (int k = 0; k < 3; k++) {
			bool lists = strstr(turns[i].how, "300") == NULL;
			struct answer said;

			s = begin(three[k]);
			if (lists && k > 0)
				CHECK_INT(rows(s.dir, ""), ==, k);
			else
				check_names(s.dir, "");
			add_rows(s.dir, 1);
			if (lists)
				kept(&s);
			said = end(&s);
			if (!strstr(said.log, turns[i].why) || !strstr(said.log, lists ? "they stay in db/opencode.2 " : "they stay in db "))
				fail_msg("%s: %s", turns[i].how, said.log);
		}
		files_sh(state, turns[i].back);
		s = begin("d");
		CHECK_INT(rows(s.dir, ""), ==, MANY);
		killed(&s);
		end_world();
	}
	obeys_modes = false;
}

TEST(the_first_one_that_was_begun_anew_and_cannot_be_read_either_is_kept)
{
	struct session s;

	begin_world();
	obeys_modes = true;
	save_two();
	files_sh(state, "chmod 0 db/opencode.2/opencode.db");
	s = begin("a");
	add_rows(s.dir, 5);
	(void)end(&s);
	files_sh(state, "chmod 0 db/opencode.anew.a/opencode.db");
	s = begin("b");
	CHECK(strstr(s.log, "the databases of opencode in db/opencode.anew-kept in the project's state could not be read: Permission denied"));
	check_names(s.dir, "");
	add_rows(s.dir, 1);
	(void)end(&s);
	check_sets("opencode.1 opencode.2 opencode.anew-kept opencode.anew.b ");
	files_sh(state, "chmod 0 db/opencode.anew.b/opencode.db");
	s = begin("c");
	CHECK(strstr(s.log, "in db/opencode.anew.b in the project's state could not be read"));
	add_rows(s.dir, 2);
	(void)end(&s);
	check_sets("opencode.1 opencode.2 opencode.anew-kept opencode.anew.b opencode.anew.c ");
	s = begin("d");
	CHECK_INT(rows(s.dir, ""), ==, 2);
	(void)end(&s);
	check_sets("opencode.1 opencode.2 opencode.anew-kept opencode.anew.d ");
	files_sh(state, "chmod 600 db/opencode.anew-kept/opencode.db");
	CHECK_INT(row_count("opencode.anew-kept"), ==, 5);
	obeys_modes = false;
	end_world();
}

TEST(a_folder_that_cannot_be_listed_is_not_an_empty_one)
{
	for (int i = 0; i < 2; i++) {
		struct session s;
		struct answer said;

		begin_world();
		if (i == 0)
			save_two();
		else
			files_sh(state, "mkdir opencode; echo old > opencode/opencode.db");
		cannot_list = true;
		s = begin("a");
		cannot_list = false;
		said = end(&s);
		CHECK(strstr(said.log, i == 0 ? "could not be read: Input/output error; they stay in db in" :
						"could not be read: Input/output error; they stay in opencode in"));
		if (i == 0)
			check_sets("opencode.1 opencode.2 ");
		s = begin("b");
		check_sets(i == 0 ? "opencode.1 opencode.2 " : "opencode.1 ");
		check_names(s.dir, "opencode.db ");
		killed(&s);
		end_world();
	}
}

TEST(what_a_log_may_mend_and_what_is_no_database_is_not_damaged)
{
	struct session s;

	begin_world();
	files_sh(state, "mkdir -p db/opencode.1; cd db/opencode.1; echo text > a.db; : > b.db; printf 'SQLite format 3' > c.db; printf x > d.db-wal;"
			"{ printf 'SQLite format 3\\0\\020\\0\\001\\001\\0\\100\\040\\040\\0\\0\\0\\0\\0\\0\\0\\011'; head -c 4064 /dev/zero; } > d.db; cp d.db e.db; printf x > e.db-journal");
	s = begin("a");
	check_names(s.dir, "a.db b.db c.db d.db d.db-wal e.db e.db-journal ");
	killed(&s);
	files_sh(state, "rm db/opencode.1/d.db-wal");
	s = begin("b");
	check_names(s.dir, "");
	killed(&s);
	end_world();
}

TEST(a_transaction_that_is_half_written_at_the_end_is_undone_in_the_next_session)
{
	struct session s;
	sqlite3 *db;
	pid_t pid;

	begin_world();
	s = begin("a");
	db = db_open(s.dir, "opencode.db");
	sql(db, "CREATE TABLE t(n INTEGER PRIMARY KEY, s); CREATE TABLE u(n INTEGER PRIMARY KEY)");
	for (int i = 0; i < 50; i++)
		sql(db, ROW);
	(void)sqlite3_close(db);
	pid = fork();
	if (pid == 0) {
		db = db_open(s.dir, "opencode.db");
		sql(db, "PRAGMA cache_size=2; BEGIN; UPDATE t SET s=zeroblob(5000)");
		(void)raise(SIGKILL);
	}
	CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
	check_names(s.dir, "opencode.db opencode.db-journal ");
	CHECK_STR(end(&s).log, "");
	s = begin("b");
	CHECK_INT(rows(s.dir, ""), ==, 50);
	db = db_open(s.dir, "opencode.db");
	CHECK_INT(number(db, "SELECT count(*) FROM t WHERE s = zeroblob(5000)"), ==, 0);
	(void)sqlite3_close(db);
	killed(&s);
	end_world();
}

TEST(a_file_in_the_place_of_the_link_is_never_lost)
{
	struct session s;
	struct answer said;

	own_mounts();
	begin_world();
	/* The older program's, without room for it: it is tried again until it is a set. */
	files_sh(state, "mkdir copilot; head -c 600000 /dev/urandom > copilot/session-store.db; echo log > copilot/session-store.db-wal; cp -r copilot ../was");
	for (int i = 0; i < 3; i++) {
		s = begin_small(i == 0 ? "a" : i == 1 ? "b" : "c", alone);
		CHECK(strstr(s.log, "copilot/session-store.db was in no saved set; it is kept as session-store.db.agent-vm-bad"));
		files_sh(state, "cd copilot; echo new > $(readlink session-store.db); cmp session-store.db.agent-vm-bad ../../was/session-store.db && cmp session-store.db.agent-vm-bad-wal ../../was/session-store.db-wal");
		said = end(&s);
		CHECK(strstr(said.log, "they stay in copilot in the project's state"));
	}
	check_sets("copilot.anew.c ");
	s = begin("d");
	files_sh(state, "cmp db/copilot.1/session-store.db ../was/session-store.db && cmp db/copilot.1/session-store.db-wal ../was/session-store.db-wal && [ -L copilot/session-store.db ]");
	CHECK(strstr(s.log, "db/copilot.anew.c in the project's state has"));
	CHECK_STR(end(&s).log, "");
	/* And one that a program has made there since. */
	files_sh(state, "rm copilot/session-store.db; echo mine > copilot/session-store.db");
	s = begin("e");
	CHECK(strstr(s.log, "copilot/session-store.db was in no saved set; it is kept as session-store.db.agent-vm-bad"));
	files_sh(state, "[ -L copilot/session-store.db ] && [ $(cat copilot/session-store.db.agent-vm-bad) = mine ]");
	(void)end(&s);
	end_small((const char *const[]){ "a", "b", "c", NULL });
}

TEST(what_the_older_program_left_is_saved_later_if_there_is_no_room_at_first)
{
	struct session s;

	own_mounts();
	begin_world();
	CHECK_INT(mount("tmpfs", state, "tmpfs", 0, "size=1m,mode=0700"), ==, 0);
	files_sh(state, "mkdir copilot db; echo mine > copilot/session-store.db; head -c 2M /dev/zero > fill 2>/dev/null; [ -s fill ]");
	s = begin("a");
	files_sh(state, "rm fill");
	CHECK_STR(end(&s).log, "");
	check_sets("copilot.1 ");
	files_sh(state, "[ $(cat db/copilot.1/session-store.db) = mine ]");
	CHECK_INT(umount2(state, MNT_DETACH), ==, 0);
	end_world();
}

TEST(a_look_sees_each_change)
{
	struct dbset_look a, b;
	int dir;

	begin_world();
	dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK_INT(dir, >=, 0);
	a = dbset_look(dir);
	files_write(top, "other", "x");
	CHECK(a.sum == dbset_look(dir).sum);
	files_write(top, "x.db", "one");
	b = dbset_look(dir);
	CHECK(a.sum != b.sum && b.bytes == 3);
	(void)usleep(20000);
	files_write(top, "x.db", "two");
	a = dbset_look(dir);
	CHECK(a.sum != b.sum && a.bytes == 3);
	files_write(top, "x.db-wal", "");
	b = dbset_look(dir);
	CHECK(a.sum != b.sum);
	files_sh(top, "mv x.db y.db");
	CHECK(b.sum != dbset_look(dir).sum);
	(void)close(dir);
	end_world();
}
