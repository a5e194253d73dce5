/* Trust stores of Java in the form JKS, all numbers with the highest byte first:
 *
 *	fe ed fe ed		magic
 *	00 00 00 02		version
 *	n			u32: how many entries follow
 *	00 00 00 02		an entry that is a trusted certificate
 *	  len, alias		u16 and text
 *	  ms			u64: when it was added, since 1970
 *	  00 05 "X.509"		its type
 *	  len, DER		u32 and bytes
 *	20 bytes		SHA-1 of the password in UTF-16, the words "Mighty Aphrodite", and all of the above
 *
 * The password is "changeit" everywhere and no secret. Pure: bytes in, bytes out. */
#pragma once

#include "base/buf.h"

#define JKS_MAX (4 << 20) /* Debian's with 144 certificates has 170 KB */

/**
 * jks_add() - A store with certificates more
 * @old:	What is there, in this form and with this password; empty: a new store
 * @pem:	Text with certificates in it, each between its two lines (RFC 7468); what stands around them is passed over
 * @out:	Empty, JKS_MAX
 *
 * Return: how many were added; -EBADMSG when @old is no such store or a certificate is no base64; -ENOBUFS
 */
int jks_add(struct span old, struct span pem, struct buf *out);
