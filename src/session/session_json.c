/* session.json: one object, version 1.
 *
 *   version, name, hash, pid, start_time, boot_id, pid_ns	the launcher, as in struct proc_id
 *   children	[{role, pid, start_time}]			of the same boot and pid namespace as the launcher
 *   project, verb, options [], image, monitor, cgroup, ports [], table [{label, text}]
 *   started, ended (milliseconds since 1970), result, exit_status, cause
 *
 * JSON holds only UTF-8, a path may hold any bytes: then "project" is the escaped text and "project_hex" the bytes. */
#include "session/session_json.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "session/session.h"

#define JSON_MAX (1 << 20) /* the table of a session with 64 mounts is a few KB */

static const char *const result_str[] = {
	[SESSION_RUNNING] = "running",
	[SESSION_EXIT] = "exit",
	[SESSION_SIGNAL] = "signal",
	[SESSION_START_FAILED] = "start-failed",
	[SESSION_LOST] = "lost",
	[SESSION_STOPPED] = "stopped",
	[SESSION_USAGE] = "usage",
};
static_assert(sizeof(result_str) / sizeof(*result_str) == SESSION_RESULTS, "result_str[] is incomplete");

const char *session_result_name(enum session_result r)
{
	assert(r < SESSION_RESULTS);
	return result_str[r];
}

void session_info_done(struct session_info *info)
{
	free(info->project);
	free(info->verb);
	free(info->image);
	free(info->monitor);
	free(info->cgroup);
	free(info->cause);
	strv_done(&info->options);
	strv_done(&info->ports);
	for (size_t i = 0; i < info->n_rows; i++) {
		free(info->rows[i].label);
		free(info->rows[i].text);
	}
	free(info->rows);
	memset(info, 0, sizeof(*info));
}

static json_t *json_checked(json_t *v)
{
	if (!v) {
		fputs("agent-vm: out of memory\n", stderr);
		abort();
	}
	return v;
}

static void put(json_t *obj, const char *key, json_t *v)
{
	if (json_object_set_new(obj, key, json_checked(v)) < 0)
		json_checked(NULL);
}

/* Text of any bytes; what is not UTF-8 is shown escaped. */
static json_t *text_json(const char *s)
{
	AUTO_FREE(char, shown);
	json_t *v = json_string(s);

	if (v)
		return v;
	shown = str_escape(s, strlen(s));
	return json_checked(json_string(shown));
}

static void put_text(json_t *obj, const char *key, const char *s)
{
	if (s)
		put(obj, key, text_json(s));
}

