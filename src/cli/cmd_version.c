#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "base/macros.h"
#include "base/prog.h"
#include "base/str.h"
#include "cli/find.h"
#include "cli/monitor.h"
#include "image/store.h"

#define VERSION_MS 5000

/* A part that is missing or broken is one line here; doctor says what to do. */
static void say(const char *what, const char *path, const char *text)
{
	if (path && str_starts(text, what))
		(void)printf("%s (%s)\n", text, path);
	else if (path)
		(void)printf("%s %s (%s)\n", what, text, path);
	else
		(void)printf("%s not usable: %s\n", what, text);
}

static bool say_library(const char *what, int (*find)(char **, struct err *), const char *vmm, const char *question)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, says);
	struct err err;
	bool good;

	if (find(&path, &err) < 0) {
		say(what, NULL, err.text);
		return false;
	}
	if (!vmm)
		return false;
	says = monitor_ask(vmm, question, path, &good);
	say(what, good ? path : NULL, says);
	return good;
}

static void say_monitors(void)
{
	char *argv[] = { NULL, (char *)"--version", NULL };
	AUTO_FREE(char, vmm);
	AUTO_FREE(char, qemu);
	AUTO_FREE(char, out);
	AUTO_FREE(char, no_kvm);
	struct prog p = PROG_INIT;
	struct err err;
	bool krun;

	if (find_role("agent-vm-vmm", &vmm, &err) < 0)
		say("monitor", NULL, err.text);
	krun = say_library("libkrun", find_libkrun, vmm, "--check-libkrun");
	(void)say_library("libkrunfw", find_libkrunfw, vmm, "--version-krunfw");
	if (find_qemu(&qemu, &err) == 0) {
		p.path = argv[0] = qemu;
		p.argv = argv;
		if (prog_output(&p, 65536, VERSION_MS, &out, &err) == 0)
			out[strcspn(out, "\n")] = '\0';
	}
	say("qemu", out ? qemu : NULL, out ? out : err.text);
	no_kvm = vmm ? monitor_probe_kvm(vmm) : xstrdup("agent-vm-vmm is missing");
	if (krun && !no_kvm)
		(void)puts("monitor krun");
	else
		(void)printf("monitor %s%s%s\n", out ? "qemu" : "none", no_kvm ? ", without KVM: " : "", no_kvm ? no_kvm : "");
}

static int version_run(struct cli *cli, void *args, char **rest)
{
	puts("agent-vm " AGENT_VM_VERSION);
	say_monitors();
	(void)printf("image API version %d to %d\n", IMAGE_API_MIN, IMAGE_API_MAX);
	return 0;
}

static const struct opt version_opts[] = { { 0 } };

const struct cmd cmd_version = {
	.name = "version",
	.summary = "print versions",
	.usage = "",
	.opts = version_opts,
	.words = CMD_WORDS_NONE,
	.run = version_run,
};
