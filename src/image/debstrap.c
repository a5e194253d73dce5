/* Debian's mmdebstrap makes the base: signed packages of three suites, unpacked and configured in a namespace of its own,
 * as a tar on stdout. What it is told and why:
 *
 *	--variant=apt			the essential packages and apt; all else by name below
 *	--skip=output/dev		no device nodes; our init mounts a devtmpfs
 *	path-exclude			manuals, translations: a third of the size, nothing that an agent reads
 *	Install-Recommends false	only what is named
 *	force-unsafe-io			dpkg's fsync for each file is for a system that must survive a crash
 *	the hook			marks the image, and takes out what came from this host or differs from run to run
 *
 * The build's mirror is the one that this host's apt uses, or mmdebstrap's own choice. It may be a private one, which the guest
 * cannot reach and the image's next user does not know: apt in the image gets Debian's own. */
#include "image/debstrap.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"

#define PACKAGE_MAX 128

static const char *const set_minimal[] = {
	"git", "curl", "ca-certificates", "mount", "procps", "less", "iproute2", "jq", "ripgrep", "openssh-client",
	"tzdata",
};

static const char *const set_default[] = {
	"gh",	 "nodejs",	 "python3",	"python3-pip",	  "python3-venv", "wget", "gnupg", "iputils-ping",
	"bind9-dnsutils", "netcat-openbsd", "vim-tiny", "file", "unzip",	  "zip",  "rsync", "htop",
	"lsof",	 "strace",	 "tmux",	"fd-find",	  "xz-utils",
};

static const char *const set_full[] = {
	"chromium", "fonts-liberation", "docker.io", "docker-cli", "containerd", "runc", "fuse-overlayfs",
	"iptables", "tcpdump",		"mtr-tiny",  "net-tools",  "traceroute", "sshpass",
};

/* $1 is the tree. mmdebstrap copies the host's name and resolver into it (mode 0755) and removes its own traces after us.
 * The suite is checked by apt's signatures; nothing here comes from the network. */
static const char hook[] =
	"set -eu; cd \"$1\"; "
	"rm -f etc/hostname etc/resolv.conf; : > etc/hostname; : > etc/resolv.conf; "
	"printf '1\\n' > etc/agent-vm-image-version; "
	"rm -f etc/apt/sources.list.d/*; "
	"printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/%s main\\n' "
	"'debian " DEBSTRAP_SUITE "' 'debian " DEBSTRAP_SUITE "-updates' 'debian-security " DEBSTRAP_SUITE "-security' "
	"> etc/apt/sources.list; "
	"chmod 0644 etc/hostname etc/resolv.conf etc/agent-vm-image-version etc/apt/sources.list; "
	"rm -rf var/log/*.log var/log/apt var/lib/dpkg/*-old var/cache/debconf/*-old var/cache/ldconfig/aux-cache "
	"var/lib/apt/lists/*_*";

static const char chrome_mcp[] =
#include "image/agent-vm-chrome-mcp.inc"
	;

/* Image page 7: chromium runs as a user of its own, whom PAM knows (shadow); the DevTools server looks for Chrome by its own
 * name; the wrapper starts both. The program itself is a layer above. */
static char *chrome_hook(void)
{
	return xasprintf("set -eu; cd \"$1\"; "
			 "echo 'chrome:x:9999:9999::/home/chrome:/bin/bash' >> etc/passwd; "
			 "echo 'chrome:x:9999:' >> etc/group; echo 'chrome:!::' >> etc/gshadow; "
			 "echo 'chrome:*:19700:0:99999:7:::' >> etc/shadow; "
			 "mkdir -p home/chrome opt/google/chrome; chmod 0755 home/chrome opt/google opt/google/chrome; "
			 "chown 9999:9999 home/chrome; "
			 "ln -s chromium usr/bin/google-chrome; ln -s chromium usr/bin/google-chrome-stable; "
			 "ln -s /usr/bin/chromium opt/google/chrome/chrome\n"
			 "cat > usr/local/bin/agent-vm-chrome-mcp <<'END_OF_FILE'\n%sEND_OF_FILE\n"
			 "chmod 0755 usr/local/bin/agent-vm-chrome-mcp\n",
			 chrome_mcp);
}

static void include_add(char **list, const char *name)
{
	char *more = *list ? xasprintf("%s,%s", *list, name) : xstrdup(name);

	free(*list);
	*list = more;
}

