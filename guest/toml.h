/* The little of TOML that is needed to add a table to a file that a person may have written: where its strings end, and which
 * tables it has. Pure. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

/**
 * toml_has_table() - Whether a text has the table @key[0].@key[1]..., in any of the ways in which TOML can say it
 *
 * Also true for what could not be added to: [a] x = {...} or a.b = {...} on the way to it.
 *
 * Return: 1 or 0; -EBADMSG when the text is not UTF-8, or a string or a list has no end
 */
int toml_has_table(struct span text, const struct span *key, size_t n);

/* Appends [KEY."KEY"...] and @lines, which end in a newline. 0 or -ENOBUFS. */
int toml_add_table(struct buf *text, const struct span *key, size_t n, struct span lines);
