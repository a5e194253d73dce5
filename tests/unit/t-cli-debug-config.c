#include "cli/debug_config.h"

#include "test.h"

static void check_shows(const char *text, const char *what)
{
	CHECK(text);
	if (!strstr(text, what))
		fail_msg("%s is not in %s", what, text);
}

TEST(it_shows_what_is_in_force)
{
	char verb[] = "shell", ro[] = "ro", path[] = "/srv/p", missing[] = "none for claude", at[] = "/x";
	struct launch_args args = { .verb = verb, .git_config = ro };
	struct layout_share shares[LAYOUT_KINDS];
	struct plan p = { .args = &args, .project = { .path = path }, .layout = { .project_guest = path, .shares = shares } };
	static const char *const kinds[] = { "project", "git", "mount", "state", "settings" };
	char *text;

	for (int k = 0; k < LAYOUT_KINDS; k++)
		shares[p.layout.n_shares++] = (struct layout_share){ .kind = (enum layout_kind)k, .host = at, .guest = at };
	p.creds.missing = missing;
	p.github.n = 1;
	p.github.v[0].repo = (struct repo){ .owner = "acme", .name = "app", .level = GH_READ };
	text = debug_config_text(&p, "shell-abc");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		char *want = xasprintf("{\"kind\":\"%s\"", kinds[i]);

		check_shows(text, want);
		free(want);
	}
	check_shows(text, "\"login\":\"none for claude\"");
	check_shows(text, "\"github\":[\"acme/app=read\"]");
	free(text);
}
