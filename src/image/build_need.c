/* What a build needs of this host: each missing thing is one line with the command that brings it. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/distro.h"
#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"
#include "image/build.h"

#define SUBIDS_NEEDED 65536
#define PROBE_TIMEOUT_MS 10000

/* Lines NAME:FIRST:COUNT or UID:FIRST:COUNT of subuid(5). */
static bool subids_have(const char *path, const char *user, uid_t uid)
{
	AUTO_FREE(char, text);
	char number[16], *save = NULL;
	AUTO_FD(fd);

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, 1 << 20, &text, NULL) < 0)
		return false;
	(void)snprintf(number, sizeof(number), "%u", uid);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *first = strchr(line, ':'), *count = first ? strchr(first + 1, ':') : NULL;
		uint64_t n;

		if (!count)
			continue;
		*first = '\0';
		if ((strcmp(line, user) == 0 || strcmp(line, number) == 0) && str_u64(count + 1, UINT32_MAX, &n) == 0 &&
		    n >= SUBIDS_NEEDED)
			return true;
	}
	return false;
}

static bool user_namespaces_work(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER) == 0 ? 0 : 1);
	status = pid < 0 ? 1 : prog_wait(pid);
	return status == 0;
}

/* Packages' scripts are never run with the host's root. */
static void need_own_ids(struct strv *ret)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)":", NULL };
	struct prog p = PROG_INIT;
	AUTO_FREE(char, out);
	struct err err;

	p.path = "/bin/sh";
	p.argv = argv;
	p.own_ids = true;
	if (prog_output(&p, 1, PROBE_TIMEOUT_MS, &out, &err) < 0)
		strv_addf(ret, "user namespaces: refused to root by this system (%s); run agent-vm doctor for the setting, or build on another host",
			  err.text);
}

static void need_program(const char *name, const char *package, struct strv *ret)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, how);

	int r = prog_find(name, &path);

	if (r == 0)
		return;
	how = distro_install(package, package, package);
	strv_addf(ret, "%s: %s; %s", name, r == -EPERM ? PROG_SHUNNED : "not installed", how);
}

static void need_unprivileged(struct strv *ret)
{
	struct passwd *pw = getpwuid(getuid());
	AUTO_FREE(char, user);

	user = pw ? str_escape(pw->pw_name, strlen(pw->pw_name)) : xasprintf("%u", getuid());
	need_program("newuidmap", "uidmap", ret);
	if (!subids_have("/etc/subuid", pw ? pw->pw_name : "", getuid()) ||
	    !subids_have("/etc/subgid", pw ? pw->pw_name : "", getuid()))
		strv_addf(ret, "/etc/subuid, /etc/subgid: no range of 65536 ids for %s; sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
			  user, user);
	if (!user_namespaces_work())
		strv_addf(ret, "user namespaces: refused to you by this system; run agent-vm doctor for the setting, or build on another host");
}

void build_missing(struct strv *ret)
{
	static const char *const keyrings[] = { "/usr/share/keyrings/debian-archive-keyring.gpg",
						"/usr/share/keyrings/debian-archive-keyring.pgp" };

	need_program("mmdebstrap", "mmdebstrap", ret);
	need_program("apt-get", "apt", ret);
	if (access(keyrings[0], R_OK) < 0 && access(keyrings[1], R_OK) < 0) {
		AUTO_FREE(char, how);

		how = distro_install("debian-archive-keyring", "debian-keyring", "debian-archive-keyring");
		strv_addf(ret, "%s: Debian's keys are not installed; %s", keyrings[0], how);
	}
	if (geteuid() == 0)
		need_own_ids(ret);
	else
		need_unprivileged(ret);
}
