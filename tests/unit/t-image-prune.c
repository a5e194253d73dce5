/* What the store says it holds, and what prune takes of it. */
#include "store.h"

#include <time.h>

#include "image/build_priv.h"

#define OTHER "example.org/other:1"

/* Adds what a pull of one image with two layers and its config would leave. */
static void add_pulled(struct store *s, const char *ref, char disk, const char layers[2], char config)
{
	struct image_blob blobs[2] = { blob_of(layers[0], 1000), blob_of(layers[1], 2000) };
	struct image_meta m = meta_of(ref, disk, 1);
	char was[IMAGE_HEX + 1];

	put_file(s, "blobs/sha256", hex_of(layers[0]), 100000);
	put_file(s, "blobs/sha256", hex_of(layers[1]), 200000);
	put_file(s, "blobs/sha256", hex_of(config), 3000);
	m.served = m.platform = hex_of('0');
	m.config = hex_of(config);
	m.layers = blobs;
	m.n_layers = 2;
	CHECK_INT(add_meta(s, &m, 1 << 20, was), ==, 0);
}

static uint64_t file_blocks(const struct store *s, const char *dir, const char *name)
{
	char *path = xasprintf("%s/%s/%s", s->path, dir, name);
	struct stat st;

	CHECK_INT(stat(path, &st), ==, 0);
	free(path);
	return (uint64_t)st.st_blocks * 512;
}

static void used_days_ago(const struct store *s, const char *ref, int days)
{
	struct timespec t[2] = { { time(NULL) - days * 86400, 0 }, { time(NULL) - days * 86400, 0 } };
	struct dirent *e;
	DIR *d = fdopendir(openat(s->refs, ".", O_RDONLY | O_DIRECTORY));

	while ((e = readdir(d))) {
		char *text, *old, *stamp;

		if (*e->d_name == '.' || file_read_beneath(s->refs, e->d_name, 1 << 20, &text, NULL) < 0)
			continue;
		if (strstr(text, ref)) {
			/* stored then, too */
			old = strstr(text, "\"stored\": ") + strlen("\"stored\": ");
			stamp = xasprintf("%.*s%lld%s", (int)(old - text), text, (long long)t[0].tv_sec, old + 10);
			CHECK_INT(file_replace_at(s->refs, e->d_name, stamp, strlen(stamp), 0600), ==, 0);
			CHECK_INT(utimensat(s->refs, e->d_name, t, 0), ==, 0);
			free(stamp);
		}
		free(text);
	}
	closedir(d);
}

static struct prune_list prune(const struct store *s, const struct prune_rule *rule)
{
	struct prune_list list;
	struct err err;

	if (store_prune(s, rule, &list, &err) < 0)
		fail_msg("%s", err.text);
	return list;
}

static size_t n_of(const struct prune_list *l, enum prune_kind kind)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		n += l->v[i].kind == kind;
	return n;
}

TEST(sizes_are_blocks_that_are_there_and_not_lengths)
{
	struct store s = setup();
	struct image_list list;
	struct err err;
	char *disk = xasprintf("%s.ext4", hex_of('a'));
	time_t began = time(NULL);

	add_pulled(&s, REF, 'a', "12", 'c');
	add_pulled(&s, OTHER, 'b', "14", 'd');
	CHECK_INT(store_list(&s, &list, &err), ==, 0);
	CHECK_INT(list.n, ==, 2);
	CHECK_STR(list.v[0].ref.reference, OTHER);
	CHECK_STR(list.v[1].ref.reference, REF);
	CHECK_INT(list.v[1].disk_bytes, ==, file_blocks(&s, "disks", disk));
	CHECK_INT(list.v[1].disk_bytes, <, 1 << 20);
	CHECK_INT(list.v[1].layer_bytes, ==,
		  file_blocks(&s, "blobs/sha256", hex_of('1')) + file_blocks(&s, "blobs/sha256", hex_of('2')) +
			  file_blocks(&s, "blobs/sha256", hex_of('c')));
	CHECK(list.v[1].usable && !list.v[1].in_use);
	CHECK_INT(list.v[1].api_version, ==, 1);
	CHECK_INT(list.v[1].used, >=, began - 1); /* the clock of files is a little behind */
	image_list_done(&list);
	free(disk);
	teardown(&s);
}

