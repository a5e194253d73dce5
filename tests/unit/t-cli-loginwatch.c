#include "cli/loginwatch.h"

#include "files.h"

static struct loginwatch w;

static void begin(const char *top, const char *setup)
{
	struct strv paths = { 0 };

	files_sh(top, setup);
	strv_addf(&paths, "%s/a", top);
	strv_addf(&paths, "%s/b", top);
	loginwatch_begin(&paths, &w);
	strv_done(&paths);
}

/* What changed after @then, without the folder; in one text. */
static char *after(const char *top, const char *then)
{
	struct strv left = { 0 };
	char *all = xstrdup("");

	files_sh(top, then);
	loginwatch_compare(&w, &left);
	for (size_t i = 0; i < left.n; i++) {
		str_append(&all, strrchr(left.v[i], '/') + 1);
		str_append(&all, ";");
	}
	strv_done(&left);
	return all;
}

static void check(const char *setup, const char *then, const char *want)
{
	char *top = files_tmp("/tmp"), *got;

	begin(top, setup);
	got = after(top, then);
	CHECK_STR(got, want);
	free(got);
	loginwatch_done(&w);
	files_rm(top);
}

TEST(what_changed_appeared_or_vanished_is_named)
{
	check("echo x > a", "true", "");
	check("echo x > a", "cat a", "");
	check("echo x > a", "echo yy > a", "a (changed);");
	check("echo x > a", "echo z > n && mv n a", "a (changed);");
	check("echo x > a", "rm a && echo x > b", "a (gone);b (new);");
	check("mkdir f && echo x > f/a && ln -s f/a a", "echo longer > f/a", "a (changed);");
}

TEST(a_renewal_of_ours_is_no_news_but_what_comes_after_it_is)
{
	char *top = files_tmp("/tmp"), *got;

	begin(top, "echo x > a");
	loginwatch_renewing(&w, 0);
	got = after(top, "echo renewed > a && echo x > b");
	CHECK_STR(got, "b (new);");
	free(got);
	loginwatch_renewed(&w, 0);
	got = after(top, "rm b");
	CHECK_STR(got, "");
	free(got);
	got = after(top, "echo by another > a");
	CHECK_STR(got, "a (changed);");
	free(got);
	/* Nor does a renewal hide what was before it. */
	loginwatch_renewing(&w, 0);
	got = after(top, "echo renewed once more > a");
	loginwatch_renewed(&w, 0);
	CHECK_STR(got, "a (changed);");
	free(got);
	got = after(top, "true");
	CHECK_STR(got, "a (changed);");
	free(got);
	loginwatch_done(&w);
	files_rm(top);
}
