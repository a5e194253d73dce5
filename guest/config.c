#include "guest/config.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "guest/jedit.h"
#include "proto/ctl.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"

#define LIST_MAX 1024 /* links, files, folders: some dozens each, and the user's own skills and commands */
#define RULES_MAX 128 /* of a file */

/* A string that stands once. */
static int once(struct span val, char **ret)
{
	return *ret || val.n == 0 ? -EBADMSG : span_dup(val, ret);
}

/* Absolute, without "..": what is made below the new root stays there. */
static int once_path(struct span val, char **ret)
{
	int r = once(val, ret);
	size_t n = 0;

	if (r < 0)
		return r;
	if (**ret != '/')
		return -EBADMSG;
	for (const char *p = *ret; *p; p += n) {
		p += strspn(p, "/");
		n = strcspn(p, "/");
		if (n == 2 && memcmp(p, "..", 2) == 0)
			return -EBADMSG;
	}
	return 0;
}

/* A zeroed element at the end of a list. */
static void *add(void *list_p, size_t *n, size_t size, size_t max)
{
	void **list = list_p, *more;

	if (*n >= max)
		return NULL;
	more = realloc(*list, (*n + 1) * size);
	if (!more)
		return NULL;
	*list = more;
	return memset((char *)more + size * (*n)++, 0, size);
}

static int parse_bind(struct config *c, struct span in)
{
	struct config_bind *b = add(&c->binds, &c->n_binds, sizeof(*b), GC_BINDS_MAX);
	struct span val;
	uint64_t ro = 0;
	uint16_t key;
	int r;

	if (!b)
		return -ENOMEM;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		switch (key) {
		case GC_SUB:
			r = once(val, &b->sub);
			break;
		case GC_TAG:
			r = once(val, &b->tag);
			break;
		case GC_TARGET:
			r = once_path(val, &b->target);
			break;
		case GC_RO:
			r = rec_u64(val, 1, &ro);
			break;
		default:
			return -EBADMSG;
		}
		if (r < 0)
			return r;
	}
	b->ro = ro != 0;
	if (r < 0 || !b->target || !b->sub == !b->tag)
		return -EBADMSG;
	/* One component: the folder of the share is chosen, not walked to. */
	return b->sub && (strchr(b->sub, '/') || b->sub[0] == '.') ? -EBADMSG : 0;
}

static int parse_link(struct config *c, struct span in)
{
	struct config_link *l = add(&c->links, &c->n_links, sizeof(*l), LIST_MAX);
	struct span val;
	uint16_t key;
	int r;

	if (!l)
		return -ENOMEM;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		r = key == GC_PATH ? once_path(val, &l->path) : key == GC_TARGET ? once(val, &l->target) : -EBADMSG;
		if (r < 0)
			return r;
	}
	return r < 0 || !l->path || !l->target ? -EBADMSG : 0;
}

static int parse_file(struct config *c, struct span in)
{
	struct config_file *f = add(&c->files, &c->n_files, sizeof(*f), LIST_MAX);
	struct span val;
	uint64_t mode = 0644;
	uint16_t key;
	int r;

	if (!f)
		return -ENOMEM;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		if (key == GC_CONTENT)
			f->content = val;
		else
			r = key == GC_PATH ? once_path(val, &f->path) :
			    key == GC_MODE ? rec_u64(val, 07777, &mode) : -EBADMSG;
		if (r < 0)
			return r;
	}
	f->mode = (uint32_t)mode;
	return r < 0 || !f->path ? -EBADMSG : 0;
}

static int parse_dir(struct config *c, struct span in)
{
	struct config_dir *d = add(&c->dirs, &c->n_dirs, sizeof(*d), LIST_MAX);
	struct span val;
	uint64_t mode = 0755;
	uint16_t key;
	int r;

	if (!d)
		return -ENOMEM;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		r = key == GC_PATH ? once_path(val, &d->path) : key == GC_MODE ? rec_u64(val, 07777, &mode) : -EBADMSG;
		if (r < 0)
			return r;
	}
	d->mode = (uint32_t)mode;
	return r < 0 || !d->path ? -EBADMSG : 0;
}

