#include "image/trust.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/x509_vfy.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"

#define DIR_FILES_MAX 4096

struct trust {
	X509_STORE *store;
	char *host;	 /* of the last expired certificate; "" for a literal, which has no SNI */
	char until[16]; /* "YYYY-MM-DD" */
};

/* Where distributions keep the bundle; the first that is there. */
static const char *const bundles[] = {
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
};

/* Keeps the date, which no library tells afterwards; the verdict stays. */
static int on_verify(int ok, X509_STORE_CTX *ctx)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct trust *t = X509_STORE_get_ex_data(X509_STORE_CTX_get0_store(ctx), 0);
	const X509 *cert = X509_STORE_CTX_get_current_cert(ctx);
	const char *host = ssl ? SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) : NULL;
	struct tm tm;

	if (!ok && t && cert && X509_STORE_CTX_get_error(ctx) == X509_V_ERR_CERT_HAS_EXPIRED &&
	    ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1) {
		free(t->host);
		t->host = xstrdup(host ? host : "");
		(void)strftime(t->until, sizeof(t->until), "%Y-%m-%d", &tm);
	}
	return ok;
}

static int add_file(X509_STORE *store, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return X509_STORE_load_file(store, path) == 1 ? 0 : -EBADMSG;
}

/* All files of a folder: reading by hash on demand would need the folder inside the sandbox. */
static int add_dir(X509_STORE *store, const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int n = 0;

	if (!d)
		return -errno;
	while ((e = readdir(d)) && n++ < DIR_FILES_MAX) {
		AUTO_FREE(char, file);

		if (e->d_name[0] == '.')
			continue;
		file = xasprintf("%s/%s", path, e->d_name);
		(void)add_file(store, file); /* keys and lists lie there too */
	}
	(void)closedir(d);
	return 0;
}

/* Folders that are not there are passed over, as OpenSSL does it: the variable is often set for another machine's sake.
 * True if one was there. */
static bool add_dirs(X509_STORE *store, const char *paths)
{
	AUTO_FREE(char, copy);
	char *save = NULL;
	bool any = false;

	copy = xstrdup(paths);
	for (char *p = strtok_r(copy, ":", &save); p; p = strtok_r(NULL, ":", &save)) {
		AUTO_FREE(char, shown);
		int r = add_dir(store, p);

		shown = str_escape(p, strlen(p));
		if (r < 0)
			log_warn("SSL_CERT_DIR: %s: %s; passed over", shown, strerror(-r));
		any |= r == 0;
	}
	return any;
}

static int add_all(X509_STORE *store, struct err *err)
{
	const char *file = getenv("SSL_CERT_FILE"), *dir = getenv("SSL_CERT_DIR");
	AUTO_FREE(char, shown);
	bool any = false;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(bundles) && !any; i++)
		any = add_file(store, bundles[i]) == 0;
	if (file && *file) {
		shown = str_escape(file, strlen(file));
		r = add_file(store, file);
		if (r < 0)
			return err_set(err, r, "SSL_CERT_FILE: %s: %s; correct or unset it", shown,
				       r == -EBADMSG ? "holds no certificates in PEM form" : strerror(-r));
		any = true;
	}
	if (dir && *dir)
		any |= add_dirs(store, dir);
	return any ? 0 : err_set(err, -ENOENT, "no CA certificates on this machine; install ca-certificates, or set SSL_CERT_FILE");
}

int trust_new(struct trust **ret, struct err *err)
{
	struct trust *t = xcalloc(1, sizeof(*t));
	int r;

	t->store = X509_STORE_new();
	if (!t->store)
		abort();
	r = add_all(t->store, err);
	if (r < 0) {
		trust_free(t);
		return r;
	}
	(void)X509_STORE_set_ex_data(t->store, 0, t);
	X509_STORE_set_verify_cb(t->store, on_verify);
	*ret = t;
	return 0;
}

void trust_free(struct trust *t)
{
	if (!t)
		return;
	X509_STORE_free(t->store);
	free(t->host);
	free(t);
}

void trust_use(struct trust *t, SSL_CTX *ctx)
{
	SSL_CTX_set1_cert_store(ctx, t->store);
	(void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
}

const char *trust_expired(const struct trust *t, const char *host)
{
	return t->host && (*t->host == '\0' || strcasecmp(t->host, host) == 0) ? t->until : NULL;
}
