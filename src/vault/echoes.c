#include "vault/echoes.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"
#include "proto/pathtpl.h"

/* Of all places that have none of their own; its path is empty. */
static bool is_elsewhere(const struct vault_echo *m)
{
	return m->host == HOSTS;
}

static size_t place(struct echoes *e, uint8_t host, const char path[NET_NOTE_PATH])
{
	size_t i = 0;

	while (i < e->n && (e->v[i].host != host || strcmp(e->v[i].path, path) != 0))
		i++;
	if (i < e->n)
		return i;
	if (e->n < ECHOES_MAX - (host != HOSTS)) {
		e->v[e->n] = (struct vault_echo){ .what = NET_CTL_ECHO, .host = host };
		memcpy(e->v[e->n].path, path, NET_NOTE_PATH);
		return e->n++;
	}
	return ECHOES_MAX;
}

const struct vault_echo *echoes_add(struct echoes *e, enum prov_host_id host, const char path[NET_NOTE_PATH],
				    size_t hits)
{
	static const char none[NET_NOTE_PATH];
	size_t i = place(e, (uint8_t)host, path);
	struct vault_echo *m = &e->v[i < ECHOES_MAX ? i : place(e, HOSTS, none)];

	m->n = hits > UINT32_MAX - m->n ? UINT32_MAX : m->n + (uint32_t)hits;
	i = (size_t)(m - e->v);
	if (m->n == e->told[i] || m->n / 2 < e->told[i])
		return NULL;
	e->told[i] = m->n;
	return m;
}

const struct vault_echo *echoes_rest(struct echoes *e)
{
	for (size_t i = 0; i < e->n; i++)
		if (e->told[i] != e->v[i].n) {
			e->told[i] = e->v[i].n;
			return &e->v[i];
		}
	return NULL;
}

int echoes_take(struct echoes *e, const void *msg, size_t n)
{
	struct vault_echo m;
	size_t i;

	if (n != sizeof(m))
		return -EBADMSG;
	memcpy(&m, msg, sizeof(m));
	if (m.what != NET_CTL_ECHO || m.host > HOSTS || m.zero != 0 || m.n == 0 || !pathtpl_is(m.path) ||
	    (is_elsewhere(&m) && m.path[0] != '\0'))
		return -EBADMSG;
	i = place(e, m.host, m.path);
	if (i == ECHOES_MAX || m.n < e->v[i].n)
		return -EBADMSG;
	e->v[i].n = m.n;
	return 0;
}

char *echoes_text(const struct echoes *e)
{
	char *text = NULL;

	for (size_t i = 0; i < e->n; i++) {
		AUTO_FREE(char, was);

		was = TAKE_PTR(text);
		text = xasprintf("%s%s%s%s (%u time%s)", was ? was : "", was ? ", " : "",
				 is_elsewhere(&e->v[i]) ? "elsewhere" : prov_hosts[e->v[i].host].name, e->v[i].path,
				 e->v[i].n, e->v[i].n == 1 ? "" : "s");
	}
	return text;
}