void session_json_put_bytes(json_t *obj, const char *key, const char *s)
{
	AUTO_FREE(char, hex_key);
	AUTO_FREE(char, hex);

	put_text(obj, key, s);
	if (!s || str_is_utf8(s, strlen(s)))
		return;
	hex_key = xasprintf("%s_hex", key);
	hex = xcalloc(strlen(s) * 2 + 1, 1);
	for (size_t i = 0; s[i]; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", (unsigned int)(unsigned char)s[i]);
	put(obj, hex_key, json_string(hex));
}

static void put_strv(json_t *obj, const char *key, const struct strv *v)
{
	json_t *list = json_checked(json_array());

	for (size_t i = 0; i < v->n; i++)
		if (json_array_append_new(list, text_json(v->v[i])) < 0)
			json_checked(NULL);
	put(obj, key, list);
}

json_t *session_info_to_json(const struct session_info *info)
{
	json_t *obj = json_checked(json_object()), *list;

	put(obj, "version", json_integer(SESSION_JSON_VERSION));
	put_text(obj, "name", info->name);
	put_text(obj, "hash", info->hash);
	put(obj, "pid", json_integer(info->launcher.pid));
	put(obj, "start_time", json_integer((json_int_t)info->launcher.start));
	put_text(obj, "boot_id", info->launcher.boot_id);
	put(obj, "pid_ns", json_integer((json_int_t)info->launcher.pid_ns));
	list = json_checked(json_array());
	for (size_t i = 0; i < info->n_children; i++) {
		const struct session_child *c = &info->children[i];

		if (json_array_append_new(list, json_checked(json_pack("{s:s, s:I, s:I}", "role", c->role, "pid",
								       (json_int_t)c->id.pid, "start_time",
								       (json_int_t)c->id.start))) < 0)
			json_checked(NULL);
	}
	put(obj, "children", list);
	session_json_put_bytes(obj, "project", info->project);
	put_text(obj, "verb", info->verb);
	put_strv(obj, "options", &info->options);
	put_text(obj, "image", info->image);
	put_text(obj, "monitor", info->monitor);
	session_json_put_bytes(obj, "cgroup", info->cgroup);
	put_strv(obj, "ports", &info->ports);
	list = json_checked(json_array());
	for (size_t i = 0; i < info->n_rows; i++) {
		json_t *row = json_checked(json_object());

		put_text(row, "label", info->rows[i].label);
		put_text(row, "text", info->rows[i].text);
		if (json_array_append_new(list, row) < 0)
			json_checked(NULL);
	}
	put(obj, "table", list);
	put(obj, "started", json_integer(info->started_ms));
	if (info->result != SESSION_RUNNING) {
		put(obj, "ended", json_integer(info->ended_ms));
		put(obj, "result", json_string(result_str[info->result]));
		put(obj, "exit_status", json_integer(info->exit_status));
		put_text(obj, "cause", info->cause);
	}
	return obj;
}

/* Reading. A member that is missing or of a wrong type gives the empty value; what decides about processes and names is
 * checked in session_info_parse(). */
static char *get_text(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return s ? xstrdup(s) : NULL;
}

static void get_fixed(const json_t *obj, const char *key, char *to, size_t size)
{
	const char *s = json_string_value(json_object_get(obj, key));

	(void)snprintf(to, size, "%s", s && strlen(s) < size ? s : "");
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

char *session_json_get_bytes(const json_t *obj, const char *key)
{
	AUTO_FREE(char, hex_key);
	AUTO_FREE(char, out);
	const char *hex;
	size_t n;

	hex_key = xasprintf("%s_hex", key);
	hex = json_string_value(json_object_get(obj, hex_key));
	if (!hex)
		return get_text(obj, key);
	n = strlen(hex) / 2;
	out = xcalloc(n + 1, 1);
	for (size_t i = 0; i < n; i++) {
		int hi = hex_digit(hex[2 * i]), lo = hex_digit(hex[2 * i + 1]);

		if (hi < 0 || lo < 0 || hi + lo == 0)
			return get_text(obj, key);
		out[i] = (char)(hi * 16 + lo);
	}
	return TAKE_PTR(out);
}

static void get_strv(const json_t *obj, const char *key, struct strv *to)
{
	const json_t *list = json_object_get(obj, key);

	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *s = json_string_value(json_array_get(list, i));

		if (s)
			strv_add(to, s);
	}
}

static pid_t get_pid(const json_t *obj)
{
	json_int_t v = json_integer_value(json_object_get(obj, "pid"));

	return v > 1 && v <= INT32_MAX ? (pid_t)v : 0;
}

static uint64_t get_u64(const json_t *obj, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(obj, key));

	return v > 0 ? (uint64_t)v : 0;
}

static void get_children(const json_t *obj, struct session_info *info)
{
	const json_t *list = json_object_get(obj, "children");

	for (size_t i = 0; i < json_array_size(list) && info->n_children < SESSION_CHILDREN_MAX; i++) {
		struct session_child *c = &info->children[info->n_children];
		const json_t *from = json_array_get(list, i);

		c->id = info->launcher;
		c->id.pid = get_pid(from);
		c->id.start = get_u64(from, "start_time");
		get_fixed(from, "role", c->role, sizeof(c->role));
		if (c->id.pid > 0)
			info->n_children++;
	}
}

static void get_rows(const json_t *obj, struct session_info *info)
{
	const json_t *list = json_object_get(obj, "table");

	info->rows = xcalloc(json_array_size(list) + 1, sizeof(*info->rows));
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *row = json_array_get(list, i);
		char *label = get_text(row, "label"), *text = get_text(row, "text");

		if (label && text) {
			info->rows[info->n_rows++] = (struct session_row){ label, text };
			continue;
		}
		free(label);
		free(text);
	}
}

