/* The databases are saved while the session runs: the process "agent-vm-dbs" of a guest, and what PID 1 has to do with it. */
#pragma once

#include <stddef.h>

struct dbs_set;
struct guest;

#define DBWATCH_PROGRAM "/agent-vm-guest-dbs" /* dbcopy.c, in the boot root */

/* Before the boot root is let go. The program runs from its descriptor; it is in no root then. */
void dbwatch_open(const char *program);

/* After dbs_load(). Without it, or when it ends, the databases are saved at the end alone, and a line of the log says so. */
void dbwatch_start(struct guest *g);

/* What the process says goes into the log. */
void dbwatch_read(struct guest *g);

/* --- its part, for tests --- */

/* The databases of a set, which are in use, become that of this session. Return: 0, or a negative errno and perhaps in @why what
 * the program said. */
int dbwatch_save(const struct dbs_set *s, char *why, size_t size);
