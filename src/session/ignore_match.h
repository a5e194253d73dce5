/* The inside of ignore.h that its walk needs too. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum ignore_token_kind {
	IT_BYTE,     /* this byte */
	IT_ANY,	     /* one byte, no slash */
	IT_SET,	     /* one byte of a set, no slash */
	IT_STAR,     /* bytes without slash, none too */
	IT_ALL,	     /* any bytes, none too */
	IT_DIRS,     /* "**" "/": nothing, or IT_DIRS_IN */
	IT_DIRS_IN,  /* any bytes that end in a slash; always follows IT_DIRS */
	IT_NEVER,    /* a pattern that is broken from here on */
};

struct ignore_token {
	unsigned char kind;
	unsigned char byte;
	unsigned short set; /* index in ignore_pattern.sets */
};

struct ignore_set {
	unsigned char bits[32];
};

struct ignore_pattern {
	char *text; /* as written */
	struct ignore_token *t;
	size_t n;
	struct ignore_set *sets;
	size_t n_sets;
	bool negative;	/* "!" */
	bool dir_only;	/* "/" at the end */
	bool name_only; /* no slash: matched with the last component */
	bool plain;	/* IT_BYTE only */
};

struct ignore {
	struct ignore_pattern *v;
	size_t n;
	unsigned char *now, *then; /* sets of tokens, as large as the longest pattern */
	size_t room;
};

/* Index of the last pattern that matches @path itself, -1: none. The folders above are not asked. */
int ignore_last_match(struct ignore *ig, const char *path, size_t len, bool is_dir);
