/* Index, manifest, config and the tables of contents of archives. Each document is at most MANIFEST_MAX bytes; a member
 * twice, a wrong type or bytes behind the end are errors; members that we do not know are passed over, as the
 * specifications want. Text that goes into a message is escaped and cut. */
#include "image/manifest.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <strings.h>

#include "base/macros.h"
#include "image/ref.h"

#define OCI "application/vnd.oci.image."
#define DOCKER "application/vnd.docker."
#define OCI_INDEX OCI "index.v1+json"
#define OCI_MANIFEST OCI "manifest.v1+json"
#define DOCKER_LIST DOCKER "distribution.manifest.list.v2+json"
#define DOCKER_MANIFEST DOCKER "distribution.manifest.v2+json"
#define SCHEMA1 DOCKER "distribution.manifest.v1+"

#define SHOWN_MAX 100	   /* bytes of foreign text in a message */
#define PLATFORMS_MAX 400  /* bytes of a list of platforms in a message */
#define ENV_MAX 1000	   /* variables; no image is near it */
#define ENV_BYTES_MAX (64 << 10) /* of all; with each byte escaped they still fit into a reference's JSON (512 KiB) */
#define SAVED_MAX 256	   /* images in one archive of docker save */
#define REF_NAME_KEY "org.opencontainers.image.ref.name"
#define FULL_NAME_KEY "io.containerd.image.name" /* docker save's and containerd's: theirs is the tag alone in the other */

const char manifest_accept[] = OCI_INDEX ", " OCI_MANIFEST ", " DOCKER_LIST ", " DOCKER_MANIFEST;

static void json_p(json_t **j)
{
	json_decref(*j);
}

#define AUTO_JSON(name) CLEANUP(json_p) json_t *name = NULL

static int bad(struct err *err, const char *what, const char *why)
{
	return err_set(err, -EBADMSG, "%s: %s", what, why);
}

static char *shown(const char *s)
{
	return str_escape(s, MIN(strlen(s), (size_t)SHOWN_MAX));
}

static int load(const void *p, size_t n, const char *what, json_t **ret, struct err *err)
{
	AUTO_FREE(char, why);
	json_error_t je;

	if (n > MANIFEST_MAX)
		return bad(err, what, "longer than 4 MiB");
	*ret = json_loadb(p, n, JSON_REJECT_DUPLICATES, &je);
	if (*ret)
		return 0;
	why = shown(je.text);
	return err_set(err, -EBADMSG, "%s: no JSON (line %d: %s)", what, je.line, why);
}

static int load_object(const void *p, size_t n, const char *what, json_t **ret, struct err *err)
{
	int r = load(p, n, what, ret, err);

	if (r == 0 && !json_is_object(*ret))
		r = bad(err, what, "no JSON object");
	return r;
}

/* A string member; NULL when it is absent, null or another type. */
static const char *str_of(const json_t *j, const char *key)
{
	return json_string_value(json_object_get(j, key));
}

int digest_parse(const char *s, char ret[IM_DIGEST + 1])
{
	if (!str_starts(s, "sha256:"))
		return -EBADMSG;
	s += strlen("sha256:");
	if (strlen(s) != IM_DIGEST || strspn(s, "0123456789abcdef") != IM_DIGEST)
		return -EBADMSG;
	memcpy(ret, s, IM_DIGEST + 1);
	return 0;
}

static int descriptor_parse(const json_t *j, const char *what, struct descriptor *ret, struct err *err)
{
	const char *digest = str_of(j, "digest");
	const json_t *size = json_object_get(j, "size");
	AUTO_FREE(char, text);

	if (!digest || !json_is_integer(size) || json_integer_value(size) < 0)
		return bad(err, what, "a descriptor without digest and size");
	text = shown(digest);
	if (digest_parse(digest, ret->hex) < 0)
		return err_set(err, -EPROTONOSUPPORT, "%s: digest %s: not sha256: and 64 hex digits", what, text);
	ret->bytes = (uint64_t)json_integer_value(size);
	return 0;
}

/* --- what it is --- */

/* Compare with a media type up to its parameters. */
static bool type_is(const char *type, const char *want)
{
	size_t n = strcspn(type, "; \t");

	return n == strlen(want) && strncasecmp(type, want, n) == 0;
}

