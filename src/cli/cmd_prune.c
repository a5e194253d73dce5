/* agent-vm prune: give back what nothing needs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/macros.h"
#include "cli/cmd.h"
#include "cli/images.h"
#include "cli/sessions.h"
#include "session/trash.h"

struct prune_args {
	bool dry_run, layers, json;
	const char *older_than;
};

static const struct opt prune_opts[] = {
	{ "dry-run", OPT_FLAG, offsetof(struct prune_args, dry_run), NULL, "only say what would be deleted" },
	{ "older-than", OPT_STRING, offsetof(struct prune_args, older_than), "DURATION",
	  "also images that no session used for so long", 0,
	  "A number and m, h, d or w. Never the default image, nor one that a session runs. Without this option no image is "
	  "deleted.",
	  "30d" },
	{ "layers", OPT_FLAG, offsetof(struct prune_args, layers), NULL,
	  "also the compressed layers of the images that stay", 0, "The images still start; the next pull loads everything." },
	{ "json", OPT_FLAG, offsetof(struct prune_args, json), NULL, "print one JSON object" },
	{ NULL },
};

/* "30d" in seconds; -EINVAL. */
static int duration_parse(const char *s, int64_t *ret)
{
	static const struct {
		char letter;
		int64_t seconds;
	} units[] = { { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 7 * 86400 } };
	AUTO_FREE(char, number);
	size_t n = strlen(s);
	uint64_t v;

	for (size_t i = 0; n > 1 && i < ARRAY_SIZE(units); i++) {
		if (s[n - 1] != units[i].letter)
			continue;
		number = xstrndup(s, n - 1);
		if (str_u64(number, 100000, &v) < 0)
			return -EINVAL;
		*ret = (int64_t)v * units[i].seconds;
		return 0;
	}
	return -EINVAL;
}

/* --- dead sessions --- */

struct dead {
	const struct state_root *root;
	struct strv names;
	uint64_t bytes; /* on the disk */
};

static int dead_add(const char *name, void *arg)
{
	struct dead *d = arg;

	if (registry_is_gone(d->root, name)) {
		strv_add(&d->names, name);
		d->bytes += file_tree_allocated_at(d->root->sessions_fd, name);
	}
	return 0;
}

/* The bytes that they take. */
static uint64_t dead_sessions(const struct state_root *root, bool dry_run, struct strv *ret)
{
	struct dead d = { root, { NULL, 0 }, 0 };
	struct err err;

	(void)registry_each(root->sessions_fd, dead_add, &d);
	if (!dry_run && registry_reap(root, REAP_GRACE_MS, NULL, &err) < 0)
		(void)fprintf(stderr, "agent-vm: warning: %s\n", err.text);
	if (!dry_run)
		trash_empty(root->fd, 0);
	*ret = d.names;
	return d.bytes;
}

/* --- output --- */

static void print_item(const struct prune_item *i, const char *word)
{
	char size[24], age[24];

	images_size(i->bytes, size, sizeof(size));
	images_age(i->age_s, age, sizeof(age));
	if (i->kind == PRUNE_REFERENCE)
		(void)printf("%s %-9s  %s (unused for %s)\n", word, prune_kind_str[i->kind], i->name, age);
	else if (strlen(i->name) == IMAGE_HEX)
		(void)printf("%s %-9s  %.12s  %s\n", word, prune_kind_str[i->kind], i->name, size);
	else
		(void)printf("%s %-9s  %s  %s\n", word, prune_kind_str[i->kind], i->name, size);
}

static int print_text(const struct prune_list *l, const struct strv *dead, bool dry_run)
{
	const char *word = dry_run ? "would remove" : "removed";
	char size[24];

	for (size_t i = 0; i < dead->n; i++)
		(void)printf("%s %-9s  %s\n", word, "session", dead->v[i]);
	for (size_t i = 0; i < l->n; i++)
		print_item(&l->v[i], word);
	images_size(l->bytes, size, sizeof(size));
	if (l->n + dead->n == 0)
		(void)printf("nothing to remove\n");
	else
		(void)printf("%s: %s\n", dry_run ? "would be free" : "free now", size);
	return sessions_flush();
}

static int print_json(const struct prune_list *l, const struct strv *dead, bool dry_run)
{
	json_t *items = json_array(), *sessions = json_array();

	for (size_t i = 0; i < dead->n; i++)
		(void)json_array_append_new(sessions, json_string(dead->v[i]));
	for (size_t i = 0; i < l->n; i++)
		(void)json_array_append_new(items, json_pack("{s:s, s:s, s:I, s:I}", "kind", prune_kind_str[l->v[i].kind],
							     "name", l->v[i].name, "bytes", (json_int_t)l->v[i].bytes,
							     "unused_s", (json_int_t)l->v[i].age_s));
	return sessions_print_json(json_pack("{s:b, s:o, s:o, s:I}", "dry_run", dry_run, "sessions", sessions, "items", items,
					     "bytes", (json_int_t)l->bytes));
}

static int prune_images(const struct store *store, const struct prune_args *a, int64_t unused_s, struct prune_list *list,
			struct err *err)
{
	AUTO_FREE(char, def);
	AUTO_FREE(char, tag);
	const char *keep[3] = { NULL };
	struct prune_rule rule = { .unused_s = unused_s, .layers = a->layers, .keep = keep, .dry_run = a->dry_run };

	def = store_default(store);
	keep[0] = def;
	if (images_reference(NULL) && store_ref_full(images_reference(NULL), &tag, NULL) == 0)
		keep[1] = tag;
	return store_prune(store, &rule, list, err);
}

static int prune_run(struct cli *cli, void *args, char **rest)
{
	struct state_root root = STATE_ROOT_INIT;
	struct prune_list list = { NULL };
	const struct prune_args *a = args;
	struct strv dead = { 0 };
	int64_t unused_s = -1;
	uint64_t bytes;
	struct store store;
	struct err err;
	int r, status;

	if (a->older_than && duration_parse(a->older_than, &unused_s) < 0) {
		AUTO_FREE(char, shown);

		shown = str_escape(a->older_than, strlen(a->older_than));
		return sessions_fail(err_set(&err, -EINVAL, "--older-than %s: not a number with m, h, d or w; for thirty days write --older-than 30d",
					     shown), &err);
	}
	r = images_open(false, &root, &store, &err);
	if (r > 0) {
		bytes = dead_sessions(&root, a->dry_run, &dead);
		r = prune_images(&store, a, unused_s, &list, &err);
		list.bytes += bytes;
		store_close(&store);
		state_root_close(&root);
	}
	if (r < 0) {
		strv_done(&dead);
		return sessions_fail(r, &err);
	}
	sessions_warn(&list.warnings);
	status = a->json ? print_json(&list, &dead, a->dry_run) : print_text(&list, &dead, a->dry_run);
	prune_list_done(&list);
	strv_done(&dead);
	return status;
}

const struct cmd cmd_prune = {
	.name = "prune",
	.summary = "delete what nothing needs: remains of images, pulls and dead sessions",
	.usage = "[OPTIONS]",
	.about = "Deletes disks that no image names and no session runs, layers that no image needs, downloads that nobody went "
		 "on with for seven days, disks that were never finished, and what sessions left whose launcher was killed. "
		 "What a running session or pull uses stays.",
	.examples = "agent-vm prune --dry-run\twhat would go\nagent-vm prune --older-than 30d\talso images not used for a month\n",
	.opts = prune_opts,
	.args_size = sizeof(struct prune_args),
	.words = CMD_WORDS_NONE,
	.run = prune_run,
};
