#include "state.h"

#include "session/seed.h"

static void begin(struct state *t, struct session *s)
{
	struct err err;

	if (session_create(s, &t->root, &t->project, "shell", NULL, &err) < 0)
		fail_msg("%s", err.text);
}

static void take(const struct session *s, uint8_t seed[SEED_BYTES])
{
	struct err err;

	if (seed_take(s, seed, &err) < 0)
		fail_msg("%s", err.text);
}

static void end(struct session *s)
{
	seed_drop(s);
	CHECK_INT(session_end(s, SESSION_EXIT, 0, NULL), ==, 0);
	session_done(s);
}

static char *record(struct state *t)
{
	char *text;

	CHECK_INT(file_read_beneath(t->root.projects_fd, t->project.hash, 1 << 16, &text, NULL), ==, 0);
	return text;
}

TEST(sessions_that_overlap_share_a_seed_and_the_next_has_another)
{
	struct session a = SESSION_INIT, b = SESSION_INIT, c = SESSION_INIT, d = SESSION_INIT;
	uint8_t seeds[4][SEED_BYTES], zero[SEED_BYTES] = { 0 };
	AUTO_FREE(char, text);
	struct state t;

	state_begin(&t);
	begin(&t, &a);
	take(&a, seeds[0]);
	CHECK(memcmp(seeds[0], zero, SEED_BYTES) != 0);
	begin(&t, &b);
	take(&b, seeds[1]);
	CHECK(memcmp(seeds[0], seeds[1], SEED_BYTES) == 0);
	/* The one that drew it is gone, but not all who use it. */
	end(&a);
	begin(&t, &c);
	take(&c, seeds[2]);
	CHECK(memcmp(seeds[0], seeds[2], SEED_BYTES) == 0);
	end(&b);
	end(&c);
	text = record(&t);
	CHECK(!strstr(text, "seed") && strstr(text, "first_use") && strstr(text, t.project.path));
	begin(&t, &d);
	take(&d, seeds[3]);
	CHECK(memcmp(seeds[0], seeds[3], SEED_BYTES) != 0);
	end(&d);
	state_end(&t);
}

TEST(a_seed_of_killed_sessions_is_not_taken)
{
	struct session a = SESSION_INIT, b = SESSION_INIT;
	uint8_t seeds[2][SEED_BYTES];
	struct state t;

	state_begin(&t);
	begin(&t, &a);
	take(&a, seeds[0]);
	(void)close(a.lock_fd); /* what a death does */
	a.lock_fd = -1;
	begin(&t, &b);
	take(&b, seeds[1]);
	CHECK(memcmp(seeds[0], seeds[1], SEED_BYTES) != 0);
	end(&b);
	session_done(&a);
	state_end(&t);
}

TEST(a_session_without_a_seed_takes_none_from_a_dead_one)
{
	struct session a = SESSION_INIT, b = SESSION_INIT, c = SESSION_INIT;
	uint8_t seeds[2][SEED_BYTES];
	struct state t;

	state_begin(&t);
	begin(&t, &a);
	take(&a, seeds[0]);
	(void)close(a.lock_fd);
	a.lock_fd = -1;
	begin(&t, &b); /* alive, but uses none */
	begin(&t, &c);
	take(&c, seeds[1]);
	CHECK(memcmp(seeds[0], seeds[1], SEED_BYTES) != 0);
	end(&c);
	end(&b);
	session_done(&a);
	state_end(&t);
}
