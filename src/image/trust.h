/* Whom we believe over TLS: the system's roots and those of SSL_CERT_FILE and SSL_CERT_DIR, read once before the sandbox. */
#pragma once

#include <openssl/ssl.h>

#include "base/err.h"

struct trust;

/**
 * trust_new() - Read the certificates
 *
 * Return: 0; -ENOENT and the like with @err set when a file that was named cannot be read, or there is no root at all
 */
int trust_new(struct trust **ret, struct err *err);
void trust_free(struct trust *t);

/* Make a TLS context use them, and at least TLS 1.2. */
void trust_use(struct trust *t, SSL_CTX *ctx);

/* When the certificate expired that was refused last for @host ("2024-05-01"), NULL if none was; borrowed until the next. */
const char *trust_expired(const struct trust *t, const char *host);
