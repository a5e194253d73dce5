#include "session/guest_path.h"

#include <string.h>

#include "base/str.h"
#include "session/path.h"

/* Section 8.1 of the command line page: at or under these the guest has files of its own. */
static const char *const under[] = {
	"/tmp",	     "/run",	   "/var/run",	      "/dev",	       "/proc",		  "/sys",  "/boot",
	"/etc",	     "/bin",	   "/sbin",	      "/lib",	       "/lib32",	  "/lib64", "/libx32",
	"/usr/bin",  "/usr/sbin",  "/usr/lib",	      "/usr/local/bin", "/opt/agent-vm", GUEST_STATE, "/.msb",
};

/* Exactly these: what lies below is free. */
static const char *const exactly[] = {
	"/usr", "/usr/local", "/usr/share", "/opt", "/root", "/home", "/var", "/var/lib",
};

/* Section 10.2: links in the guest that lead into the state folder. */
static const char *const links[] = {
	"/root/.claude",   "/root/.claude.json", "/root/.local/share/opencode", "/root/.config/opencode",
	"/root/.copilot",  "/root/.gitconfig",	 "/root/.config/gh",		"/root/.bash_history",
};

/* Section 8.3: no mount at or under these. The last ones are where the guest puts certificates and agents' settings. */
static const char *const no_mount[] = {
	"/proc", "/sys", "/dev", "/boot", GUEST_STATE, "/.msb", "/run/agent-vm", "/var/run/agent-vm",
	"/etc/ssl/certs", "/etc/pki", "/etc/chromium", "/etc/codex", "/etc/claude-code", "/usr/local/share/ca-certificates",
};

static const char *find_under(const char *const *v, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++)
		if (path_within(v[i], path))
			return v[i];
	return NULL;
}

/* A folder above one of these: what the guest makes there, or takes out of its way, would be the host's. */
static const char *find_above(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (path_within(path, links[i]))
			return links[i];
	for (size_t i = 0; i < ARRAY_SIZE(no_mount); i++)
		if (path_within(path, no_mount[i]))
			return no_mount[i];
	return NULL;
}

static const char *find_exact(const char *const *v, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i], path) == 0)
			return v[i];
	return NULL;
}

/* Unicode Cc: C0, DEL, and C1, which in UTF-8 is c2 80 to c2 9f. */
static bool has_control(const char *s)
{
	for (const unsigned char *p = (const unsigned char *)s; *p; p++)
		if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
			return true;
	return false;
}

bool guest_path_mirrored(const char *path, char **ret_why)
{
	const char *where;
	char *why;

	if (!str_is_utf8(path, strlen(path)))
		why = xstrdup("is not UTF-8");
	else if (has_control(path))
		why = xstrdup("holds a control character");
	else if (strcmp(path, "/") == 0)
		why = xstrdup("is the root of the guest's own files");
	else if ((where = find_under(under, ARRAY_SIZE(under), path)) ||
		 (where = find_under(links, ARRAY_SIZE(links), path)) ||
		 (where = find_under(no_mount, ARRAY_SIZE(no_mount), path)))
		why = xasprintf("%s %s, which the guest has for itself", strcmp(where, path) == 0 ? "is" : "lies under",
				where);
	else if ((where = find_exact(exactly, ARRAY_SIZE(exactly), path)))
		why = xasprintf("is %s, which the guest has for itself", where);
	else if ((where = find_above(path)))
		why = xasprintf("holds %s, which the guest has for itself", where);
	else
		return true;
	if (ret_why)
		*ret_why = why;
	else
		free(why);
	return false;
}

char *guest_path_of(const char *base, const char *path, bool mirrored)
{
	const char *rest = path_rest(base, path);

	if (mirrored || !rest)
		return xstrdup(path);
	return path_join(GUEST_WORKSPACE, rest);
}

char *guest_path_forbidden(const char *path)
{
	const char *where;

	if (strcmp(path, "/") == 0)
		return xstrdup("the guest's / cannot be replaced");
	if (has_control(path))
		return xstrdup("the guest path holds a control character");
	if ((where = find_under(no_mount, ARRAY_SIZE(no_mount), path)) ||
	    (where = find_under(links, ARRAY_SIZE(links), path)))
		return xasprintf("the guest has %s for itself", where);
	if ((where = find_exact(under, ARRAY_SIZE(under), path)) ||
	    (where = find_exact(exactly, ARRAY_SIZE(exactly), path)))
		return xasprintf("the guest has %s for itself; a folder below it can be used", where);
	if ((where = find_above(path)))
		return xasprintf("it holds %s, which the guest has for itself", where);
	return NULL;
}