TEST(a_reference_that_cannot_be_read_is_a_warning_and_protects_everything)
{
	const struct prune_rule all = { .unused_s = 0 };
	struct store s = setup();
	struct prune_list p;
	struct image_list list;
	struct err err;

	add_pulled(&s, REF, 'a', "12", 'c');
	put_file(&s, "refs", "\x1b]0;x.json", 10);
	put_file(&s, "blobs/sha256", hex_of('9'), 10);
	CHECK_INT(store_list(&s, &list, &err), ==, 0);
	CHECK_INT(list.n, ==, 1);
	CHECK_INT(list.warnings.n, ==, 1);
	CHECK(!strchr(list.warnings.v[0], 0x1b));
	CHECK(strstr(list.warnings.v[0], "damaged"));
	image_list_done(&list);
	p = prune(&s, &all);
	CHECK_INT(n_of(&p, PRUNE_REFERENCE), ==, 1);
	CHECK_INT(p.n, ==, 1);
	CHECK_INT(p.warnings.n, ==, 1);
	CHECK(is_there(&s, "blobs/sha256", hex_of('9')));
	CHECK_INT(count(s.disks), ==, 2);
	prune_list_done(&p);
	teardown(&s);
}

TEST(a_dry_run_lists_what_the_run_then_takes_and_takes_nothing)
{
	struct prune_rule rule = { .unused_s = -1, .dry_run = true };
	struct store s = setup();
	struct prune_list dry, wet;
	struct image img;
	struct err err;
	char was[IMAGE_HEX + 1];
	uint64_t sum = 0;
	char *touch;

	add_pulled(&s, REF, 'a', "12", 'c');
	/* a layer that nothing names, a disk that a session held, a disk half made, an old and a new partial */
	put_file(&s, "blobs/sha256", hex_of('9'), 50000);
	CHECK_INT(add(&s, OTHER, 'd', 1, 8192, was), ==, 0);
	CHECK_INT(store_find(&s, OTHER, &img, &err), ==, 0);
	CHECK_INT(add(&s, OTHER, 'e', 1, 8192, was), ==, 0);
	image_done(&img);
	put_file(&s, "tmp", "disk-1-2.ext4", 70000);
	put_file(&s, "partial", hex_of('7'), 10);
	put_file(&s, "partial", hex_of('8'), 10);
	touch = xasprintf("touch -d '8 days ago' %s/partial/%s", s.path, hex_of('7'));
	CHECK_INT(system(touch), ==, 0);
	free(touch);
	dry = prune(&s, &rule);
	CHECK_INT(dry.n, ==, 4);
	CHECK_INT(n_of(&dry, PRUNE_BLOB), ==, 1);
	CHECK_INT(n_of(&dry, PRUNE_DISK), ==, 1);
	CHECK_INT(n_of(&dry, PRUNE_TMP), ==, 1);
	CHECK_INT(n_of(&dry, PRUNE_PARTIAL), ==, 1);
	for (size_t i = 0; i < dry.n; i++)
		sum += dry.v[i].bytes;
	CHECK_INT(sum, ==, dry.bytes);
	CHECK_INT(sum, >=, 120000);
	CHECK(is_there(&s, "blobs/sha256", hex_of('9')) && is_there(&s, "tmp", "disk-1-2.ext4"));
	CHECK_INT(count(s.disks), ==, 6);
	rule.dry_run = false;
	wet = prune(&s, &rule);
	CHECK_INT(wet.n, ==, dry.n);
	CHECK_INT(wet.bytes, ==, dry.bytes);
	for (size_t i = 0; i < wet.n; i++) {
		CHECK_INT(wet.v[i].kind, ==, dry.v[i].kind);
		CHECK_STR(wet.v[i].name, dry.v[i].name);
	}
	CHECK(!is_there(&s, "blobs/sha256", hex_of('9')) && !is_there(&s, "tmp", "disk-1-2.ext4"));
	CHECK(!is_there(&s, "partial", hex_of('7')) && is_there(&s, "partial", hex_of('8')));
	CHECK(is_there(&s, "blobs/sha256", hex_of('1')) && is_there(&s, "blobs/sha256", hex_of('c')));
	CHECK_INT(count(s.disks), ==, 4);
	prune_list_done(&dry);
	prune_list_done(&wet);
	teardown(&s);
}

