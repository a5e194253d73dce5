/* agent-vm images: what is in the store. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/macros.h"
#include "cli/cmd.h"
#include "cli/images.h"
#include "cli/sessions.h"

struct images_args {
	bool json;
};

static const struct opt images_opts[] = {
	{ "json", OPT_FLAG, offsetof(struct images_args, json), NULL, "print one JSON array, with whole digests and bytes" },
	{ NULL },
};

static size_t sessions_of(const struct session_list *live, const char *reference)
{
	size_t n = 0;

	for (size_t i = 0; i < live->n; i++)
		n += live->v[i].image && strcmp(live->v[i].image, reference) == 0;
	return n;
}

static const char *digest_of(const struct image_ref *r)
{
	return r->served[0] ? r->served : r->disk;
}

static void print_table(const struct image_list *list, const struct session_list *live, const char *def)
{
	static const char *const heads[] = { "REFERENCE", "DIGEST", "API", "PULLED", "DISK", "LAYERS", "IN USE" };
	int64_t now = (int64_t)time(NULL);
	struct table t;

	table_init(&t, ARRAY_SIZE(heads));
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
		table_add(&t, heads[i]);
	for (size_t i = 0; i < list->n; i++) {
		const struct image_entry *e = &list->v[i];
		char digest[IMAGE_SHORT + 1], age[24], disk[24], layers[24], users[24] = "-";
		size_t n = sessions_of(live, e->ref.reference);
		AUTO_FREE(char, name);
		AUTO_FREE(char, ago);

		name = xasprintf("%s%s", e->ref.reference, strcmp(e->ref.reference, def) == 0 ? " *" : "");
		(void)snprintf(digest, sizeof(digest), "%.12s", digest_of(&e->ref));
		images_age(now - e->ref.stored, age, sizeof(age));
		ago = xasprintf("%s ago", age);
		images_size(e->disk_bytes, disk, sizeof(disk));
		images_size(e->layer_bytes, layers, sizeof(layers));
		if (n > 0)
			(void)snprintf(users, sizeof(users), "%zu", n);
		else if (e->in_use)
			(void)snprintf(users, sizeof(users), "yes");
		table_add(&t, name);
		table_add(&t, digest);
		table_add(&t, e->api_found[0] ? e->api_found : "-");
		table_add(&t, ago);
		table_add(&t, e->usable ? disk : "damaged");
		table_add(&t, e->layer_bytes > 0 ? layers : "-");
		table_add(&t, users);
	}
	table_print(&t, stdout);
}

static int print_json(const struct image_list *list, const struct session_list *live, const char *def)
{
	json_t *all = json_array();

	for (size_t i = 0; i < list->n; i++) {
		const struct image_entry *e = &list->v[i];
		const struct image_ref *r = &e->ref;

		(void)json_array_append_new(
			all, json_pack("{s:s, s:b, s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:i, s:i, s:b}", "reference",
				       r->reference, "default", strcmp(r->reference, def) == 0, "digest", digest_of(r),
				       "platform", r->platform, "disk", r->disk, "api_version", (int)e->api_version, "api_found",
				       e->api_found, "pulled", (json_int_t)r->stored, "used", (json_int_t)e->used, "disk_bytes",
				       (json_int_t)e->disk_bytes, "layer_bytes", (json_int_t)e->layer_bytes, "layers",
				       (int)r->n_layers, "sessions", (int)sessions_of(live, r->reference), "usable", e->usable));
	}
	return sessions_print_json(all);
}

static int images_run(struct cli *cli, void *args, char **rest)
{
	struct state_root root = STATE_ROOT_INIT;
	const struct images_args *a = args;
	struct session_list live = { NULL };
	struct image_list list = { NULL };
	struct store store;
	AUTO_FREE(char, def);
	struct err err;
	int r, status;

	r = images_open(false, &root, &store, &err);
	if (r > 0) {
		r = store_list(&store, &list, &err);
		def = store_default(&store);
		if (r == 0 && registry_list(&root, SESSIONS_LIVE, &live, &err) < 0)
			(void)fprintf(stderr, "agent-vm: warning: %s\n", err.text);
		store_close(&store);
		state_root_close(&root);
	}
	if (r < 0)
		return sessions_fail(r, &err);
	sessions_warn(&list.warnings);
	if (!def)
		def = xstrdup("");
	if (a->json) {
		status = print_json(&list, &live, def);
	} else {
		print_table(&list, &live, def);
		status = sessions_flush();
	}
	image_list_done(&list);
	session_list_done(&live);
	return status;
}

const struct cmd cmd_images = {
	.name = "images",
	.summary = "list the images that are stored here",
	.usage = "[--json]",
	.about = "One line an image: its reference (* is the default one), the digest that it has in its registry, the image API "
		 "version, its age here, the room that its disk and its compressed layers take, and how many sessions run it. Room "
		 "is what is really allocated. Layers are kept so that the next pull loads only what changed; two images that "
		 "share some both count them. agent-vm prune gives back what nothing needs.",
	.examples = "agent-vm images\twhat is here\nagent-vm images --json\tthe same for a script\n",
	.opts = images_opts,
	.args_size = sizeof(struct images_args),
	.words = CMD_WORDS_NONE,
	.run = images_run,
};
