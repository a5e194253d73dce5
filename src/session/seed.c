#include "session/seed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "session/registry.h"

#define RECORD_MAX (64 << 10) /* as session.c reads it */
#define SEED "seed"
#define USERS "seed_users"

static json_t *record_read(const struct session *s)
{
	AUTO_FREE(char, text);
	json_t *o;
	size_t n;

	if (file_read_beneath(s->root->projects_fd, s->info.hash, RECORD_MAX, &text, &n) < 0)
		return NULL;
	o = json_loadb(text, n, 0, NULL);
	if (json_is_object(o))
		return o;
	json_decref(o);
	return NULL;
}

static int record_write(const struct session *s, json_t *o)
{
	AUTO_FREE(char, text);

	text = json_dumps(o, JSON_INDENT(1));
	return text ? file_replace_at(s->root->projects_fd, s->info.hash, text, strlen(text), 0600) : -ENOMEM;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool seed_read(const json_t *o, uint8_t ret[SEED_BYTES])
{
	const char *hex = json_string_value(json_object_get(o, SEED));

	if (!hex || strlen(hex) != 2 * SEED_BYTES)
		return false;
	for (size_t i = 0; i < SEED_BYTES; i++) {
		int hi = hex_digit(hex[2 * i]), lo = hex_digit(hex[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		ret[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

/* Of those that are named: who lives, without this session. */
static json_t *users_alive(const struct session *s, const json_t *o)
{
	json_t *alive = json_array(), *user;
	size_t i;

	json_array_foreach(json_object_get(o, USERS), i, user)
	{
		const char *name = json_string_value(user);

		if (name && session_name_is_ours(name) && strcmp(name, s->info.name) != 0 &&
		    !registry_is_gone(s->root, name))
			(void)json_array_append(alive, user);
	}
	return alive;
}

static int draw(json_t *o, uint8_t seed[SEED_BYTES])
{
	char hex[2 * SEED_BYTES + 1];

	if (getrandom(seed, SEED_BYTES, 0) != SEED_BYTES)
		return -EIO;
	for (size_t i = 0; i < SEED_BYTES; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", seed[i]);
	return json_object_set_new(o, SEED, json_string(hex)) < 0 ? -ENOMEM : 0;
}

int seed_take(const struct session *s, uint8_t ret[SEED_BYTES], struct err *err)
{
	json_t *o, *users;
	AUTO_FD(lock);
	int r = 0;

	/* What is alive is judged, and the record changed, under this lock alone. */
	lock = registry_lock(s->root, err);
	if (lock < 0)
		return lock;
	o = record_read(s);
	if (!o)
		return err_set(err, -EBADMSG, "%s/run/projects/%s: is no record of a project; remove it", s->root->path,
			       s->info.hash);
	users = users_alive(s, o);
	if (json_array_size(users) == 0 || !seed_read(o, ret))
		r = draw(o, ret);
	if (r == 0 &&
	    (json_array_append_new(users, json_string(s->info.name)) < 0 || json_object_set(o, USERS, users) < 0))
		r = -ENOMEM;
	if (r == 0)
		r = record_write(s, o);
	json_decref(users);
	json_decref(o);
	return r < 0 ? err_set(err, r, "%s/run/projects/%s: cannot be written: %s", s->root->path, s->info.hash,
			       strerror(-r))
		     : 0;
}

void seed_drop(const struct session *s)
{
	json_t *o, *users;
	AUTO_FD(lock);

	if (!s->root)
		return;
	lock = registry_lock(s->root, NULL);
	o = lock < 0 ? NULL : record_read(s);
	if (!o)
		return;
	users = users_alive(s, o);
	if (json_array_size(users) > 0)
		(void)json_object_set(o, USERS, users);
	if (json_array_size(users) == 0) {
		(void)json_object_del(o, SEED);
		(void)json_object_del(o, USERS);
	}
	(void)record_write(s, o);
	json_decref(users);
	json_decref(o);
}
