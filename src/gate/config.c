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
	struct gate_config c = { 0 };
	unsigned seen = 0;
	uint16_t key = 0;
	uint64_t u;
	struct span v;
	int r;

	while ((r = rec_next(&in, &key, &v)) > 0) {
		if (key != GTC_OPENED && (key > GTC_SESSION || seen & 1u << key)) {
			r = -EBADMSG;
			break;
		}
		seen |= 1u << key;
		switch (key) {
		case GTC_SEED:
			r = v.n == sizeof(c.seed) ? 0 : -EBADMSG;
			if (r == 0)
				memcpy(c.seed, v.p, v.n);
			break;
		case GTC_LENT:
			r = rec_u64(v, PH_ALL, &u);
			c.launch.lent = r == 0 ? (uint32_t)u : 0;
			break;
		case GTC_OPENED:
			r = opened(v, &c.launch);
			break;
		case GTC_SESSION:
			r = session(v, c.session);
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
	*ret = c;
	return 0;
}
