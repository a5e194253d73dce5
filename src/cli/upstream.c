#include "cli/upstream.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"

#define VARIABLE "AGENT_VM_CONNECT_TO"
#define FILES_MAX 4096
#define PEM_BEGIN "-----BEGIN CERTIFICATE-----"
#define PEM_END "-----END CERTIFICATE-----"

/* --- AGENT_VM_CONNECT_TO --- */

static bool name_parse(const char *s, size_t n, char ret[POLICY_NAME_MAX + 1])
{
	if (n == 0 || n > POLICY_NAME_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!isalnum((unsigned char)s[i]) && s[i] != '-' && s[i] != '.')
			return false;
		ret[i] = (char)tolower((unsigned char)s[i]);
	}
	ret[n] = '\0';
	return true;
}

static bool port_parse(const char *s, size_t n, uint16_t *ret)
{
	AUTO_FREE(char, text);
	uint64_t v;

	text = xstrndup(s, n);
	if (str_u64(text, UINT16_MAX, &v) < 0 || v == 0)
		return false;
	*ret = (uint16_t)v;
	return true;
}

/* ADDR or [ADDR] */
static bool addr_part(const char *s, size_t n, struct addr *ret)
{
	AUTO_FREE(char, text);
	bool v6 = n > 2 && s[0] == '[' && s[n - 1] == ']';

	text = v6 ? xstrndup(s + 1, n - 2) : xstrndup(s, n);
	return addr_parse(text, ret) == 0 && (ret->family == AF_INET6) == v6;
}

static bool one_parse(const char *s, size_t n, struct connect_to *ret)
{
	const char *name_end = memchr(s, ':', n), *port_end, *last;

	if (!name_end)
		return false;
	port_end = memchr(name_end + 1, ':', n - (size_t)(name_end + 1 - s));
	last = memrchr(s, ':', n);
	if (!port_end || last <= port_end)
		return false;
	return name_parse(s, (size_t)(name_end - s), ret->name) &&
	       port_parse(name_end + 1, (size_t)(port_end - name_end - 1), &ret->port) &&
	       addr_part(port_end + 1, (size_t)(last - port_end - 1), &ret->addr) &&
	       port_parse(last + 1, n - (size_t)(last + 1 - s), &ret->to_port);
}

int connect_to_parse(const char *s, struct connect_to *ret, size_t *ret_n, struct err *err)
{
	size_t n = 0;

	for (;;) {
		size_t len = strcspn(s, ",");
		AUTO_FREE(char, shown);

		shown = str_escape(s, len);
		if (n == VAULT_CONNECT_TO_MAX)
			return err_set(err, -EINVAL, "more than %d of them", VAULT_CONNECT_TO_MAX);
		if (!one_parse(s, len, &ret[n]))
			return err_set(err, -EINVAL,
				       "'%s' is not NAME:PORT:ADDRESS:PORT; write it as in "
				       "api.example.com:443:127.0.0.1:8443, an IPv6 address in brackets",
				       shown);
		for (size_t i = 0; i < n; i++)
			if (strcmp(ret[i].name, ret[n].name) == 0 && ret[i].port == ret[n].port)
				return err_set(err, -EINVAL, "%s:%u stands there twice", ret[n].name, ret[n].port);
		n++;
		if (s[len] == '\0')
			break;
		s += len + 1;
	}
	*ret_n = n;
	return 0;
}

char *upstream_text(const struct upstream *u)
{
	char *text = NULL;

	for (size_t i = 0; i < u->n_to; i++) {
		const struct connect_to *c = &u->to[i];
		char addr[ADDR_TEXT];
		AUTO_FREE(char, one);
		bool v6 = c->addr.family == AF_INET6;

		one = xasprintf("%s%s:%u -> %s%s%s:%u", i > 0 ? ", " : "", c->name, c->port, v6 ? "[" : "",
				addr_format(&c->addr, addr), v6 ? "]" : "", c->to_port);
		if (text)
			str_append(&text, one);
		else
			text = TAKE_PTR(one);
	}
	return text;
}

/* --- certificates --- */

/* Certificates of @text, each with a newline behind it: keys and lists that lie beside them are left out. */
static void pem_add(struct buf *to, const char *text)
{
	const char *at = text, *end;

	while ((at = strstr(at, PEM_BEGIN)) && (end = strstr(at, PEM_END))) {
		end += strlen(PEM_END);
		if (buf_put(to, at, (size_t)(end - at)) < 0 || buf_put_u8(to, '\n') < 0)
			return;
		at = end;
	}
}

