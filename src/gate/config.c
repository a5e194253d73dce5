#include "gate/config.h"

#include <errno.h>
#include <string.h>

#include "proto/gatecfg.h"
#include "proto/rec.h"

static int opened(struct span v, struct prov_launch *launch)
{
	uint64_t prov = PROVS, bits = 0;
	uint16_t key;
	struct span one;
	int r;

	while ((r = rec_next(&v, &key, &one)) > 0) {
		if (key == GTC_PROV && prov == PROVS)
			r = rec_u64(one, PROVS - 1, &prov);
		else if (key == GTC_BITS && bits == 0)
			r = rec_u64(one, (1u << CLASSES) - 1, &bits);
		else
			r = -EBADMSG;
		if (r < 0)
			return r;
	}
	/* No flag opens CLASS_NEVER. */
	if (r < 0 || prov == PROVS || bits == 0 || bits & 1u << CLASS_NEVER || launch->opened[prov] != 0)
		return -EBADMSG;
	launch->opened[prov] = (uint16_t)bits;
	return 0;
}

static int repo(struct span v, struct gh_scope *s)
{
	struct span slug = SPAN(NULL, 0), one;
	uint64_t level = GH_LEVELS;
	struct gh_slug name;
	size_t n = s->n;
	uint16_t key;
	int r;

	while ((r = rec_next(&v, &key, &one)) > 0) {
		if (key == GTC_SLUG && !slug.p)
			slug = one;
		else if (key == GTC_LEVEL && level == GH_LEVELS)
			r = rec_u64(one, GH_LEVELS - 1, &level);
		else
			r = -EBADMSG;
		if (r < 0)
			return r;
	}
	/* One that is listed twice is none of the launcher's. */
	if (r < 0 || !slug.p || level == GH_LEVELS || !gh_slug_parse(slug, &name) ||
	    gh_scope_add(s, name, (enum gh_level)level) < 0 || s->n == n)
		return -EBADMSG;
	return 0;
}

/* What may stand in a certificate's name. */
static int session(struct span v, char *ret)
{
	if (v.n == 0 || v.n > GATE_SESSION_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < v.n; i++)
		if (v.p[i] < 0x20 || v.p[i] > 0x7e)
			return -EBADMSG;
	memcpy(ret, v.p, v.n);
	return 0;
}

int gate_config_parse(struct span in, struct gate_config *ret, struct err *err)
{
	struct gate_config *c = ret;
	unsigned seen = 0;
	uint16_t key = 0;
	uint64_t u;
	struct span v;
	int r;

	memset(c, 0, sizeof(*c));
	gh_scope_init(&c->github);
	while ((r = rec_next(&in, &key, &v)) > 0) {
		if (key != GTC_OPENED && key != GTC_REPO && (key > GTC_LEVEL || seen & 1u << key)) {
			r = -EBADMSG;
			break;
		}
		seen |= 1u << key;
		switch (key) {
		case GTC_SEED:
			r = v.n == sizeof(c->seed) ? 0 : -EBADMSG;
			if (r == 0)
				memcpy(c->seed, v.p, v.n);
			break;
		case GTC_LENT:
			r = rec_u64(v, PH_ALL, &u);
			c->launch.lent = r == 0 ? (uint32_t)u : 0;
			break;
		case GTC_OPENED:
			r = opened(v, &c->launch);
			break;
		case GTC_SESSION:
			r = session(v, c->session);
			break;
		case GTC_REPO:
			r = repo(v, &c->github);
			break;
		case GTC_SWITCHES:
			r = rec_u64(v, GH_SWITCH_BIT(GH_SWITCHES) - 1, &u);
			c->github.switches = r == 0 ? (unsigned)u : 0;
			break;
		case GTC_PUSH_REFS:
			r = gh_scope_push_refs(&c->github, v) < 0 ? -EBADMSG : 0;
			break;
		default:
			r = -EBADMSG;
		}
		if (r < 0)
			break;
	}
	if (r == 0 && (~seen & (1u << GTC_SEED | 1u << GTC_LENT | 1u << GTC_SESSION)))
		r = -EBADMSG;
	if (r < 0)
		return err_set(err, r,
			       "configuration of the gate: record %u is malformed, given twice or missing; all parts "
			       "of agent-vm "
			       "must be of one build",
			       key);
	return 0;
}