/* What each kind needs. JSON becomes a part of a file, so it is looked at like anything else. */
static bool rule_is_whole(const struct config_rule *rule)
{
	struct span v = rule->value;

	if (rule->n_keys == 0)
		return false;
	if (rule->kind == GC_RULE_ORPHAN)
		return rule->with && v.n == 0;
	if (rule->kind == GC_RULE_TABLE)
		return v.n > 0 && v.p[v.n - 1] == '\n' && str_is_utf8((const char *)v.p, v.n);
	if (v.n == 0)
		return rule->kind == GC_RULE_DROP || rule->kind == GC_RULE_LOGIN || rule->kind == GC_RULE_TAIL;
	return jedit_is_value(v) && (rule->kind != GC_RULE_TAIL || v.p[0] == '"') && (rule->kind != GC_RULE_LOGIN || v.p[0] == '{');
}

static int parse_rule(struct config_state *s, struct span in)
{
	struct config_rule *rule = add(&s->rules, &s->n_rules, sizeof(*rule), RULES_MAX);
	uint64_t kind = GC_RULES;
	struct span val;
	uint16_t key;
	int r;

	if (!rule)
		return -ENOMEM;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		if (key == GC_RULE_KIND)
			r = rec_u64(val, GC_RULES - 1, &kind);
		else if (key == GC_VALUE && rule->value.n == 0)
			rule->value = val;
		else if (key == GC_WITH)
			r = once_path(val, &rule->with);
		else if (key == GC_KEY && rule->n_keys < GC_KEYS_MAX && str_is_utf8((const char *)val.p, val.n) &&
			 (val.n == 0 || !memchr(val.p, 0, val.n)))
			rule->keys[rule->n_keys++] = val;
		else
			return -EBADMSG;
		if (r < 0)
			return r;
	}
	rule->kind = (enum guestcfg_rule)kind;
	return r == 0 && kind < GC_RULES && rule_is_whole(rule) ? 0 : -EBADMSG;
}

/* Relative; no component is empty, "." or "..". */
static int once_state_path(struct span val, char **ret)
{
	int r = once(val, ret);

	for (const char *p = r < 0 ? NULL : *ret; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL) {
		size_t n = strcspn(p, "/");

		if (n == 0 || n > NAME_MAX || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return -EBADMSG;
	}
	return r;
}

static int parse_state(struct config *c, struct span in)
{
	struct config_state *s = add(&c->states, &c->n_states, sizeof(*s), LIST_MAX);
	uint64_t form = GC_FORMS;
	struct span val;
	uint16_t key;
	int r;

	if (!s)
		return -ENOMEM;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		switch (key) {
		case GC_PATH:
			r = once_state_path(val, &s->path);
			break;
		case GC_FORM:
			r = rec_u64(val, GC_FORMS - 1, &form);
			break;
		case GC_CONTENT:
			s->content = val;
			break;
		case GC_TARGET:
			r = once_path(val, &s->target);
			break;
		case GC_RULE:
			r = parse_rule(s, val);
			break;
		default:
			return -EBADMSG;
		}
		if (r < 0)
			return r;
	}
	s->form = (enum guestcfg_form)form;
	if (r < 0 || !s->path || form == GC_FORMS || (form == GC_FORM_LINK) != (s->target != NULL))
		return -EBADMSG;
	if (s->target && !str_starts(s->target, GC_HOST_AT "/"))
		return -EBADMSG;
	for (size_t i = 0; i < s->n_rules; i++)
		if ((form == GC_FORM_TOML) != (s->rules[i].kind == GC_RULE_TABLE) || form > GC_FORM_TOML)
			return -EBADMSG;
	return 0;
}

/* One component. */
static int once_name(struct span val, char **ret)
{
	int r = once(val, ret);

	return r < 0 ? r : strchr(*ret, '/') || (*ret)[0] == '.' || val.n > 64 ? -EBADMSG : 0;
}

static int parse_db(struct config *c, struct span in)
{
	struct config_db *db = &c->dbs[c->n_dbs];
	struct span val;
	uint16_t key;
	int r;

	if (c->n_dbs >= GC_DBS_MAX)
		return -EBADMSG;
	c->n_dbs++;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		r = key == GC_PATH   ? once_name(val, &db->name)
		    : key == GC_SUB  ? once_name(val, &db->folder)
		    : key == GC_LINK ? once_name(val, &db->link)
				     : -EBADMSG;
		if (r < 0)
			return r;
	}
	return r < 0 || !db->name || !db->folder ? -EBADMSG : 0;
}

