/* Shared by store*.c only. */
#pragma once

#include <dirent.h>
#include <jansson.h>
#include <sys/types.h>

#include "image/store.h"

#define REF_HEX 16
#define REF_FILE_MAX (REF_HEX + 6) /* "HEX16.json" and the end */

struct disk_meta {
	uint64_t size, min_size;
	uint32_t api_version;
	char api_found[IMAGE_API_FOUND];
	bool has_known;
	uint64_t has;
	struct strv env; /* of a store of version 1 */
};

/* store.c */

/* @name is "lock" or "pulls"; @how is flock(2)'s. The descriptor frees it. 0; -EINTR: the user wants to stop; -EWOULDBLOCK with
 * LOCK_NB; another negative errno; @err set */
int store_lock(const struct store *s, const char *name, int how, int *ret_fd, struct err *err);
bool store_is_hex(const char *s);
char *store_disk_file(const char *key, const char *ext);
/* A folder below the store that may not be there: descriptor or a negative errno. */
int store_dir(const struct store *s, const char *name);
/* A copy of a folder's descriptor to read it from the start; NULL on failure. */
DIR *store_readdir(int dirfd);
/* A regular file of the recorded size. */
bool store_disk_is_whole(const struct store *s, const char *key, uint64_t size);
/* True when @fd could be locked exclusively: then nobody uses the file, and nobody can begin while @fd is open. */
bool store_is_free(int fd);

/* store_json.c */
void store_ref_file(const char *reference, char name[REF_FILE_MAX]);
/* 0; -ENOENT; -EBADMSG, -EPROTO with @err set. @reference NULL: any, from the file of that name. */
int store_ref_parse(const struct store *s, const char *file, const char *reference, struct image_ref *ret, struct err *err);
int store_ref_write(const struct store *s, const struct image_meta *meta);
int store_meta_read(const struct store *s, const char *key, struct disk_meta *ret, struct err *err);
int store_meta_write(const struct store *s, const struct image_meta *meta, uint64_t size);
void disk_meta_done(struct disk_meta *m);
int store_default_read(const struct store *s, char **ret, struct err *err);