static int open_regular(int dirfd, const char *path)
{
	int fd = openat(dirfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	(void)close(fd);
	return -EINVAL;
}

/* Files of a folder and of those below it; @ending NULL: all. */
static void pem_folder(struct buf *to, const char *path, const char *ending, unsigned depth, unsigned *n)
{
	struct dirent *e;
	DIR *d = prog_is_shunned(path) ? NULL : opendir(path);

	while (d && (e = readdir(d)) && (*n)++ < FILES_MAX) {
		size_t len = strlen(e->d_name), tail = ending ? strlen(ending) : 0;
		AUTO_FREE(char, below);
		AUTO_FREE(char, text);
		AUTO_FD(fd);

		if (e->d_name[0] == '.')
			continue;
		below = xasprintf("%s/%s", path, e->d_name);
		if (prog_is_shunned(below))
			continue;
		fd = open_regular(dirfd(d), e->d_name);
		if (fd == -EINVAL && depth > 0)
			pem_folder(to, below, ending, depth - 1, n);
		if (fd < 0 || len < tail || (ending && strcmp(e->d_name + len - tail, ending) != 0))
			continue;
		if (fd_read_file(fd, UPSTREAM_PEM_MAX, &text, NULL) == 0)
			pem_add(to, text);
	}
	if (d)
		(void)closedir(d);
}

static void trust_add(struct upstream *u, int fd)
{
	assert(u->n_trust < ARRAY_SIZE(u->trust));
	u->trust[u->n_trust++] = fd;
}

static int memory_of(const struct buf *b)
{
	struct span s = buf_span(b);
	AUTO_FD(fd);
	int r;

	fd = memfd_create("agent-vm certificates", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, s.p, s.n);
	return r < 0 || lseek(fd, 0, SEEK_SET) < 0 ? -EIO : TAKE_FD(fd);
}

static void trust_memory(struct upstream *u, const struct buf *b)
{
	int fd = b->n > 0 ? memory_of(b) : -ENOENT;

	if (fd >= 0)
		trust_add(u, fd);
}

/* True when it counts. */
static bool cert_file(struct upstream *u, const char *path, struct strv *warnings)
{
	AUTO_FREE(char, shown);
	int fd;

	if (!path || !*path)
		return false;
	shown = str_escape(path, strlen(path));
	fd = open_regular(AT_FDCWD, path);
	if (fd >= 0 && prog_is_shunned(path)) {
		close_p(&fd);
		strv_addf(warnings,
			  "SSL_CERT_FILE: %s: lies in the project or in what is shared with the guest, so it is not "
			  "believed",
			  shown);
		return false;
	}
	if (fd < 0) {
		strv_addf(warnings, "SSL_CERT_FILE: %s: %s; passed over", shown,
			  fd == -EINVAL ? "is no regular file" : strerror(-fd));
		return false;
	}
	trust_add(u, fd);
	return true;
}

static bool cert_dir(struct upstream *u, const char *paths, struct strv *warnings)
{
	AUTO_FREE(char, copy);
	char *save = NULL;
	unsigned n = 0;
	struct buf pem;
	bool any;

	if (!paths || !*paths)
		return false;
	buf_init(&pem, UPSTREAM_PEM_MAX);
	copy = xstrdup(paths);
	for (char *p = strtok_r(copy, ":", &save); p; p = strtok_r(NULL, ":", &save)) {
		AUTO_FREE(char, shown);

		shown = str_escape(p, strlen(p));
		if (access(p, F_OK) == 0 && prog_is_shunned(p))
			strv_addf(warnings,
				  "SSL_CERT_DIR: %s: lies in the project or in what is shared with the guest, so it is "
				  "not "
				  "believed",
				  shown);
		else
			pem_folder(&pem, p, NULL, 0, &n);
	}
	any = pem.n > 0;
	trust_memory(u, &pem);
	buf_done(&pem);
	return any;
}

static bool system_bundle(struct upstream *u)
{
	/* Where distributions keep it; the first that is there. */
	static const char *const bundles[] = { "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
					       "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem" };

	for (size_t i = 0; i < ARRAY_SIZE(bundles); i++) {
		int fd = open_regular(AT_FDCWD, bundles[i]);

		if (fd < 0)
			continue;
		trust_add(u, fd);
		return true;
	}
	return false;
}

/* What the administrator of this host added to the authorities that come with it. */
static void host_ca(struct upstream *u, struct strv *warnings)
{
	static const struct {
		const char *path, *ending;
	} folders[] = {
		{ "/usr/local/share/ca-certificates", ".crt" },
		{ "/etc/pki/ca-trust/source/anchors", NULL },
		{ "/etc/ca-certificates/trust-source/anchors", NULL },
	};
	unsigned n = 0;
	struct buf pem;

	buf_init(&pem, UPSTREAM_PEM_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		pem_folder(&pem, folders[i].path, folders[i].ending, 4, &n);
	if (pem.n > 0)
		u->host_ca = xstrndup((const char *)buf_span(&pem).p, pem.n);
	else
		strv_add(warnings, "--trust-host-ca: this host has no certificate authorities of its own (in "
				   "/usr/local/share/ca-certificates, "
				   "/etc/pki/ca-trust/source/anchors or /etc/ca-certificates/trust-source/anchors)");
	trust_memory(u, &pem);
	buf_done(&pem);
}

/* Of services that vault dials itself. */
static void service_certs(struct upstream *u, char *(*env)(const char *), struct strv *warnings)
{
	bool file = cert_file(u, env("SSL_CERT_FILE"), warnings), dir = cert_dir(u, env("SSL_CERT_DIR"), warnings);

	if (!file && !dir && !system_bundle(u))
		strv_add(warnings, "no CA certificates on this machine, so no service is believed; install "
				   "ca-certificates, or set "
				   "SSL_CERT_FILE");
}

void upstream_plan(struct cli *cli, const struct launch_args *args, char *(*env)(const char *), bool lent,
		   struct upstream *ret, struct strv *warnings)
{
	const char *to = env(VARIABLE);
	struct err err;

	*ret = (struct upstream){ .n_to = 0 };
	if (to && *to && connect_to_parse(to, ret->to, &ret->n_to, &err) < 0)
		problem_text(&cli->problems, VARIABLE ": %s", err.text);
	if (args->no_network)
		return;
	if (lent)
		service_certs(ret, env, warnings);
	if (args->trust_host_ca)
		host_ca(ret, warnings);
}

void upstream_done(struct upstream *u)
{
	for (size_t i = 0; i < u->n_trust; i++)
		close_p(&u->trust[i]);
	free(u->host_ca);
	*u = (struct upstream){ .n_to = 0 };
}