static enum session_result get_result(const json_t *obj)
{
	const char *s = json_string_value(json_object_get(obj, "result"));

	for (int i = 0; s && i < SESSION_RESULTS; i++)
		if (strcmp(s, result_str[i]) == 0)
			return (enum session_result)i;
	return SESSION_RUNNING;
}

int session_info_parse(const char *text, size_t n, struct session_info *ret, struct err *err)
{
	struct session_info info = { .hash = "" };
	json_int_t version;
	json_error_t why;
	json_t *obj;

	obj = json_loadb(text, n, 0, &why);
	if (!json_is_object(obj)) {
		json_decref(obj);
		return err_set(err, -EBADMSG, "session.json: not a JSON object");
	}
	version = json_integer_value(json_object_get(obj, "version"));
	if (version != SESSION_JSON_VERSION) {
		json_decref(obj);
		if (version > SESSION_JSON_VERSION)
			return err_set(err, -EOPNOTSUPP,
				       "session.json: written by a newer agent-vm (version %lld, this one knows %d); "
				       "update agent-vm",
				       (long long)version, SESSION_JSON_VERSION);
		return err_set(err, -EBADMSG, "session.json: no version");
	}
	get_fixed(obj, "name", info.name, sizeof(info.name));
	get_fixed(obj, "hash", info.hash, sizeof(info.hash));
	info.launcher.pid = get_pid(obj);
	info.launcher.start = get_u64(obj, "start_time");
	info.launcher.pid_ns = get_u64(obj, "pid_ns");
	get_fixed(obj, "boot_id", info.launcher.boot_id, sizeof(info.launcher.boot_id));
	get_children(obj, &info);
	info.project = session_json_get_bytes(obj, "project");
	info.verb = get_text(obj, "verb");
	get_strv(obj, "options", &info.options);
	info.image = get_text(obj, "image");
	info.monitor = get_text(obj, "monitor");
	info.cgroup = session_json_get_bytes(obj, "cgroup");
	get_strv(obj, "ports", &info.ports);
	get_rows(obj, &info);
	info.started_ms = (int64_t)get_u64(obj, "started");
	info.ended_ms = (int64_t)get_u64(obj, "ended");
	info.result = get_result(obj);
	info.exit_status = (int)json_integer_value(json_object_get(obj, "exit_status"));
	info.cause = get_text(obj, "cause");
	json_decref(obj);
	if (!info.name[0] || strlen(info.hash) != PROJECT_HASH_LEN || !info.project || !info.verb) {
		session_info_done(&info);
		return err_set(err, -EBADMSG, "session.json: name, hash, project or verb is missing");
	}
	*ret = info;
	return 0;
}

int session_info_read(int dirfd, struct session_info *ret, struct err *err)
{
	AUTO_FREE(char, text);
	size_t n;
	int r;

	r = file_read_beneath(dirfd, SESSION_JSON, JSON_MAX, &text, &n);
	if (r < 0)
		return err_set(err, r, "session.json: cannot be read: %s", strerror(-r));
	return session_info_parse(text, n, ret, err);
}

int session_info_write(int dirfd, const struct session_info *info, bool sync)
{
	AUTO_FREE(char, text);
	json_t *obj = session_info_to_json(info);

	text = json_dumps(obj, JSON_INDENT(1));
	json_decref(obj);
	if (!text)
		return -ENOMEM;
	return (sync ? file_replace_at : file_replace_unsynced_at)(dirfd, SESSION_JSON, text, strlen(text), 0600);
}

void session_info_from_name(const char *name, struct session_info *ret)
{
	struct session_info info = { .hash = "" };

	(void)snprintf(info.name, sizeof(info.name), "%s", name);
	(void)snprintf(info.hash, sizeof(info.hash), "%s", name + strlen(SESSION_NAME_PREFIX));
	info.project = xstrdup("?");
	info.verb = xstrdup("?");
	*ret = info;
}
