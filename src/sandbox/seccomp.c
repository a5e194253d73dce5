#include "sandbox/seccomp.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <seccomp.h>

#include "base/macros.h"

static uint32_t action(enum seccomp_do what)
{
	switch (what) {
	case SECCOMP_ALLOW:
		return SCMP_ACT_ALLOW;
	case SECCOMP_EPERM:
		return SCMP_ACT_ERRNO(EPERM);
	case SECCOMP_ENOSYS:
		return SCMP_ACT_ERRNO(ENOSYS);
	case SECCOMP_KILL:
		break;
	}
	return SCMP_ACT_KILL_PROCESS;
}

static int row_add(scmp_filter_ctx ctx, const struct seccomp_table *table, const struct seccomp_row *row, struct err *err)
{
	struct scmp_arg_cmp cmp = { .arg = row->arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = row->mask, .datum_b = row->value };
	int nr, r;

	if (row->unequal) {
		assert(row->mask == UINT64_MAX);
		cmp.op = SCMP_CMP_NE;
		cmp.datum_a = row->value;
		cmp.datum_b = 0;
	}
	nr = seccomp_syscall_resolve_name(row->name);
	if (nr == __NR_SCMP_ERROR || nr < 0)
		return 0;
	if (row->what == table->otherwise)
		return err_set(err, -EINVAL, "seccomp table of %s: %s says what is said anyway", table->role, row->name);
	r = row->mask ? seccomp_rule_add_array(ctx, action(row->what), nr, 1, &cmp) :
			seccomp_rule_add_array(ctx, action(row->what), nr, 0, NULL);
	if (r < 0)
		return err_set(err, r, "seccomp table of %s: %s: %s", table->role, row->name, strerror(-r));
	return 0;
}

int seccomp_apply(const struct seccomp_table *table, const struct seccomp_row *extra, size_t n_extra, struct err *err)
{
	scmp_filter_ctx ctx;
	size_t i;
	int r;

	ctx = seccomp_init(action(table->otherwise));
	if (!ctx)
		return err_set(err, -ENOMEM, "seccomp: out of memory");
	r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 1);
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a search tree: the tables are long */
	if (r < 0)
		(void)err_set(err, r, "seccomp: %s", strerror(-r));
	for (i = 0; r == 0 && i < table->n_rows; i++)
		r = row_add(ctx, table, &table->rows[i], err);
	for (i = 0; r == 0 && i < n_extra; i++)
		r = row_add(ctx, table, &extra[i], err);
	if (r == 0) {
		r = seccomp_load(ctx);
		if (r < 0)
			(void)err_set(err, r, "seccomp of %s: %s", table->role, strerror(-r));
	}
	seccomp_release(ctx);
	return r;
}