static enum manifest_kind kind_of_type(const char *type)
{
	if (type_is(type, OCI_INDEX) || type_is(type, DOCKER_LIST))
		return MANIFEST_INDEX;
	if (type_is(type, OCI_MANIFEST) || type_is(type, DOCKER_MANIFEST))
		return MANIFEST_IMAGE;
	return MANIFEST_UNKNOWN;
}

/* Types that registries send for want of a better one: they say nothing. */
static bool type_says_nothing(const char *type)
{
	return type_is(type, "application/json") || type_is(type, "application/octet-stream") ||
	       strncasecmp(type, "text/", 5) == 0 || *type == '\0';
}

static bool is_schema1(const char *type)
{
	return strncasecmp(type, SCHEMA1, strlen(SCHEMA1)) == 0;
}

static int unsupported(const char *type, struct err *err)
{
	AUTO_FREE(char, text);

	text = shown(type);
	if (is_schema1(type))
		return err_set(err, -EPROTONOSUPPORT, "manifest type %s: schema 1 is not supported; push the image again "
			       "with a current tool", text);
	return err_set(err, -EPROTONOSUPPORT, "manifest type %s: no container image", text);
}

int manifest_kind(const void *p, size_t n, const char *type, enum manifest_kind *ret, struct err *err)
{
	enum manifest_kind kind = MANIFEST_UNKNOWN, own = MANIFEST_UNKNOWN, seen;
	AUTO_JSON(j);
	const char *own_type;
	int r;

	r = load_object(p, n, "manifest", &j, err);
	if (r < 0)
		return r;
	if (json_object_get(j, "manifests") && json_object_get(j, "layers"))
		return bad(err, "manifest", "an index and an image at once");
	own_type = str_of(j, "mediaType");
	if (type && !type_says_nothing(type)) {
		kind = kind_of_type(type);
		if (kind == MANIFEST_UNKNOWN)
			return unsupported(type, err);
	}
	if (own_type) {
		own = kind_of_type(own_type);
		if (own == MANIFEST_UNKNOWN)
			return unsupported(own_type, err);
		if (kind != MANIFEST_UNKNOWN && own != kind)
			return bad(err, "manifest", "its mediaType contradicts the Content-Type header");
		kind = own;
	}
	if (!own_type && json_object_get(j, "fsLayers"))
		return unsupported(SCHEMA1 "json", err);
	seen = json_object_get(j, "manifests") ? MANIFEST_INDEX :
	       json_object_get(j, "layers")    ? MANIFEST_IMAGE :
						 MANIFEST_UNKNOWN;
	if (seen == MANIFEST_UNKNOWN || (kind != MANIFEST_UNKNOWN && kind != seen))
		return bad(err, "manifest", "without the members that its type has");
	*ret = seen;
	return 0;
}

bool manifest_is_foreign(const void *p, size_t n, const char *type)
{
	AUTO_JSON(j);

	return load_object(p, n, "manifest", &j, NULL) < 0 ||
	       (type && !type_says_nothing(type) && !is_schema1(type) && kind_of_type(type) == MANIFEST_UNKNOWN);
}

/* --- index --- */

static bool platform_fits(const json_t *platform, const char *arch)
{
	const char *os = str_of(platform, "os"), *a = str_of(platform, "architecture"), *v = str_of(platform, "variant");

	if (!os || !a || strcmp(os, "linux") != 0 || strcmp(a, arch) != 0)
		return false;
	/* Variants of amd64 from v2 on may not run here; arm64 is v8. */
	return !v || *v == '\0' || strcmp(v, strcmp(arch, "arm64") == 0 ? "v8" : "v1") == 0;
}

static bool is_attestation(const json_t *platform)
{
	const char *os = str_of(platform, "os"), *a = str_of(platform, "architecture");

	return os && a && strcmp(os, "unknown") == 0 && strcmp(a, "unknown") == 0;
}

