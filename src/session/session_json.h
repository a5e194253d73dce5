/* Bytes in JSON, for the files of the state root: JSON holds only UTF-8, a path may hold any bytes. */
#pragma once

#include <jansson.h>

/* KEY is the text, escaped when it is not UTF-8, and then KEY_hex holds the bytes. */
void session_json_put_bytes(json_t *obj, const char *key, const char *s);
/* NULL when it is missing or of a wrong type. Caller owns. */
char *session_json_get_bytes(const json_t *obj, const char *key);