TEST(by_age_goes_what_was_not_used_but_not_the_default_and_not_what_a_session_holds)
{
	static const char *const keep[] = { REF, NULL };
	struct prune_rule rule = { .unused_s = 30 * 86400, .keep = keep };
	struct store s = setup();
	struct prune_list p;
	struct image img;
	struct err err;

	add_pulled(&s, REF, 'a', "12", 'c');
	add_pulled(&s, OTHER, 'b', "14", 'd');
	add_pulled(&s, "example.org/young:1", 'e', "15", 'f');
	used_days_ago(&s, REF, 90);
	used_days_ago(&s, OTHER, 31);
	used_days_ago(&s, "example.org/young:1", 29);
	/* held: not even by age */
	CHECK_INT(store_find(&s, OTHER, &img, &err), ==, 0);
	p = prune(&s, &rule);
	CHECK_INT(p.n, ==, 0);
	prune_list_done(&p);
	image_done(&img);
	/* used again */
	store_used(&s, OTHER);
	p = prune(&s, &rule);
	CHECK_INT(p.n, ==, 0);
	prune_list_done(&p);
	used_days_ago(&s, OTHER, 31);
	p = prune(&s, &rule);
	CHECK_INT(n_of(&p, PRUNE_REFERENCE), ==, 1);
	CHECK_STR(p.v[0].name, OTHER);
	CHECK_INT(p.v[0].age_s, >=, 31 * 86400);
	CHECK_INT(n_of(&p, PRUNE_DISK), ==, 1);
	/* layer 1 is shared and stays; 4 and the config go */
	CHECK_INT(n_of(&p, PRUNE_BLOB), ==, 2);
	CHECK(is_there(&s, "blobs/sha256", hex_of('1')) && !is_there(&s, "blobs/sha256", hex_of('4')));
	prune_list_done(&p);
	CHECK_INT(store_find(&s, OTHER, &img, &err), ==, -ENOENT);
	CHECK(store_has(&s, REF) && store_has(&s, "example.org/young:1"));
	teardown(&s);
}

TEST(a_look_at_the_store_never_disturbs_a_launch)
{
	struct store s = setup();
	struct image img;
	struct err err;
	int status;
	pid_t pid;

	add_pulled(&s, REF, 'a', "12", 'c');
	pid = fork();
	if (pid == 0) {
		struct image_list list;

		for (int i = 0; i < 1000; i++) {
			if (store_list(&s, &list, &err) < 0)
				_exit(1);
			image_list_done(&list);
		}
		_exit(0);
	}
	do {
		if (store_find(&s, REF, &img, &err) < 0) {
			(void)kill(pid, SIGKILL);
			(void)waitpid(pid, &status, 0);
			fail_msg("%s", err.text);
		}
		image_done(&img);
	} while (waitpid(pid, &status, WNOHANG) == 0);
	CHECK_INT(status, ==, 0);
	teardown(&s);
}

TEST(layers_go_when_that_is_asked_and_the_image_stays)
{
	struct prune_rule rule = { .unused_s = -1, .layers = true };
	struct store s = setup();
	struct prune_list p;

	add_pulled(&s, REF, 'a', "12", 'c');
	p = prune(&s, &rule);
	CHECK_INT(p.n, ==, 2);
	CHECK_INT(n_of(&p, PRUNE_BLOB), ==, 2);
	CHECK(is_there(&s, "blobs/sha256", hex_of('c')));
	CHECK(store_has(&s, REF));
	prune_list_done(&p);
	teardown(&s);
}