/* ADDRESS GATEWAY BITS of @n bytes an address. */
static int net_family(struct span val, size_t n, uint8_t *addr, uint8_t *gateway, uint8_t *bits)
{
	if (val.n != 2 * n + 1 || *bits != 0 || val.p[2 * n] == 0 || val.p[2 * n] > 8 * n)
		return -EBADMSG;
	memcpy(addr, val.p, n);
	memcpy(gateway, val.p + n, n);
	*bits = val.p[2 * n];
	return 0;
}

static int parse_net(struct config_net *net, struct span in)
{
	bool mac = false;
	struct span val;
	uint64_t mtu = 0;
	uint16_t key;
	int r;

	if (net->mtu != 0)
		return -EBADMSG;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		switch (key) {
		case GC_NET_MTU:
			r = rec_u64(val, GC_NET_MTU_MAX, &mtu);
			break;
		case GC_NET_MAC:
			mac = val.n == sizeof(net->gateway_mac);
			if (mac)
				memcpy(net->gateway_mac, val.p, val.n);
			break;
		case GC_NET_V4:
			r = net_family(val, 4, net->addr4, net->gateway4, &net->bits4);
			break;
		case GC_NET_V6:
			r = net_family(val, 16, net->addr6, net->gateway6, &net->bits6);
			break;
		default:
			return -EBADMSG;
		}
		if (r < 0)
			return r;
	}
	net->mtu = (uint32_t)mtu;
	return r < 0 || !mac || mtu < 1280 || (net->bits4 == 0 && net->bits6 == 0) ? -EBADMSG : 0;
}

static int parse_ports(struct config_ports *p, struct span in)
{
	struct span val;
	uint64_t u;
	uint16_t key;
	int r;

	if (p->wanted)
		return -EBADMSG;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		if (key == GC_AUTO && (r = rec_u64(val, 1, &u)) == 0)
			p->automatic = u != 0;
		else if (key != GC_PORT || p->n == GC_PORTS_MAX || (r = rec_u64(val, UINT16_MAX, &u)) < 0 || u == 0)
			return -EBADMSG;
		else
			p->v[p->n++] = (uint16_t)u;
	}
	p->wanted = true;
	return r;
}

static int parse_probe(struct config *c, struct span in)
{
	struct config_probe *p = &c->probes[c->n_probes];
	uint64_t tcp = 2, port = 0;
	struct span val;
	uint16_t key;
	int r;

	if (c->n_probes >= GC_PROBES_MAX)
		return -EBADMSG;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		switch (key) {
		case GC_PROBE_TCP:
			r = rec_u64(val, 1, &tcp);
			break;
		case GC_PROBE_ADDR:
			r = span_u8(&val, &p->family);
			if (r == 0 && val.n != (p->family == 4 ? 4u : p->family == 6 ? 16u : 0u))
				r = -EBADMSG;
			if (r == 0)
				memcpy(p->addr, val.p, val.n);
			break;
		case GC_PROBE_PORT:
			r = rec_u64(val, UINT16_MAX, &port);
			break;
		case GC_PROBE_SAY:
			r = val.n > 0 && val.n <= GC_PROBE_SAY_MAX ? 0 : -EBADMSG;
			p->say = val;
			break;
		default:
			return -EBADMSG;
		}
		if (r < 0)
			return r;
	}
	p->tcp = tcp == 1;
	p->port = (uint16_t)port;
	if (r < 0 || tcp > 1 || port == 0 || p->family == 0 || (!p->tcp && p->say.n == 0))
		return -EBADMSG;
	c->n_probes++;
	return 0;
}

static int parse_ca(struct config_ca *ca, struct span in)
{
	struct span val;
	uint64_t hash = UINT64_MAX;
	uint16_t key;
	int r;

	if (ca->own.n > 0 || ca->host.n > 0)
		return -EBADMSG;
	while ((r = rec_next(&in, &key, &val)) == 1) {
		if (key == GC_CA_OWN && ca->own.n == 0)
			ca->own = val;
		else if (key == GC_CA_HOST && ca->host.n == 0)
			ca->host = val;
		else
			r = key == GC_CA_HASH ? rec_u64(val, UINT32_MAX, &hash) : -EBADMSG;
		if (r < 0)
			return r;
	}
	ca->hash = (uint32_t)hash;
	return r < 0 || (ca->own.n == 0 && ca->host.n == 0) || (ca->own.n > 0) != (hash != UINT64_MAX) ? -EBADMSG : 0;
}