static int none_fits(const json_t *manifests, const char *arch, struct err *err)
{
	char list[PLATFORMS_MAX + 8] = "";
	const json_t *e;
	size_t i, n = 0;

	json_array_foreach(manifests, i, e) {
		const json_t *p = json_object_get(e, "platform");
		const char *os = str_of(p, "os"), *a = str_of(p, "architecture"), *v = str_of(p, "variant");
		AUTO_FREE(char, text);
		AUTO_FREE(char, raw);

		if (!os || !a || is_attestation(p))
			continue;
		raw = xasprintf("%s/%s%s%s", os, a, v ? "/" : "", v ? v : "");
		text = shown(raw);
		if (n + strlen(text) + 2 > PLATFORMS_MAX) {
			(void)strcat(list, ", ...");
			break;
		}
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", text);
	}
	return err_set(err, -ENOEXEC, "no image for linux/%s in it, only for %s; use an image built for this machine", arch,
		       *list ? list : "none");
}

int index_pick(const void *p, size_t n, const char *arch, struct descriptor *ret, enum manifest_kind *ret_kind,
	       struct err *err)
{
	const json_t *manifests, *e, *pick = NULL;
	struct descriptor d;
	AUTO_JSON(j);
	const char *type;
	size_t i;
	int r;

	r = load_object(p, n, "index", &j, err);
	if (r < 0)
		return r;
	manifests = json_object_get(j, "manifests");
	if (!json_is_array(manifests))
		return bad(err, "index", "without a list of manifests");
	if (json_array_size(manifests) > MANIFEST_ENTRIES_MAX)
		return bad(err, "index", "more than 1024 entries");
	json_array_foreach(manifests, i, e)
		if (!pick && platform_fits(json_object_get(e, "platform"), arch))
			pick = e;
	if (!pick && json_array_size(manifests) == 1 && !json_object_get(json_array_get(manifests, 0), "platform"))
		pick = json_array_get(manifests, 0);
	if (!pick)
		return none_fits(manifests, arch, err);
	r = descriptor_parse(pick, "index", &d, err);
	if (r < 0)
		return r;
	type = str_of(pick, "mediaType");
	*ret_kind = type ? kind_of_type(type) : MANIFEST_UNKNOWN;
	if (type && *ret_kind == MANIFEST_UNKNOWN)
		return unsupported(type, err);
	*ret = d;
	return 0;
}

/* --- manifest --- */

static const struct layer_type {
	const char *type;
	enum im_compression compression;
} layer_types[] = {
	{ OCI "layer.v1.tar", IM_PLAIN },
	{ OCI "layer.v1.tar+gzip", IM_GZIP },
	{ OCI "layer.v1.tar+zstd", IM_ZSTD },
	{ OCI "layer.nondistributable.v1.tar", IM_PLAIN },
	{ OCI "layer.nondistributable.v1.tar+gzip", IM_GZIP },
	{ OCI "layer.nondistributable.v1.tar+zstd", IM_ZSTD },
	{ DOCKER "image.rootfs.diff.tar.gzip", IM_GZIP },
	{ DOCKER "image.rootfs.diff.tar.zstd", IM_ZSTD },
	{ DOCKER "image.rootfs.diff.tar", IM_PLAIN },
};

static int layer_parse(const json_t *j, size_t i, struct manifest_layer *ret, struct err *err)
{
	const char *type = str_of(j, "mediaType");
	AUTO_FREE(char, text);
	size_t k;

	if (json_array_size(json_object_get(j, "urls")) > 0)
		return err_set(err, -EPROTONOSUPPORT, "layer %zu: lies elsewhere (a foreign layer with urls); not supported",
			       i + 1);
	if (!type)
		return err_set(err, -EBADMSG, "layer %zu: without a mediaType", i + 1);
	for (k = 0; k < ARRAY_SIZE(layer_types); k++)
		if (strcmp(layer_types[k].type, type) == 0)
			break;
	text = shown(type);
	if (k == ARRAY_SIZE(layer_types))
		return err_set(err, -EPROTONOSUPPORT, "layer %zu: type %s is not supported", i + 1, text);
	ret->compression = layer_types[k].compression;
	return descriptor_parse(j, "layer", &ret->blob, err);
}

static bool config_type_is_good(const char *type)
{
	return strcmp(type, OCI "config.v1+json") == 0 || strcmp(type, DOCKER "container.image.v1+json") == 0;
}

