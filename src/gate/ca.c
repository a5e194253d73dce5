#include "gate/ca.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

/* A guest's clock may be behind ours, and some clients refuse leaves of more than 398 days. */
#define HOUR 3600
#define DAY (24 * HOUR)
#define BACKDATED HOUR
#define ROOT_DAYS 3650
#define LEAF_DAYS 90
#define LEAF_RENEW_DAYS 30

#define KEY_ID 20
#define SERIAL_BITS 127 /* positive, and at most 20 bytes (RFC 5280 section 4.1.2.2) */

static bool add(X509 *cert, int nid, void *value, bool critical)
{
	return value && X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_DEFAULT) == 1;
}

static bool add_constraints(X509 *cert, bool is_ca)
{
	BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
	bool ok = bc && (!is_ca || ((bc->pathlen = ASN1_INTEGER_new()) && ASN1_INTEGER_set(bc->pathlen, 0)));

	if (bc)
		bc->ca = is_ca ? 0xff : 0;
	ok = ok && add(cert, NID_basic_constraints, bc, true);
	BASIC_CONSTRAINTS_free(bc);
	return ok;
}

/* @first and @last: bits of RFC 5280 section 4.2.1.3. */
static bool add_usage(X509 *cert, int first, int last)
{
	ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();
	bool ok = bits && ASN1_BIT_STRING_set_bit(bits, first, 1) && ASN1_BIT_STRING_set_bit(bits, last, 1) &&
		  add(cert, NID_key_usage, bits, true);

	ASN1_BIT_STRING_free(bits);
	return ok;
}

static bool add_server(X509 *cert)
{
	EXTENDED_KEY_USAGE *use = EXTENDED_KEY_USAGE_new();
	ASN1_OBJECT *server = OBJ_nid2obj(NID_server_auth);
	bool ok = use && server && sk_ASN1_OBJECT_push(use, server) > 0 && add(cert, NID_ext_key_usage, use, false);

	EXTENDED_KEY_USAGE_free(use);
	return ok;
}

static bool add_name(X509 *cert, const char *name)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	GENERAL_NAME *one = GENERAL_NAME_new();
	ASN1_IA5STRING *text = ASN1_IA5STRING_new();
	bool ok = names && one && text && ASN1_STRING_set(text, name, -1) == 1;

	if (ok) {
		GENERAL_NAME_set0_value(one, GEN_DNS, text);
		text = NULL;
		ok = sk_GENERAL_NAME_push(names, one) > 0;
		if (ok)
			one = NULL;
	}
	ok = ok && add(cert, NID_subject_alt_name, names, false);
	ASN1_IA5STRING_free(text);
	GENERAL_NAME_free(one);
	GENERAL_NAMES_free(names);
	return ok;
}

/* RFC 7093 section 2, method 1: SHA-256 of the key, cut to 160 bits. */
static ASN1_OCTET_STRING *key_id(const X509 *of)
{
	ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned int n = 0;

	if (id && X509_pubkey_digest(of, EVP_sha256(), md, &n) == 1 && n >= KEY_ID &&
	    ASN1_STRING_set(id, md, KEY_ID) == 1)
		return id;
	ASN1_OCTET_STRING_free(id);
	return NULL;
}

static bool add_key_ids(X509 *cert, const X509 *issuer)
{
	ASN1_OCTET_STRING *own = key_id(cert);
	AUTHORITY_KEYID *of = AUTHORITY_KEYID_new();
	bool ok = own && of && (of->keyid = key_id(issuer)) && add(cert, NID_subject_key_identifier, own, false) &&
		  add(cert, NID_authority_key_identifier, of, false);

	ASN1_OCTET_STRING_free(own);
	AUTHORITY_KEYID_free(of);
	return ok;
}

static bool set_serial(X509 *cert)
{
	BIGNUM *n = BN_new();
	bool ok = n && BN_rand(n, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
		  BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));

	BN_free(n);
	return ok;
}

static bool set_time(X509 *cert, int64_t now, int days)
{
	return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)(now - BACKDATED)) &&
	       ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)(now + (int64_t)days * DAY));
}

/* A certificate with all but what makes it root or leaf. NULL: no memory. */
static X509 *cert_new(const char *subject, const X509_NAME *issuer, EVP_PKEY *key, int64_t now, int days)
{
	X509 *cert = X509_new();
	X509_NAME *name = X509_NAME_new();
	bool ok = cert && name && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
		  set_time(cert, now, days) &&
		  X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_ASC, (const unsigned char *)subject, -1, -1,
					     0) == 1 &&
		  X509_set_subject_name(cert, name) == 1 && X509_set_issuer_name(cert, issuer ? issuer : name) == 1 &&
		  X509_set_pubkey(cert, key) == 1;

	X509_NAME_free(name);
	if (ok)
		return cert;
	X509_free(cert);
	return NULL;
}

int ca_init(struct ca *ca, const char *session, int64_t now, struct err *err)
{
	char subject[64 + 1];

	memset(ca, 0, sizeof(*ca));
	(void)snprintf(subject, sizeof(subject), "agent-vm %s", session);
	ca->root_key = EVP_EC_gen("P-256");
	ca->leaf_key = EVP_EC_gen("P-256");
	ca->root = ca->root_key && ca->leaf_key ? cert_new(subject, NULL, ca->root_key, now, ROOT_DAYS) : NULL;
	if (!ca->root || !add_constraints(ca->root, true) || !add_usage(ca->root, 5, 6) /* keyCertSign, cRLSign */ ||
	    !add_key_ids(ca->root, ca->root) || X509_sign(ca->root, ca->root_key, EVP_sha256()) == 0) {
		ca_done(ca);
		return err_set(err, -ENOMEM, "gate: cannot make the session's certificate authority");
	}
	return 0;
}

void ca_done(struct ca *ca)
{
	for (size_t i = 0; i < HOSTS; i++)
		X509_free(ca->leaf[i].cert);
	X509_free(ca->root);
	EVP_PKEY_free(ca->root_key);
	EVP_PKEY_free(ca->leaf_key);
	memset(ca, 0, sizeof(*ca));
}

int ca_root(const struct ca *ca, struct buf *out)
{
	int n = i2d_X509(ca->root, NULL);
	uint8_t *room = n > 0 ? buf_room(out, (size_t)n) : NULL;

	if (!room || i2d_X509(ca->root, &room) != n)
		return -ENOMEM;
	buf_grew(out, (size_t)n);
	return 0;
}

X509 *ca_leaf(struct ca *ca, enum prov_host_id host, int64_t now)
{
	const char *name = prov_hosts[host].name;
	X509 *cert;

	if (ca->leaf[host].cert && now < ca->leaf[host].renew)
		return ca->leaf[host].cert;
	cert = cert_new(name, X509_get_subject_name(ca->root), ca->leaf_key, now, LEAF_DAYS);
	if (!cert || !add_constraints(cert, false) || !add_usage(cert, 0, 0) /* digitalSignature */ ||
	    !add_server(cert) || !add_name(cert, name) || !add_key_ids(cert, ca->root) ||
	    X509_sign(cert, ca->root_key, EVP_sha256()) == 0) {
		X509_free(cert);
		return NULL;
	}
	X509_free(ca->leaf[host].cert);
	ca->leaf[host].cert = cert;
	ca->leaf[host].renew = now + (int64_t)LEAF_RENEW_DAYS * DAY;
	return cert;
}
