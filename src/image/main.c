/* agent-vm-image: makes disks from image content. A process of its own, because it parses bytes that come from elsewhere
 * and needs nothing but two descriptors: a death or a fault of it costs one build.
 *
 *	agent-vm-image disk BYTES EPOCH
 *	0 the tar  1 answers, one line each  3 the empty disk file, O_RDWR; the rest closed
 *
 * Answers: "progress BYTES NAME" at most ten a second, then one of
 *	"done SHA256 ENTRIES USED HAS_BASH VERSION" (VERSION escaped, "-" when the file is missing)
 *	"error ERRNO TEXT" */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/fetch.h"
#include "image/untar.h"

#define DISK_FD 3
#define PROGRESS_NS 100000000

static void on_progress(void *ctx, uint64_t bytes, const char *name)
{
	static int64_t next;
	int64_t now = now_ns();
	char *shown;

	if (now < next)
		return;
	next = now + PROGRESS_NS;
	shown = str_escape(name, strlen(name));
	(void)dprintf(STDOUT_FILENO, "progress %llu %s\n", (unsigned long long)bytes, shown);
	free(shown);
}

static void limit(int what, rlim_t to)
{
	struct rlimit l = { to, to };

	(void)setrlimit(what, &l);
}

static int run(uint64_t bytes, uint64_t epoch)
{
	struct untar_result res;
	struct err err = { 0 };
	char *version;
	int r;

	/* The launcher ends this process by closing its ends; it must not outlive it with a half-made disk locked. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	limit(RLIMIT_FSIZE, bytes);
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_NOFILE, 16);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);
	r = untar_to_disk(STDIN_FILENO, DISK_FD, bytes, (int64_t)epoch, on_progress, NULL, &res, &err);
	if (r < 0) {
		(void)dprintf(STDOUT_FILENO, "error %d %s\n", -r, err.text);
		return 1;
	}
	version = str_escape(res.version, strlen(res.version));
	for (char *p = strstr(version, "\\x0a"); p; p = strstr(p, "\\x0a"))
		memmove(p, p + 4, strlen(p + 4) + 1);
	(void)dprintf(STDOUT_FILENO, "done %s %llu %llu %d %s\n", res.sha256, (unsigned long long)res.entries,
		      (unsigned long long)res.used_bytes, res.has_bash, res.has_version && *version ? version : "-");
	free(version);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t bytes, epoch;

	if (argc == 2 && strcmp(argv[1], "fetch") == 0)
		return fetch_main();
	if (argc != 4 || strcmp(argv[1], "disk") != 0 || str_u64(argv[2], INT64_MAX, &bytes) < 0 ||
	    str_u64(argv[3], INT64_MAX, &epoch) < 0) {
		(void)fprintf(stderr, "agent-vm-image: started by agent-vm, not by hand\n");
		return 2;
	}
	return run(bytes, epoch);
}
