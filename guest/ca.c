#include "guest/ca.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/macros.h"
#include "guest/jks.h"
#include "guest/setup.h"
#include "proto/ctl.h"

#define CERTS "/etc/ssl/certs"
#define ANCHORS "/etc/pki/ca-trust/source/anchors"
#define JAVA "/etc/ssl/certs/java/cacerts" /* Debian's, and what its Java has a link to */
#define POLICY "/etc/chromium/policies/managed/agent-vm.json"

/* Where distributions keep the bundle; the first is what our variables name. */
static const char *const bundles[] = {
	GC_CA_BUNDLE,
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
};

static int put_file(const char *path, struct span content, struct err *err)
{
	const struct config_file f = { .path = (char *)(uintptr_t)path, .mode = 0644, .content = content };

	return setup_file(&f, err);
}

/* A text file of the image may end without a newline. */
static int append(int fd, off_t size, struct span pem)
{
	char last = '\n';

	if (size > 0 && pread(fd, &last, 1, size - 1) != 1)
		return -EIO;
	if (last != '\n' && fd_write_all(fd, "\n", 1) < 0)
		return -EIO;
	return fd_write_all(fd, pem.p, pem.n);
}

/* To each bundle that is there, once: some are links to others. @ret_found: the first. */
static int append_all(struct span pem, const char **ret_found, struct err *err)
{
	struct stat seen[ARRAY_SIZE(bundles)];
	size_t n = 0;

	*ret_found = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(bundles); i++) {
		bool again = false;
		AUTO_FD(fd);
		int r;

		fd = open(bundles[i], O_RDWR | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &seen[n]) < 0 || !S_ISREG(seen[n].st_mode))
			continue;
		for (size_t k = 0; k < n; k++)
			again |= seen[k].st_dev == seen[n].st_dev && seen[k].st_ino == seen[n].st_ino;
		if (again)
			continue;
		r = append(fd, seen[n].st_size, pem);
		if (r < 0)
			return err_set(err, r, "%s: the session's certificate cannot be added in the guest: %s",
				       bundles[i], strerror(-r));
		if (!*ret_found)
			*ret_found = bundles[i];
		n++;
	}
	return 0;
}

/* HASH.N, N the first that no other certificate has, as `openssl rehash` makes it. */
static int hash_link(uint32_t hash, struct err *err)
{
	for (unsigned i = 0; i < 10; i++) {
		char path[sizeof(CERTS) + 16];
		const struct config_link l = { .path = path, .target = (char *)(uintptr_t)GC_CA_PEM };
		struct stat st;

		(void)snprintf(path, sizeof(path), CERTS "/%08x.%u", hash, i);
		if (lstat(path, &st) < 0)
			return setup_link(&l, err);
	}
	return 0;
}

/* Chromium has a store of its own; a policy adds to it. The body of the PEM form is the base64 that is wanted. */
static int chromium(struct span pem, struct err *err)
{
	static const char head[] = "{\"CACertificates\":[\"", tail[] = "\"]}\n";
	struct buf b;
	int r;

	if (access("/usr/bin/chromium", F_OK) < 0 && access("/etc/chromium", F_OK) < 0)
		return 0;
	buf_init(&b, pem.n + sizeof(head) + sizeof(tail));
	r = buf_put(&b, head, strlen(head));
	while (r == 0 && pem.n > 0) {
		const uint8_t *end = memchr(pem.p, '\n', pem.n);
		size_t n = end ? (size_t)(end - pem.p) : pem.n;

		if (n > 0 && pem.p[0] != '-')
			r = buf_put(&b, pem.p, n);
		pem = SPAN(pem.p + n + (end ? 1 : 0), pem.n - n - (end ? 1 : 0));
	}
	if (r == 0)
		r = buf_put(&b, tail, strlen(tail));
	r = r < 0 ? err_set(err, r, POLICY ": %s", strerror(-r)) : put_file(POLICY, buf_span(&b), err);
	buf_done(&b);
	return r;
}

