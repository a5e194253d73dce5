#include "session/made.h"

#include "files.h"
#include "state.h"

struct two {
	struct state t;
	char *git;
	struct guard g;
};

static void two_begin(struct two *w)
{
	struct findings found = { 0 };

	state_begin(&w->t);
	w->g = (struct guard){ 0 };
	files_sh(w->t.project.path, "git init -q . && rm -r .git/hooks && git config extensions.worktreeConfig true");
	w->git = files_at(w->t.project.path, ".git");
	CHECK_INT(guard_git(&w->g, w->git, NULL, false, &found), ==, 0);
	CHECK_INT(w->g.make.n, ==, 4);
	findings_done(&found);
}

static void two_end(struct two *w)
{
	guard_done(&w->g);
	free(w->git);
	state_end(&w->t);
}

static void take(struct two *w, const char *name)
{
	struct err err;

	if (made_take(&w->t.root, name, &w->g, &err) < 0)
		fail_msg("%s", err.text);
}

#define PRESENT "test -d .git/hooks && grep -qx '\\.' .git/commondir && test -f .git/config.worktree"
#define ABSENT "test ! -e .git/hooks && test ! -e .git/commondir && test ! -e .git/config.worktree"

TEST(what_was_made_goes_with_the_last_session_that_needs_it)
{
	struct two w;

	two_begin(&w);
	take(&w, "agent-vm-a");
	files_sh(w.t.project.path, PRESENT);
	take(&w, "agent-vm-b");
	made_drop(&w.t.root, "agent-vm-a");
	files_sh(w.t.project.path, PRESENT);
	made_drop(&w.t.root, "agent-vm-b");
	files_sh(w.t.project.path, ABSENT);
	files_sh(w.t.dir, "test ! -e agent-vm/run/made");
	/* Planned while another's were there, started when they are gone. */
	take(&w, "agent-vm-c");
	files_sh(w.t.project.path, PRESENT);
	made_drop(&w.t.root, "agent-vm-c");
	two_end(&w);
}

TEST(a_missing_config_is_kept_from_being_made)
{
	struct two w;

	two_begin(&w);
	files_sh(w.t.project.path, "rm .git/config");
	take(&w, "agent-vm-a");
	files_sh(w.t.project.path, "test -f .git/config && git status");
	made_drop(&w.t.root, "agent-vm-a");
	files_sh(w.t.project.path, "test ! -e .git/config");
	two_end(&w);
}

TEST(what_was_there_before_stays)
{
	struct two w;

	two_begin(&w);
	files_sh(w.t.project.path, "mkdir .git/hooks && touch .git/config.worktree");
	take(&w, "agent-vm-a");
	made_drop(&w.t.root, "agent-vm-a");
	files_sh(w.t.project.path, "test -d .git/hooks && test -f .git/config.worktree && test ! -e .git/commondir");
	two_end(&w);
}

TEST(what_somebody_filled_meanwhile_stays)
{
	struct two w;

	two_begin(&w);
	take(&w, "agent-vm-a");
	files_sh(w.t.project.path, "touch .git/hooks/mine && echo x > .git/commondir && rm .git/config.worktree && mkdir empty && "
				   "ln -s ../empty .git/config.worktree");
	made_drop(&w.t.root, "agent-vm-a");
	files_sh(w.t.project.path, "test -f .git/hooks/mine && grep x .git/commondir && test -L .git/config.worktree && test -d empty");
	two_end(&w);
}

TEST(a_dead_session_s_places_are_removed_by_the_reaper)
{
	char name[] = "agent-vm-0123456789ab-4711";
	struct two w;
	struct err err;

	two_begin(&w);
	take(&w, name);
	CHECK_INT(mkdirat(w.t.root.sessions_fd, name, 0700), ==, 0);
	CHECK_INT(registry_reap(&w.t.root, 100, NULL, &err), ==, 0);
	files_sh(w.t.project.path, ABSENT);
	two_end(&w);
}

TEST(a_broken_record_is_no_obstacle_and_a_newer_one_is_refused)
{
	struct two w;
	struct err err;

	two_begin(&w);
	files_write(w.t.dir, "agent-vm/run/made", "{\"version\": 1, \"made\": 7}");
	take(&w, "agent-vm-a");
	files_sh(w.t.project.path, PRESENT);
	made_drop(&w.t.root, "agent-vm-a");
	files_sh(w.t.project.path, ABSENT);
	files_write(w.t.dir, "agent-vm/run/made", "{\"version\": 2}");
	CHECK_INT(made_take(&w.t.root, "agent-vm-a", &w.g, &err), ==, -EOPNOTSUPP);
	CHECK(strstr(err.text, "update agent-vm"));
	two_end(&w);
}
