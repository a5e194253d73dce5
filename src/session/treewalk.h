/* A bounded walk through a tree that a guest could write: breadth first, so that a heap of entries deep inside cannot keep
 * what lies above it from being seen; no link followed; one descriptor at a time, so that depth costs nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TREE_ENTRIES_MAX 200000 /* command line page, section 15.1 */
#define TREE_TIME_MS 2000

struct tree_entry {
	int dirfd;	    /* the folder it lies in */
	const char *path;   /* relative to the root */
	const char *name;   /* its last component */
	unsigned char type; /* DT_REG ...; never DT_UNKNOWN */
};

enum tree_next { TREE_PASS, TREE_ENTER }; /* TREE_ENTER counts for folders alone */

struct tree_walk {
	enum tree_next (*each)(const struct tree_entry *e, void *arg); /* strings are borrowed */
	void *arg;
	size_t entries_max; /* 0: TREE_ENTRIES_MAX */
	int time_ms;	    /* 0: TREE_TIME_MS */

	/* result */
	size_t n_entries;
	bool cut; /* not all was seen: too many entries, no time left, or a folder of the user's that cannot be read */
};

/* Walk below @root, a folder's descriptor (O_PATH will do). What vanishes meanwhile is passed over. */
void tree_walk(int root, struct tree_walk *w);
