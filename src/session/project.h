/* Project identity: the canonical current folder, its hash, and the names that follow from them (command line page,
 * section 6.1). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define PROJECT_HASH_LEN 12
#define SESSION_NAME_PREFIX "agent-vm-"
#define SESSION_NAME_MAX 64 /* as a host name of Linux */

struct project {
	char *path;			  /* canonical; any bytes but NUL */
	char hash[PROJECT_HASH_LEN + 1]; /* lower-case hex */
	int fd;				  /* the folder itself, O_RDONLY | O_DIRECTORY | O_CLOEXEC */
};

#define PROJECT_INIT { NULL, "", -1 }

/* First 12 hex digits of SHA-256 over the bytes of the path. */
void project_hash(const void *path, size_t n, char ret[PROJECT_HASH_LEN + 1]);

/**
 * project_open_cwd() - The current folder as a project
 *
 * Return: 0, @ret to be released with project_close(); negative errno with @err set when the folder is gone, cannot be
 * read, or cannot be reached from the root folder
 */
int project_open_cwd(struct project *ret, struct err *err);
void project_close(struct project *p);

/* "agent-vm-HASH-PID", from the second try on with "-2", "-3" ...; @nth counts from 1. */
void session_name(const char *hash, pid_t pid, unsigned int nth, char ret[SESSION_NAME_MAX + 1]);

/* Of the form of session_name(): the only names that are looked at in run/sessions and run/logs. */
bool session_name_is_ours(const char *name);
