/* What a pull shows on a terminal, without one, with --quiet and with --json. */
#include "test.h"

#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/pull_progress.h"

#define ROWS 24
#define COLUMNS 100

static char out[65536], errs[262144];

/* One reader for both ends: a terminal that nobody reads would hold the child. */
static void collect(int out_fd, int err_fd)
{
	size_t n_out = 0, n_err = 0;
	bool open_out = true, open_err = true;

	while (open_out || open_err) {
		struct pollfd p[2] = { { open_out ? out_fd : -1, POLLIN, 0 }, { open_err ? err_fd : -1, POLLIN, 0 } };
		ssize_t k;

		CHECK(poll(p, 2, 60000) > 0);
		if (p[0].revents) {
			k = read(out_fd, out + n_out, sizeof(out) - 1 - n_out);
			open_out = k > 0;
			n_out += k > 0 ? (size_t)k : 0;
		}
		if (p[1].revents) {
			k = read(err_fd, errs + n_err, sizeof(errs) - 1 - n_err);
			open_err = k > 0;
			n_err += k > 0 ? (size_t)k : 0;
		}
	}
	out[n_out] = '\0';
	errs[n_err] = '\0';
}

/* A pull of five layers as image_pull() would tell it, in a second and a half. */
static void play(bool quiet, bool json, bool fails)
{
	struct pull_layer layers[5] = { 0 };
	struct pull_state st = { .reference = "example.org/x:1", .layers = layers, .n_layers = ARRAY_SIZE(layers),
				 .entry = "usr/lib/x86_64-linux-gnu/\\x1b[2J/\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6",
				 .began_ns = now_ns() };
	struct pull_result res = { .reference = (char *)"example.org/x:1", .n_layers = 5, .n_new = 4, .loaded = 4000000,
				   .disk_allocated = 9000000, .elapsed_ms = 1500, .made = true };
	struct pull_view v;

	for (size_t i = 0; i < ARRAY_SIZE(layers); i++) {
		memset(layers[i].blob, (int)('a' + i), IMAGE_HEX);
		layers[i].bytes = 1000000;
	}
	layers[0].got = layers[0].had = 1000000;
	memset(st.served, 'f', IMAGE_HEX);
	memset(res.digest, 'f', IMAGE_HEX);
	memset(res.was, 'e', IMAGE_HEX);
	pull_view_init(&v, "example.org/x:1\x1b]0;title\x07", quiet, json);
	pull_view_progress(&v, &st, PULL_TICK, 0);
	pull_view_progress(&v, &st, PULL_KNOWN, 0);
	layers[0].loaded = true;
	pull_view_progress(&v, &st, PULL_LAYER_IN, 0);
	for (int step = 1; step <= 12; step++) {
		usleep(110000);
		for (size_t i = 1; i < ARRAY_SIZE(layers); i++)
			layers[i].got = MIN((uint64_t)step * 100000, layers[i].bytes);
		layers[0].unpacked = layers[0].got / 2;
		pull_view_progress(&v, &st, PULL_TICK, 0);
		if (fails && step == 6) {
			progress_error(&v.p, "image example.org/x:1: it broke; try again");
			pull_view_done(&v);
			return;
		}
	}
	for (size_t i = 1; i < ARRAY_SIZE(layers); i++) {
		layers[i].loaded = true;
		pull_view_progress(&v, &st, PULL_LAYER_IN, i);
	}
	for (size_t i = 0; i < ARRAY_SIZE(layers); i++)
		layers[i].done = true;
	st.unpacking = 5;
	pull_view_progress(&v, &st, PULL_DISK_MADE, 0);
	pull_view_result(&v, &res, false);
	pull_view_done(&v);
}