static int parse_one(struct config *c, uint16_t key, struct span val)
{
	switch (key) {
	case GC_HOSTNAME:
		return val.n <= 64 ? once(val, &c->hostname) : -EBADMSG;
	case GC_ROOT:
		return once(val, &c->root);
	case GC_ROOT_FS:
		return once(val, &c->root_fs);
	case GC_ROOT_BYTES:
		return rec_u64(val, INT64_MAX, &c->root_bytes);
	case GC_SHARE_TAG:
		return once(val, &c->share_tag);
	case GC_BIND:
		return parse_bind(c, val);
	case GC_LINK:
		return parse_link(c, val);
	case GC_FILE:
		return parse_file(c, val);
	case GC_DIR:
		return parse_dir(c, val);
	case GC_STATE:
		return parse_state(c, val);
	case GC_DB:
		return parse_db(c, val);
	case GC_NET:
		return parse_net(&c->net, val);
	case GC_PORTS:
		return parse_ports(&c->ports, val);
	case GC_PROBE:
		return parse_probe(c, val);
	case GC_PROBE_MS:
		return rec_u64(val, GC_PROBE_MS_MAX, &c->probe_ms);
	case GC_CA:
		return parse_ca(&c->ca, val);
	case GC_FLAGS:
		return rec_u64(val, GC_F_ALL, &c->flags);
	case GC_LIVE:
		if (val.n == 0 || c->n_live == GC_LIVE_MAX)
			return -EBADMSG;
		c->live[c->n_live++] = val;
		return 0;
	default:
		return -EBADMSG;
	}
}

/* "/a" before "/a/b"; what does not lie in each other may stand in any order. */
static int parent_first(const void *a, const void *b)
{
	return strcmp(((const struct config_bind *)a)->target, ((const struct config_bind *)b)->target);
}

int config_parse(struct span in, struct config *ret, struct err *err)
{
	struct span val;
	uint16_t key = 0;
	int r;

	*ret = (struct config){ 0 };
	while ((r = rec_next(&in, &key, &val)) == 1) {
		r = parse_one(ret, key, val);
		if (r < 0)
			break;
	}
	if (r < 0)
		return err_set(err, r, "configuration of the guest: record of key %u is not understood: %s; "
			       "reinstall agent-vm, its parts are of different versions", key, strerror(-r));
	for (size_t i = 0; i < ret->n_binds; i++)
		if (ret->binds[i].sub && !ret->share_tag)
			return err_set(err, -EBADMSG, "configuration of the guest: %s is bound from a share that is not named",
				       ret->binds[i].target);
	if (ret->ports.wanted && ret->net.bits4 == 0)
		return err_set(err, -EBADMSG, "configuration of the guest: ports are published without an address");
	if (ret->n_binds > 1)
		qsort(ret->binds, ret->n_binds, sizeof(*ret->binds), parent_first);
	return 0;
}

void config_done(struct config *c)
{
	for (size_t i = 0; i < c->n_binds; i++) {
		free(c->binds[i].sub);
		free(c->binds[i].tag);
		free(c->binds[i].target);
	}
	for (size_t i = 0; i < c->n_links; i++) {
		free(c->links[i].path);
		free(c->links[i].target);
	}
	for (size_t i = 0; i < c->n_files; i++)
		free(c->files[i].path);
	for (size_t i = 0; i < c->n_dirs; i++)
		free(c->dirs[i].path);
	for (size_t i = 0; i < c->n_dbs; i++) {
		free(c->dbs[i].name);
		free(c->dbs[i].folder);
		free(c->dbs[i].link);
	}
	for (size_t i = 0; i < c->n_states; i++) {
		free(c->states[i].path);
		free(c->states[i].target);
		for (size_t k = 0; k < c->states[i].n_rules; k++)
			free(c->states[i].rules[k].with);
		free(c->states[i].rules);
	}
	free(c->states);
	free(c->binds);
	free(c->links);
	free(c->files);
	free(c->dirs);
	free(c->hostname);
	free(c->root);
	free(c->root_fs);
	free(c->share_tag);
	*c = (struct config){ 0 };
}
