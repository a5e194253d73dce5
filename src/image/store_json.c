/* The JSON files of the store, read strictly and replaced whole.
 *
 *	disks/HEX.json	{"version":2, "size":N, "min_size":N, "api_version":N, "api_found":"1", "has":["bash"], "made":T}
 *	refs/HEX16.json	{"version":2, "reference":"...", "disk":"HEX", "served":"HEX", "platform":"HEX", "config":"HEX",
 *			 "layers":[["HEX", BYTES]], "architecture":"amd64", "env":["A=1"], "stored":T}
 *	default.json	{"version":1, "reference":"..."}
 *
 * Env belongs to the reference: two images can have the same layers and another environment. "served", "platform" and
 * "config" are "" for an image that was built here. "has" is missing when its maker did not look.
 *
 * Version 1, still read, had the environment and the architecture in the disk's file and no layers:
 *	disks/HEX.json	{"version":1, "size":N, "min_size":N, "api_version":N, "architecture":"amd64", "env":["A=1"], "made":T}
 *	refs/HEX16.json	{"version":1, "reference":"...", "disk":"HEX", "stored":T}
 *
 * Bounds: 512 KiB a file; a member too many, missing or of the wrong type is damage; a newer version is said to be one. */
#include <errno.h>
#include <sha256.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/macros.h"
#include "image/store_priv.h"
#include "proto/imagemsg.h"

#define JSON_MAX (512 * 1024)
#define STORE_VERSION 2

static void json_p(json_t **j)
{
	json_decref(*j);
}

#define AUTO_JSON(name) CLEANUP(json_p) json_t *name = NULL

static const struct {
	uint64_t bit;
	const char *name;
} has_names[] = {
	{ IM_HAS_BASH, "bash" },	 { IM_HAS_CLAUDE, "claude" },	{ IM_HAS_CODEX, "codex" },
	{ IM_HAS_OPENCODE, "opencode" }, { IM_HAS_COPILOT, "copilot" }, { IM_HAS_CHROMIUM, "chromium" },
};

void store_ref_file(const char *reference, char name[REF_FILE_MAX])
{
	char hex[SHA256_DIGEST_STRING_LENGTH];

	(void)SHA256Data((const uint8_t *)reference, strlen(reference), hex);
	(void)snprintf(name, REF_FILE_MAX, "%.*s.json", REF_HEX, hex);
}

static int damaged(const struct store *s, const char *dir, const char *name, struct err *err)
{
	return err_set(err, -EBADMSG, "%s/%s%s: damaged; delete it and run: agent-vm pull, or agent-vm build", s->path, dir,
		       name);
}

/**
 * json_read() - Read one file of ours
 *
 * Return: 0; -ENOENT: not there; -EBADMSG, -EPROTO (newer version) with @err set
 */
static int json_read(const struct store *s, int dirfd, const char *dir, const char *name, json_t **ret,
		     json_int_t *ret_version, struct err *err)
{
	AUTO_FREE(char, text);
	AUTO_JSON(j);
	json_error_t je;
	json_int_t version;
	size_t n;
	int r;

	r = file_read_beneath(dirfd, name, JSON_MAX, &text, &n);
	if (r == -ENOENT)
		return err_set(err, r, "%s/%s%s: not there", s->path, dir, name);
	if (r < 0)
		return err_set(err, -EBADMSG, "%s/%s%s: cannot be read: %s", s->path, dir, name, strerror(-r));
	j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
	if (!json_is_object(j) || !json_is_integer(json_object_get(j, "version")))
		return damaged(s, dir, name, err);
	version = json_integer_value(json_object_get(j, "version"));
	if (version > STORE_VERSION)
		return err_set(err, -EPROTO,
			       "%s/%s%s: written by a newer agent-vm (version %lld, this one reads %d); update agent-vm",
			       s->path, dir, name, (long long)version, STORE_VERSION);
	if (version < 1)
		return damaged(s, dir, name, err);
	*ret_version = version;
	*ret = TAKE_PTR(j);
	return 0;
}

static int json_write(int dirfd, const char *name, json_t *j)
{
	AUTO_FREE(char, text);
	int r;

	text = j ? json_dumps(j, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
	if (!text)
		return -EINVAL; /* what is not UTF-8 cannot be written either */
	if (strlen(text) > JSON_MAX)
		return -EFBIG;
	r = file_replace_at(dirfd, name, text, strlen(text), 0600);
	/* The rename is on disk only with its folder. */
	return r < 0 ? r : fsync(dirfd) < 0 ? -errno : 0;
}

static int env_read(json_t *list, struct strv *ret)
{
	json_t *item;
	size_t i;

	if (!json_is_array(list))
		return -EBADMSG;
	json_array_foreach(list, i, item)
	{
		const char *text = json_string_value(item), *eq = text ? strchr(text, '=') : NULL;

		if (!eq || eq == text)
			return -EBADMSG;
		strv_add(ret, text);
	}
	return 0;
}

static int layers_read(json_t *list, struct image_ref *ret)
{
	json_t *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > IM_LAYERS_MAX)
		return -EBADMSG;
	ret->layers = xcalloc(json_array_size(list) + 1, sizeof(*ret->layers));
	json_array_foreach(list, i, item)
	{
		struct image_blob *b = &ret->layers[i];
		json_int_t bytes;
		const char *hex;

		if (json_unpack(item, "[s, I !]", &hex, &bytes) < 0 || !store_is_hex(hex) || bytes < 0)
			return -EBADMSG;
		memcpy(b->digest, hex, sizeof(b->digest));
		b->bytes = (uint64_t)bytes;
		ret->n_layers++;
	}
	return 0;
}

