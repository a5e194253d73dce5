#include "session/made.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/macros.h"
#include "session/path.h"
#include "session/registry.h"
#include "session/session_json.h"

#define MADE_VERSION 1
#define MADE_MAX (16 << 20) /* bytes: some thousand places with long paths */

static int run_open(const struct state_root *root)
{
	return file_open_beneath(root->fd, STATE_RUN, O_RDONLY | O_DIRECTORY, 0);
}

/* What cannot be read counts as nothing, but for a newer version. The places it named then stay: empty, harmless. */
static int load(int run, json_t **ret)
{
	AUTO_FREE(char, text);
	json_t *obj = NULL;
	size_t n;
	int r;

	r = file_read_beneath(run, MADE_FILE, MADE_MAX, &text, &n);
	if (r == 0)
		obj = json_loadb(text, n, 0, NULL);
	if (json_integer_value(json_object_get(obj, "version")) > MADE_VERSION) {
		json_decref(obj);
		return -EOPNOTSUPP;
	}
	if (!json_is_array(json_object_get(obj, "made"))) {
		json_decref(obj);
		obj = json_pack("{s:i, s:[]}", "version", MADE_VERSION, "made");
		if (!obj)
			return -ENOMEM;
	}
	*ret = obj;
	return 0;
}

static int save(int run, const json_t *obj)
{
	AUTO_FREE(char, text);

	if (json_array_size(json_object_get(obj, "made")) == 0)
		return unlinkat(run, MADE_FILE, 0) < 0 && errno != ENOENT ? -errno : 0;
	text = json_dumps(obj, JSON_INDENT(1));
	return text ? file_replace_at(run, MADE_FILE, text, strlen(text), 0600) : -ENOMEM;
}

static json_t *find(const json_t *list, const char *path)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *e = json_array_get(list, i);
		AUTO_FREE(char, have);

		have = session_json_get_bytes(e, "path");
		if (have && strcmp(have, path) == 0)
			return e;
	}
	return NULL;
}

static void hold(json_t *list, json_t *entry, const char *path, const char *session)
{
	if (!entry) {
		entry = json_pack("{s:[]}", "by");
		if (!entry || json_array_append_new(list, entry) < 0)
			return;
		session_json_put_bytes(entry, "path", path);
	}
	(void)json_array_append_new(json_object_get(entry, "by"), json_string(session));
}

static int make(const char *path, struct err *err)
{
	AUTO_FREE(char, shown);
	int r = guard_place_make(path);

	/* Somebody else did, between our look and now; at worst theirs is removed when it is empty. */
	if (r == 0 || r == -EEXIST)
		return 0;
	shown = path_shown(path);
	return err_set(err, r, "%s: cannot be made to guard it: %s; make it, or repair the git directory", shown, strerror(-r));
}

int made_take(const struct state_root *root, const char *session, const struct guard *g, struct err *err)
{
	json_t *obj = NULL, *list;
	struct strv missing = { 0 };
	AUTO_FD(lock);
	AUTO_FD(run);
	int r;

	if (g->make.n == 0)
		return 0;
	lock = registry_lock(root, err);
	if (lock < 0)
		return lock;
	run = run_open(root);
	r = run < 0 ? run : load(run, &obj);
	if (r < 0)
		return err_set(err, r, "%s/" STATE_RUN "/" MADE_FILE ": %s", root->path,
			       r == -EOPNOTSUPP ? "written by a newer agent-vm; update agent-vm" : strerror(-r));
	list = json_object_get(obj, "made");
	for (size_t i = 0; i < g->make.n; i++) {
		const char *path = g->make.v[i];
		json_t *entry = find(list, path);
		bool is_missing = guard_place_there(path) == -ENOENT;

		if (is_missing)
			strv_add(&missing, path);
		if (is_missing || entry)
			hold(list, entry, path, session);
	}
	/* Written first: what is made is then never forgotten. */
	r = save(run, obj);
	json_decref(obj);
	if (r < 0)
		(void)err_set(err, r, "%s/" STATE_RUN "/" MADE_FILE ": cannot be written: %s", root->path, strerror(-r));
	for (size_t i = 0; r == 0 && i < missing.n; i++)
		r = make(missing.v[i], err);
	strv_done(&missing);
	return r;
}

void made_drop_locked(const struct state_root *root, const char *session)
{
	struct strv gone = { 0 };
	json_t *obj = NULL, *list;
	bool changed = false;
	AUTO_FD(run);

	run = run_open(root);
	if (run < 0 || load(run, &obj) < 0)
		return;
	list = json_object_get(obj, "made");
	for (size_t i = json_array_size(list); i-- > 0;) {
		json_t *entry = json_array_get(list, i), *by = json_object_get(entry, "by");

		for (size_t k = json_array_size(by); k-- > 0;) {
			const char *name = json_string_value(json_array_get(by, k));

			if (name && strcmp(name, session) != 0)
				continue;
			(void)json_array_remove(by, k);
			changed = true;
		}
		if (json_array_size(by) > 0)
			continue;
		strv_take(&gone, session_json_get_bytes(entry, "path"));
		(void)json_array_remove(list, i);
		changed = true;
	}
	for (size_t i = 0; i < gone.n; i++)
		guard_place_remove(gone.v[i]);
	/* Last: after a death in between the reaper does the rest. */
	if (changed)
		(void)save(run, obj);
	json_decref(obj);
	strv_done(&gone);
}

void made_drop(const struct state_root *root, const char *session)
{
	AUTO_FD(lock);

	lock = registry_lock(root, NULL);
	if (lock >= 0)
		made_drop_locked(root, session);
}