static void show(bool tty, unsigned short columns, bool quiet, bool json, bool fails)
{
	struct winsize ws = { .ws_row = ROWS, .ws_col = columns };
	int o[2], e[2], master = -1, status;
	pid_t pid;

	CHECK_INT(pipe2(o, O_CLOEXEC), ==, 0);
	CHECK_INT(pipe2(e, O_CLOEXEC), ==, 0);
	if (tty) {
		close(e[1]);
		close(e[0]);
		master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
		CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
		CHECK_INT(ioctl(master, TIOCSWINSZ, &ws), ==, 0);
		e[0] = master;
		e[1] = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
		CHECK(e[1] >= 0);
	}
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		dup2(o[1], STDOUT_FILENO);
		dup2(e[1], STDERR_FILENO);
		play(quiet, json, fails);
		(void)fflush(stdout);
		_exit(0);
	}
	close(o[1]);
	close(e[1]);
	collect(o[0], e[0]);
	close(o[0]);
	close(e[0]);
	CHECK_INT(waitpid(pid, &status, 0), ==, pid);
	CHECK_INT(status, ==, 0);
}

/* A terminal's screen after these bytes; only what we send is understood, anything else fails. */
static char screen[200][512];
static size_t row, col, rows_used, widest;

static void terminal(const char *s)
{
	memset(screen, 0, sizeof(screen));
	row = col = rows_used = widest = 0;
	while (*s) {
		unsigned n = 0;
		int used = 0;

		if (*s == '\r') {
			col = 0;
			s++;
		} else if (*s == '\n') {
			row++;
			s++;
		} else if (sscanf(s, "\033[%uA%n", &n, &used) == 1 && used > 0) {
			CHECK(row >= n);
			row -= n;
			s += used;
		} else if (strncmp(s, "\033[J", 3) == 0) {
			memset(&screen[row][col], 0, sizeof(screen[row]) - col);
			for (size_t i = row + 1; i < ARRAY_SIZE(screen); i++)
				memset(screen[i], 0, sizeof(screen[i]));
			s += 3;
		} else {
			CHECK((unsigned char)*s >= 0x20 && (unsigned char)*s != 0x7f);
			screen[row][col++] = *s++;
			widest = MAX(widest, col);
		}
		CHECK(row < ARRAY_SIZE(screen) && col < sizeof(screen[0]));
		rows_used = MAX(rows_used, row + 1);
	}
}

TEST(a_terminal_gets_a_block_that_is_gone_at_the_end)
{
	show(true, COLUMNS, false, false, false);
	CHECK_STR(out, "example.org/x:1 ffffffffffff (was eeeeeeeeeeee; 4 of 5 layers new, 4.0 MB in 1.5 s)\n");
	terminal(errs);
	CHECK_STR(screen[0], "==> example.org/x:1\\x1b]0;title\\x07");
	for (size_t i = 1; i < ARRAY_SIZE(screen); i++)
		CHECK_STR(screen[i], "");
	/* the header, one line of what is done, four layers, the disk, the total, and where the cursor went */
	CHECK_INT(rows_used, >=, 8);
	CHECK_INT(rows_used, <=, 9);
	CHECK_INT(widest, <, COLUMNS);
	CHECK(strstr(errs, "1 of 5 layers done"));
	CHECK(strstr(errs, "bbbbbbbbbbbb  [###"));
	CHECK(strstr(errs, "layer 1 of 5, usr/lib"));
	CHECK(strstr(errs, " s left"));
	CHECK(strstr(errs, "MB/s"));
}

TEST(a_narrow_terminal_is_not_wrapped_and_an_error_clears_it_too)
{
	show(true, 30, false, false, true);
	terminal(errs);
	CHECK_INT(widest, <=, strlen("agent-vm: image example.org/x:1: it broke; try again"));
	CHECK_STR(screen[1], "agent-vm: image example.org/x:1: it broke; try again");
	CHECK_STR(screen[2], "");
	CHECK_STR(out, "");
}

TEST(without_a_terminal_there_are_plain_lines)
{
	show(false, 0, false, false, false);
	CHECK(!strchr(errs, 0x1b) && !strchr(errs, '\r'));
	CHECK(strncmp(errs, "==> example.org/x:1\\x1b]0;title\\x07\n    ffffffffffff, 5 layers, 5.0 MB, 1.0 MB of it here\n", 80) == 0);
	CHECK(strstr(errs, "    layers    done in "));
	CHECK(strstr(errs, "    disk      done in "));
	CHECK_STR(out, "example.org/x:1 ffffffffffff (was eeeeeeeeeeee; 4 of 5 layers new, 4.0 MB in 1.5 s)\n");
}