static void set_add(char **list, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		include_add(list, names[i]);
}

void debstrap_mirrors_done(struct debstrap_mirrors *m)
{
	free(m->main);
	free(m->security);
	*m = (struct debstrap_mirrors){ NULL, NULL };
}

/* A site that may stand in a line of sources: http(s), printable, no space or quote, ends in @tail. */
static bool site_is(const char *s, size_t n, const char *tail)
{
	size_t t = strlen(tail);

	if (!str_starts(s, "http://") && !str_starts(s, "https://"))
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] > '~' || strchr("'\"\\[]", s[i]))
			return false;
	return n > t && memcmp(s + n - t, tail, t) == 0;
}

void debstrap_mirrors_parse(const char *text, struct debstrap_mirrors *ret)
{
	struct debstrap_mirrors m = { NULL, NULL };

	while (*text) {
		size_t line = strcspn(text, "\n"), n = strcspn(text, " \n");

		while (n > 0 && text[n - 1] == '/')
			n--;
		if (!m.main && site_is(text, n, "/debian"))
			m.main = xstrndup(text, n);
		if (!m.security && site_is(text, n, "/debian-security"))
			m.security = xstrndup(text, n);
		text += line + (text[line] == '\n');
	}
	if (!m.main || !m.security)
		debstrap_mirrors_done(&m);
	*ret = m;
}

int debstrap_package_check(const char *name, struct err *err)
{
	size_t n = strlen(name);
	bool good = n >= 2 && n <= PACKAGE_MAX && strchr("+-.", name[0]) == NULL;

	for (size_t i = 0; i < n; i++)
		good &= (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') || strchr("+-.", name[i]);
	if (!good) {
		AUTO_FREE(char, shown);

		shown = str_escape(name, MIN(n, (size_t)PACKAGE_MAX));
		return err_set(err, -EINVAL, "--include %s: not the name of a Debian package; write names such as git or libc6, divided by commas",
			       shown);
	}
	return 0;
}

static void options_add(struct strv *ret)
{
	static const char *const options[] = {
		"--variant=apt",
		"--skip=output/dev",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/lintian/*",
		"--dpkgopt=force-unsafe-io",
		"--aptopt=Acquire::Languages \"none\"",
		"--aptopt=APT::Install-Recommends \"false\"",
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		strv_add(ret, options[i]);
}

void debstrap_release_urls(const struct debstrap_mirrors *m, struct strv *ret)
{
	if (!m->main)
		return;
	strv_addf(ret, "%s/dists/" DEBSTRAP_SUITE "/InRelease", m->main);
	strv_addf(ret, "%s/dists/" DEBSTRAP_SUITE "-updates/InRelease", m->main);
	strv_addf(ret, "%s/dists/" DEBSTRAP_SUITE "-security/InRelease", m->security);
}

void debstrap_argv(enum build_set set, const struct strv *include, const struct debstrap_mirrors *mirrors,
		   struct strv *ret)
{
	AUTO_FREE(char, list);

	set_add(&list, set_minimal, ARRAY_SIZE(set_minimal));
	if (set >= BUILD_DEFAULT)
		set_add(&list, set_default, ARRAY_SIZE(set_default));
	if (set >= BUILD_FULL)
		set_add(&list, set_full, ARRAY_SIZE(set_full));
	set_add(&list, (const char *const *)include->v, include->n);
	strv_add(ret, "mmdebstrap");
	strv_add(ret, "--mode=unshare");
	options_add(ret);
	strv_addf(ret, "--include=%s", list);
	if (set >= BUILD_FULL) {
		AUTO_FREE(char, chrome);

		chrome = chrome_hook();
		strv_addf(ret, "--customize-hook=%s", chrome);
	}
	strv_addf(ret, "--customize-hook=%s", hook);
	strv_add(ret, "--format=tar");
	strv_add(ret, DEBSTRAP_SUITE);
	strv_add(ret, "-");
	if (!mirrors->main)
		return;
	strv_addf(ret, "deb %s " DEBSTRAP_SUITE " main", mirrors->main);
	strv_addf(ret, "deb %s " DEBSTRAP_SUITE "-updates main", mirrors->main);
	strv_addf(ret, "deb %s " DEBSTRAP_SUITE "-security main", mirrors->security);
}