static int digest_read(const char *hex, char ret[IMAGE_HEX + 1])
{
	if (*hex && !store_is_hex(hex))
		return -EBADMSG;
	memcpy(ret, hex, strlen(hex) + 1);
	return 0;
}

/* --- references --- */

static int ref_v1(json_t *j, struct image_ref *ref)
{
	json_int_t version, stored;
	const char *got, *disk;

	if (json_unpack(j, "{s:I, s:s, s:s, s:I !}", "version", &version, "reference", &got, "disk", &disk, "stored",
			&stored) < 0 ||
	    !store_is_hex(disk))
		return -EBADMSG;
	ref->reference = xstrdup(got);
	memcpy(ref->disk, disk, sizeof(ref->disk));
	ref->stored = stored;
	return 0;
}

static int ref_v2(json_t *j, struct image_ref *ref)
{
	const char *got, *disk, *served, *platform, *config, *arch;
	json_int_t version, stored;
	json_t *layers, *env;

	if (json_unpack(j, "{s:I, s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:I !}", "version", &version, "reference", &got,
			"disk", &disk, "served", &served, "platform", &platform, "config", &config, "layers", &layers,
			"architecture", &arch, "env", &env, "stored", &stored) < 0 ||
	    !store_is_hex(disk) || digest_read(served, ref->served) < 0 || digest_read(platform, ref->platform) < 0 ||
	    digest_read(config, ref->config) < 0 || layers_read(layers, ref) < 0 || env_read(env, &ref->env) < 0)
		return -EBADMSG;
	ref->reference = xstrdup(got);
	ref->architecture = xstrdup(arch);
	memcpy(ref->disk, disk, sizeof(ref->disk));
	ref->stored = stored;
	return 0;
}

int store_ref_parse(const struct store *s, const char *file, const char *reference, struct image_ref *ret, struct err *err)
{
	struct image_ref ref = { NULL };
	char own[REF_FILE_MAX];
	json_int_t version;
	AUTO_JSON(j);
	int r;

	r = json_read(s, s->refs, "refs/", file, &j, &version, err);
	if (r < 0)
		return r;
	r = version == 1 ? ref_v1(j, &ref) : ref_v2(j, &ref);
	/* A file under another reference's name is damage too: it would be found by one name and listed by another. */
	if (r == 0)
		store_ref_file(ref.reference, own);
	if (r < 0 || strcmp(own, file) != 0 || (reference && strcmp(ref.reference, reference) != 0)) {
		image_ref_done(&ref);
		return damaged(s, "refs/", file, err);
	}
	*ret = ref;
	return 0;
}

int store_ref_read(const struct store *s, const char *reference, struct image_ref *ret, struct err *err)
{
	char name[REF_FILE_MAX];

	store_ref_file(reference, name);
	return store_ref_parse(s, name, reference, ret, err);
}

void image_ref_done(struct image_ref *ref)
{
	free(ref->reference);
	free(ref->architecture);
	free(ref->layers);
	strv_done(&ref->env);
	*ref = (struct image_ref){ NULL };
}

int store_ref_write(const struct store *s, const struct image_meta *meta)
{
	json_t *layers = json_array(), *env = json_array();
	char name[REF_FILE_MAX];
	AUTO_JSON(j);

	for (size_t i = 0; i < meta->n_layers; i++)
		(void)json_array_append_new(layers, json_pack("[s, I]", meta->layers[i].digest,
							      (json_int_t)meta->layers[i].bytes));
	for (size_t i = 0; meta->env && i < meta->env->n; i++)
		(void)json_array_append_new(env, json_string(meta->env->v[i]));
	j = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:I}", "version", STORE_VERSION, "reference",
		      meta->reference, "disk", meta->key, "served", meta->served ? meta->served : "", "platform",
		      meta->platform ? meta->platform : "", "config", meta->config ? meta->config : "", "layers", layers,
		      "architecture", meta->architecture, "env", env, "stored", (json_int_t)time(NULL));
	store_ref_file(meta->reference, name);
	return json_write(s->refs, name, j);
}