TEST(quiet_is_the_result_and_errors)
{
	show(true, COLUMNS, true, false, false);
	CHECK_STR(errs, "");
	CHECK_STR(out, "example.org/x:1 ffffffffffff (was eeeeeeeeeeee; 4 of 5 layers new, 4.0 MB in 1.5 s)\n");
	show(false, 0, true, false, true);
	CHECK_STR(errs, "agent-vm: image example.org/x:1: it broke; try again\n");
	CHECK_STR(out, "");
}

/* Events by name, and that every line is an object with a name and the reference. */
static unsigned events(const char *name, json_t **ret_last)
{
	unsigned n = 0;
	char *copy = xstrdup(out), *save = NULL;

	*ret_last = NULL;
	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		json_t *j = json_loads(l, JSON_REJECT_DUPLICATES, NULL);

		if (!json_is_object(j))
			fail_msg("no object: %s", l);
		CHECK(json_is_string(json_object_get(j, "event")) && json_is_string(json_object_get(j, "reference")));
		if (strcmp(json_string_value(json_object_get(j, "event")), name) == 0) {
			json_decref(*ret_last);
			*ret_last = json_incref(j);
			n++;
		}
		json_decref(j);
	}
	free(copy);
	return n;
}

TEST(json_is_an_object_a_line)
{
	json_t *j;

	show(false, 0, true, true, false);
	CHECK_STR(errs, "");
	CHECK_INT(events("start", &j), ==, 1);
	CHECK_STR(json_string_value(json_object_get(j, "reference")), "example.org/x:1\\x1b]0;title\\x07");
	json_decref(j);
	CHECK_INT(events("manifest", &j), ==, 1);
	CHECK_INT(json_integer_value(json_object_get(j, "size")), ==, 5000000);
	json_decref(j);
	/* each layer at its end, those under way every second */
	CHECK_INT(events("layer", &j), >=, 5 + 4);
	CHECK_INT(json_integer_value(json_object_get(j, "got")), ==, 1000000);
	CHECK_INT(strlen(json_string_value(json_object_get(j, "digest"))), ==, 64);
	json_decref(j);
	CHECK_INT(events("disk", &j), >=, 2);
	CHECK_INT(json_integer_value(json_object_get(j, "got")), ==, 5);
	json_decref(j);
	CHECK_INT(events("done", &j), ==, 1);
	CHECK_INT(json_integer_value(json_object_get(j, "new")), ==, 4);
	CHECK_INT(json_integer_value(json_object_get(j, "got")), ==, 4000000);
	json_decref(j);
	show(false, 0, false, true, true);
	CHECK_INT(events("error", &j), ==, 1);
	CHECK_STR(json_string_value(json_object_get(j, "reason")), "image example.org/x:1: it broke; try again");
	json_decref(j);
	CHECK_INT(events("done", &j), ==, 0);
}

TEST(results)
{
	struct pull_result r = { .reference = (char *)"r:1", .n_layers = 3, .elapsed_ms = 2000 };
	char *text;

	memset(r.digest, '1', IMAGE_HEX);
	text = pull_result_text(&r);
	CHECK_STR(text, "r:1 111111111111 (new; its disk was there)");
	free(text);
	memset(r.was, '1', IMAGE_HEX);
	text = pull_result_text(&r);
	CHECK_STR(text, "r:1 111111111111 is up to date");
	free(text);
	r.made = true;
	text = pull_result_text(&r);
	CHECK_STR(text, "r:1 111111111111 (its disk was made again in 2.0 s)");
	free(text);
	r.was[0] = '\0';
	r.n_new = 3;
	r.loaded = 688000000;
	text = pull_result_text(&r);
	CHECK_STR(text, "r:1 111111111111 (new; 3 of 3 layers new, 688.0 MB in 2.0 s)");
	free(text);
}