static int layers_parse(const json_t *layers, struct manifest *m, struct err *err)
{
	uint64_t sum = 0;
	const json_t *e;
	size_t i;
	int r;

	json_array_foreach(layers, i, e) {
		r = layer_parse(e, i, &m->layers[i], err);
		if (r < 0)
			return r;
		if (__builtin_add_overflow(sum, m->layers[i].blob.bytes, &sum) || sum > INT64_MAX)
			return bad(err, "manifest", "layers larger than any disk");
	}
	m->n_layers = json_array_size(layers);
	return 0;
}

int manifest_parse(const void *p, size_t n, struct manifest *ret, struct err *err)
{
	const json_t *layers, *config;
	struct manifest m = { 0 };
	AUTO_FREE(char, text);
	const char *type;
	AUTO_JSON(j);
	int r;

	r = load_object(p, n, "manifest", &j, err);
	if (r < 0)
		return r;
	config = json_object_get(j, "config");
	layers = json_object_get(j, "layers");
	if (!json_is_object(config) || !json_is_array(layers))
		return bad(err, "manifest", "without config and layers");
	if (json_array_size(layers) == 0 || json_array_size(layers) > IM_LAYERS_MAX)
		return bad(err, "manifest", json_array_size(layers) ? "more than 512 layers" : "no layers");
	type = str_of(config, "mediaType");
	text = type ? shown(type) : NULL;
	if (type && !config_type_is_good(type))
		return err_set(err, -EPROTONOSUPPORT, "config type %s: no container image", text);
	r = descriptor_parse(config, "config", &m.config, err);
	if (r == 0 && m.config.bytes > MANIFEST_MAX)
		r = bad(err, "config", "longer than 4 MiB");
	if (r < 0)
		return r;
	m.layers = xcalloc(json_array_size(layers), sizeof(*m.layers));
	r = layers_parse(layers, &m, err);
	if (r < 0) {
		manifest_done(&m);
		return r;
	}
	*ret = m;
	return 0;
}

void manifest_done(struct manifest *m)
{
	free(m->layers);
	*m = (struct manifest){ 0 };
}

/* --- config --- */

static int diff_ids_parse(const json_t *rootfs, size_t n_layers, struct image_config *c, struct err *err)
{
	const json_t *ids = json_object_get(rootfs, "diff_ids"), *e;
	const char *type = str_of(rootfs, "type");
	size_t i;

	if ((type && strcmp(type, "layers") != 0) || !json_is_array(ids))
		return bad(err, "config", "without rootfs.diff_ids");
	if (json_array_size(ids) != n_layers)
		return err_set(err, -EBADMSG, "config: %zu diff_ids for %zu layers", json_array_size(ids), n_layers);
	c->diff_ids = xcalloc(n_layers, sizeof(*c->diff_ids));
	c->n_diff_ids = n_layers;
	json_array_foreach(ids, i, e)
		if (!json_is_string(e) || digest_parse(json_string_value(e), c->diff_ids[i]) < 0)
			return bad(err, "config", "a diff_id that is not sha256: and 64 hex digits");
	return 0;
}

static int env_parse(const json_t *config, struct image_config *c, struct err *err)
{
	const json_t *env = json_object_get(config, "Env"), *e;
	const char *user = str_of(config, "User");
	size_t i, all = 0;

	if (json_array_size(env) > ENV_MAX)
		return bad(err, "config", "more than 1000 variables");
	json_array_foreach(env, i, e) {
		const char *s = json_string_value(e);

		all += s ? strlen(s) + 1 : 0;
		if (all > ENV_BYTES_MAX)
			return bad(err, "config", "more than 64 KiB of environment (Env); use another image");

		if (s && *s != '=' && strchr(s, '='))
			strv_add(&c->env, s);
	}
	if (user && *user)
		c->user = xstrdup(user);
	return 0;
}