static int own_files(const struct config_ca *ca, struct err *err)
{
	static const char *const files[] = { GC_CA_PEM, "/.msb/tls/ca.pem",
					     "/usr/local/share/ca-certificates/agent-vm-ca.crt",
					     "/usr/local/share/ca-certificates/microsandbox-ca.crt" };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files) && r == 0; i++)
		r = put_file(files[i], ca->own, err);
	if (r == 0 && access(ANCHORS, F_OK) == 0)
		r = put_file(ANCHORS "/agent-vm-ca.crt", ca->own, err);
	if (r == 0)
		r = hash_link(ca->hash, err);
	return r == 0 ? chromium(ca->own, err) : r;
}

static bool is_there(const char *const *paths, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (access(paths[i], F_OK) == 0)
			return true;
	return false;
}

static int read_whole(const char *path, char **ret, size_t *ret_n)
{
	AUTO_FD(fd);

	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? -errno : fd_read_file(fd, JKS_MAX, ret, ret_n);
}

/* @old: "" of none. */
static int java_add(const char *old, struct span pem, const char *to, struct err *err)
{
	AUTO_FREE(char, text);
	struct buf out;
	size_t n = 0;
	int r = 0;

	buf_init(&out, JKS_MAX);
	if (*old)
		r = read_whole(old, &text, &n);
	if (r == 0)
		r = jks_add(SPAN(text, n), pem, &out);
	if (r > 0)
		r = put_file(to, buf_span(&out), err);
	else if (r == 0)
		r = -EBADMSG;
	buf_done(&out);
	return r;
}

/* Java looks at no bundle and no variable of the others. */
static int java(struct span pem, const char **ret_note, struct err *err)
{
	static const char *const programs[] = { "/usr/bin/java", "/usr/local/bin/java", "/usr/lib/jvm", "/opt/java", "/opt/jdk" };
	AUTO_FREE(char, bundle);
	size_t n;
	int r = access(JAVA, F_OK) == 0 ? java_add(JAVA, pem, JAVA, err) : -ENOENT;

	if (r == 0 || !is_there(programs, ARRAY_SIZE(programs)))
		return 0;
	r = read_whole(GC_CA_BUNDLE, &bundle, &n);
	if (r == 0)
		r = java_add("", SPAN(bundle, n), GC_JAVA_STORE, err);
	if (r < 0 && !*ret_note)
		*ret_note = "certificates: no trust store can be made for Java of what the image has, so its programs do not "
			    "believe the services of the logins";
	return 0;
}

int ca_install(const struct config_ca *ca, const char **ret_note, struct err *err)
{
	struct config_link to = { .path = (char *)(uintptr_t)GC_CA_BUNDLE };
	const char *found;
	struct buf all;
	int r;

	*ret_note = NULL;
	buf_init(&all, CTL_RECS_MAX);
	r = buf_put(&all, ca->own.p, ca->own.n);
	if (r == 0)
		r = buf_put(&all, ca->host.p, ca->host.n);
	if (r < 0)
		(void)err_set(err, r, "certificates: %s", strerror(-r));
	if (r == 0 && ca->own.n > 0)
		r = own_files(ca, err);
	if (r == 0 && ca->host.n > 0)
		r = put_file(GC_CA_EXTRA, buf_span(&all), err);
	if (r == 0)
		r = append_all(buf_span(&all), &found, err);
	if (r == 0 && !found) {
		*ret_note = "certificates: the image has none of its own, so its programs believe no public server";
		r = put_file(GC_CA_BUNDLE, buf_span(&all), err);
	} else if (r == 0 && found != bundles[0]) {
		to.target = (char *)(uintptr_t)found;
		r = setup_link(&to, err);
	}
	if (r == 0)
		r = java(buf_span(&all), ret_note, err);
	buf_done(&all);
	return r;
}