/* --- disks --- */

static int has_read(json_t *list, struct disk_meta *m)
{
	json_t *item;
	size_t i, k;

	if (!list)
		return 0;
	if (!json_is_array(list))
		return -EBADMSG;
	m->has_known = true;
	json_array_foreach(list, i, item)
	{
		const char *name = json_string_value(item);

		for (k = 0; name && k < ARRAY_SIZE(has_names); k++)
			if (strcmp(name, has_names[k].name) == 0)
				break;
		if (!name || k == ARRAY_SIZE(has_names))
			return -EBADMSG;
		m->has |= has_names[k].bit;
	}
	return 0;
}

static int meta_parse(json_t *j, json_int_t version, struct disk_meta *m)
{
	json_int_t v, size, min_size, api, made;
	const char *arch, *found = "";
	json_t *env = NULL, *has = NULL;

	if (version == 1 ? json_unpack(j, "{s:I, s:I, s:I, s:I, s:s, s:o, s:I !}", "version", &v, "size", &size, "min_size",
				       &min_size, "api_version", &api, "architecture", &arch, "env", &env, "made", &made) < 0 :
			   json_unpack(j, "{s:I, s:I, s:I, s:I, s:s, s?o, s:I !}", "version", &v, "size", &size, "min_size",
				       &min_size, "api_version", &api, "api_found", &found, "has", &has, "made", &made) < 0)
		return -EBADMSG;
	if (size <= 0 || min_size <= 0 || min_size > size || api < 0 || api > INT32_MAX ||
	    strlen(found) >= sizeof(m->api_found) || (version == 1 && env_read(env, &m->env) < 0) || has_read(has, m) < 0)
		return -EBADMSG;
	m->size = (uint64_t)size;
	m->min_size = (uint64_t)min_size;
	m->api_version = (uint32_t)api;
	memcpy(m->api_found, found, strlen(found) + 1);
	if (version == 1 && api > 0)
		(void)snprintf(m->api_found, sizeof(m->api_found), "%lld", (long long)api);
	return 0;
}

int store_meta_read(const struct store *s, const char *key, struct disk_meta *ret, struct err *err)
{
	struct disk_meta m = { 0 };
	AUTO_FREE(char, name);
	json_int_t version;
	AUTO_JSON(j);
	int r;

	name = store_disk_file(key, "json");
	r = json_read(s, s->disks, "disks/", name, &j, &version, err);
	if (r < 0)
		return r == -ENOENT ? -EBADMSG : r;
	if (meta_parse(j, version, &m) < 0) {
		disk_meta_done(&m);
		return damaged(s, "disks/", name, err);
	}
	*ret = m;
	return 0;
}

void disk_meta_done(struct disk_meta *m)
{
	strv_done(&m->env);
}

int store_meta_write(const struct store *s, const struct image_meta *meta, uint64_t size)
{
	json_t *has = meta->has_known ? json_array() : NULL;
	char number[16] = "";
	AUTO_FREE(char, name);
	AUTO_JSON(j);

	for (size_t i = 0; has && i < ARRAY_SIZE(has_names); i++)
		if (meta->has & has_names[i].bit)
			(void)json_array_append_new(has, json_string(has_names[i].name));
	if (meta->api_version > 0)
		(void)snprintf(number, sizeof(number), "%u", meta->api_version);
	j = json_pack("{s:i, s:I, s:I, s:I, s:s, s:I}", "version", STORE_VERSION, "size", (json_int_t)size, "min_size",
		      (json_int_t)meta->min_bytes, "api_version", (json_int_t)meta->api_version, "api_found",
		      meta->api_found ? meta->api_found : number, "made", (json_int_t)time(NULL));
	if (has)
		(void)json_object_set_new(j, "has", has);
	name = store_disk_file(meta->key, "json");
	return json_write(s->disks, name, j);
}

/* --- default --- */

int store_default_read(const struct store *s, char **ret, struct err *err)
{
	json_int_t version;
	const char *ref;
	AUTO_JSON(j);
	int r;

	r = json_read(s, s->fd, "", "default.json", &j, &version, err);
	if (r < 0)
		return r;
	if (json_unpack(j, "{s:I, s:s !}", "version", &version, "reference", &ref) < 0 || store_ref_full(ref, ret, NULL) < 0)
		return damaged(s, "", "default.json", err);
	return 0;
}

int store_set_default(const struct store *s, const char *ref, struct err *err)
{
	AUTO_FREE(char, full);
	AUTO_JSON(j);
	int r;

	r = store_ref_full(ref, &full, err);
	if (r < 0)
		return r;
	j = json_pack("{s:i, s:s}", "version", 1, "reference", full);
	r = json_write(s->fd, "default.json", j);
	return r < 0 ? err_set(err, r, "%s/default.json: cannot be written: %s", s->path, strerror(-r)) : 0;
}