int config_parse(const void *p, size_t n, const char *arch, size_t n_layers, struct image_config *ret, struct err *err)
{
	struct image_config c = { 0 };
	AUTO_FREE(char, os_shown);
	AUTO_FREE(char, arch_shown);
	const char *os, *a;
	AUTO_JSON(j);
	int r;

	r = load_object(p, n, "config", &j, err);
	if (r < 0)
		return r;
	os = str_of(j, "os");
	a = str_of(j, "architecture");
	if (!os || !a)
		return bad(err, "config", "without os and architecture");
	os_shown = shown(os);
	arch_shown = shown(a);
	if (!platform_fits(j, arch))
		return err_set(err, -ENOEXEC, "image for %s/%s: this machine is linux/%s; use an image built for it", os_shown,
			       arch_shown, arch);
	r = diff_ids_parse(json_object_get(j, "rootfs"), n_layers, &c, err);
	if (r == 0)
		r = env_parse(json_object_get(j, "config"), &c, err);
	if (r < 0) {
		config_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}

void config_done(struct image_config *c)
{
	free(c->diff_ids);
	free(c->user);
	strv_done(&c->env);
	*c = (struct image_config){ 0 };
}

/* --- tables of contents --- */

/* docker.io/library/debian:12 is what everybody calls debian:12. */
static const char *without_hub(const char *name)
{
	static const char *const heads[] = { REF_HUB "/library/", REF_HUB "/" };

	for (size_t i = 0; name && i < ARRAY_SIZE(heads); i++)
		if (str_starts(name, heads[i]))
			return name + strlen(heads[i]);
	return name;
}

int layout_entries(const void *p, size_t n, struct layout_entry **ret, size_t *ret_n, struct err *err)
{
	const json_t *manifests, *e;
	struct layout_entry *list;
	AUTO_JSON(j);
	size_t i;
	int r;

	r = load_object(p, n, "index.json", &j, err);
	if (r < 0)
		return r;
	manifests = json_object_get(j, "manifests");
	if (!json_is_array(manifests) || json_array_size(manifests) == 0)
		return bad(err, "index.json", "no manifests");
	if (json_array_size(manifests) > MANIFEST_ENTRIES_MAX)
		return bad(err, "index.json", "more than 1024 entries");
	list = xcalloc(json_array_size(manifests), sizeof(*list));
	json_array_foreach(manifests, i, e) {
		const json_t *notes = json_object_get(e, "annotations");
		const char *tag = str_of(notes, REF_NAME_KEY), *name = without_hub(str_of(notes, FULL_NAME_KEY));

		r = descriptor_parse(e, "index.json", &list[i].desc, err);
		if (r < 0) {
			layout_entries_done(list, i);
			return r;
		}
		if (!name)
			name = tag;
		list[i].name = name ? xstrdup(name) : NULL;
		list[i].tag = tag ? xstrdup(tag) : NULL;
	}
	*ret = list;
	*ret_n = json_array_size(manifests);
	return 0;
}

void layout_entries_done(struct layout_entry *e, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(e[i].name);
		free(e[i].tag);
	}
	free(e);
}

static int strings(const json_t *j, size_t max, struct strv *ret)
{
	const json_t *e;
	size_t i;

	if (json_array_size(j) > max)
		return -EBADMSG;
	json_array_foreach(j, i, e) {
		if (!json_is_string(e))
			return -EBADMSG;
		strv_add(ret, json_string_value(e));
	}
	return 0;
}

int saved_images(const void *p, size_t n, struct saved_image **ret, size_t *ret_n, struct err *err)
{
	struct saved_image *list;
	const json_t *e;
	AUTO_JSON(j);
	size_t i;
	int r;

	r = load(p, n, "manifest.json", &j, err);
	if (r < 0)
		return r;
	if (!json_is_array(j) || json_array_size(j) == 0 || json_array_size(j) > SAVED_MAX)
		return bad(err, "manifest.json", "no list of 1 to 256 images");
	list = xcalloc(json_array_size(j), sizeof(*list));
	json_array_foreach(j, i, e) {
		const char *config = str_of(e, "Config");
		const json_t *layers = json_object_get(e, "Layers");

		if (!config || !json_is_array(layers) || json_array_size(layers) == 0 ||
		    strings(layers, IM_LAYERS_MAX, &list[i].layers) < 0 ||
		    strings(json_object_get(e, "RepoTags"), MANIFEST_ENTRIES_MAX, &list[i].names) < 0) {
			saved_images_done(list, i + 1);
			return bad(err, "manifest.json", "an image without Config and 1 to 512 Layers");
		}
		list[i].config = xstrdup(config);
	}
	*ret = list;
	*ret_n = json_array_size(j);
	return 0;
}

void saved_images_done(struct saved_image *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(s[i].config);
		strv_done(&s[i].layers);
		strv_done(&s[i].names);
	}
	free(s);
}