TEST(a_pull_under_way_keeps_its_blobs)
{
	const struct prune_rule rule = { .unused_s = -1 };
	struct image_ref former = { NULL };
	struct store s = setup();
	struct prune_list p;
	int pull;

	put_file(&s, "blobs/sha256", hex_of('9'), 10);
	memset(former.config, '9', IMAGE_HEX);
	pull = store_pull_lock(&s, NULL);
	CHECK_INT(pull, >=, 0);
	p = prune(&s, &rule);
	CHECK_INT(p.n, ==, 0);
	CHECK_INT(p.warnings.n, ==, 1);
	prune_list_done(&p);
	store_blobs_drop(&s, &former);
	CHECK(is_there(&s, "blobs/sha256", hex_of('9')));
	close(pull);
	store_blobs_drop(&s, &former);
	CHECK(!is_there(&s, "blobs/sha256", hex_of('9')));
	teardown(&s);
}

TEST(a_replaced_reference_gives_back_only_what_no_other_one_names)
{
	struct image_ref former;
	struct store s = setup();
	struct err err;

	add_pulled(&s, REF, 'a', "12", 'c');
	add_pulled(&s, OTHER, 'b', "13", 'd');
	CHECK_INT(store_ref_read(&s, REF, &former, &err), ==, 0);
	add_pulled(&s, REF, 'e', "45", 'f');
	store_blobs_drop(&s, &former);
	CHECK(is_there(&s, "blobs/sha256", hex_of('1')));
	CHECK(!is_there(&s, "blobs/sha256", hex_of('2')));
	CHECK(!is_there(&s, "blobs/sha256", hex_of('c')));
	CHECK(is_there(&s, "blobs/sha256", hex_of('3')) && is_there(&s, "blobs/sha256", hex_of('4')));
	image_ref_done(&former);
	teardown(&s);
}

TEST(a_layout_that_is_stopped_leaves_nothing_and_says_what_is_kept)
{
	struct store s = setup();
	struct made layer = { .bytes = 1000 };
	struct oci image = { .manifest_bytes = 10 };
	AUTO_FREE(char, out);
	struct err err;
	int stop[2];

	put_file(&s, "blobs/sha256", hex_of('1'), 1000);
	put_file(&s, "blobs/sha256", hex_of('2'), 10);
	put_file(&s, "blobs/sha256", hex_of('3'), 10);
	memcpy(layer.blob, hex_of('1'), sizeof(layer.blob));
	memcpy(image.manifest, hex_of('2'), sizeof(image.manifest));
	memcpy(image.config, hex_of('3'), sizeof(image.config));
	out = xasprintf("%s/out", root_path);
	CHECK_INT(pipe2(stop, O_CLOEXEC), ==, 0);
	CHECK_INT(write(stop[1], "x", 1), ==, 1);
	CHECK_INT(oci_export(&s, &image, &layer, 1, out, "x", stop[0], &err), ==, -EINTR);
	/* No reference names the image yet, so nothing can start from it. */
	CHECK(!strstr(err.text, "is stored") && strstr(err.text, "layers are kept for the next build"));
	CHECK_INT(access(out, F_OK), ==, -1);
	CHECK_INT(build_output_check(out, &err), ==, 0);
	CHECK_INT(oci_export(&s, &image, &layer, 1, out, "x", -1, &err), ==, 0);
	CHECK_INT(build_output_check(out, &err), ==, -EEXIST);
	/* Made by somebody else meanwhile. */
	CHECK_INT(oci_export(&s, &image, &layer, 1, out, "x", -1, &err), ==, -EEXIST);
	close(stop[0]);
	close(stop[1]);
	teardown(&s);
}
