/*
 * krunprobe - asks libkrun what it does: boots a folder with the devices that the options name and runs a program in it
 *
 *	krunprobe [OPTION…] ROOT PROGRAM [ARGUMENT…]
 *	  -f TAG=DIR           a virtio-fs share
 *	  -d PATH,FORMAT,SYNC  a disk; raw or qcow2; none, relaxed or full
 *	  -p NAME=COMMAND      a named port whose host end is the standard input and output of sh -c COMMAND
 *	  -c CPUS  -m MIB      size (2, 2048)
 *	  -C                   no console device at all
 *	  -N                   no network device
 *	  -V                   leave the implicit vsock
 *	  -S                   no split irqchip
 *	  -l LEVEL             libkrun's log, 0 to 5
 *
 * The program's output is ours by libkrun's default console. AGENT_VM_LIBKRUN and AGENT_VM_LIBKRUNFW name the libraries. It is not part of the product: docs/platform/ holds what was found with it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void *lib;

static void *sym(const char *name)
{
	void *p = dlsym(lib, name);

	if (p == NULL) {
		fprintf(stderr, "krunprobe: %s\n", dlerror());
		exit(1);
	}
	return p;
}

/* Calls a function of libkrun whose arguments are given with their types, as in K(krun_x, (uint32_t, int), ctx, 3). */
#define K(f, types, ...) k_check(#f, ((int32_t (*) types)sym(#f))(__VA_ARGS__))

static int k_check(const char *what, int32_t r)
{
	if (r < 0) {
		fprintf(stderr, "krunprobe: %s: %s (%d)\n", what, strerror(-r), r);
		exit(1);
	}
	return r;
}

/* Cuts S at the first SEP; returns what follows it. */
static char *cut(char *s, char sep)
{
	char *p = strchr(s, sep);

	if (p == NULL) {
		fprintf(stderr, "krunprobe: %s: no '%c' in it\n", s, sep);
		exit(2);
	}
	*p = '\0';
	return p + 1;
}

/* One end of a socketpair; the other is the input and output of COMMAND. */
static int host_end(const char *command)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
		perror("krunprobe: socketpair");
		exit(1);
	}
	if (fork() == 0) {
		dup2(sv[1], 0);
		dup2(sv[1], 1);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(sv[1]);
	return sv[0];
}

int main(int argc, char **argv)
{
	static const char *const env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	char *fs[16], *disk[16], *port[16], *rest, *sync;
	size_t n_fs = 0, n_disk = 0, n_port = 0, i;
	bool console = true, net = true, vsock = false, split = true;
	uint8_t mac[6] = { 0x02, 0, 0, 0, 0, 1 }, cpus = 2;
	uint32_t ctx, con, mib = 2048, level = 1;
	int opt, sv[2], fd, null;

	while ((opt = getopt(argc, argv, "+f:d:p:c:m:l:CNVS")) != -1) {
		switch (opt) {
		case 'f': fs[n_fs++ % 16] = optarg; break;
		case 'd': disk[n_disk++ % 16] = optarg; break;
		case 'p': port[n_port++ % 16] = optarg; break;
		case 'c': cpus = (uint8_t)strtoul(optarg, NULL, 10); break;
		case 'm': mib = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'l': level = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'C': console = false; break;
		case 'N': net = false; break;
		case 'V': vsock = true; break;
		case 'S': split = false; break;
		default: return 2;
		}
	}
	if (argc - optind < 2) {
		fprintf(stderr, "usage: krunprobe [OPTION...] ROOT PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	if (dlopen(getenv("AGENT_VM_LIBKRUNFW"), RTLD_NOW | RTLD_GLOBAL) == NULL ||
	    (lib = dlopen(getenv("AGENT_VM_LIBKRUN"), RTLD_NOW)) == NULL) {
		fprintf(stderr, "krunprobe: %s\n", dlerror());
		return 1;
	}
	K(krun_set_log_level, (uint32_t), level);
	ctx = (uint32_t)K(krun_create_ctx, (void));
	K(krun_set_vm_config, (uint32_t, uint8_t, uint32_t), ctx, cpus, mib);
	K(krun_split_irqchip, (uint32_t, bool), ctx, split);
	K(krun_set_root, (uint32_t, const char *), ctx, argv[optind]);
	if (!vsock)
		K(krun_disable_implicit_vsock, (uint32_t), ctx);
	K(krun_disable_implicit_console, (uint32_t), ctx);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (console) {
		K(krun_add_virtio_console_default, (uint32_t, int, int, int), ctx, null, 1, 2);
		con = n_port == 0 ? 0 : (uint32_t)K(krun_add_virtio_console_multiport, (uint32_t), ctx);
#define PORT(name, in, out) \
	K(krun_add_console_port_inout, (uint32_t, uint32_t, const char *, int, int), ctx, con, name, in, out)
		for (i = 0; i < n_port; i++) {
			rest = cut(port[i], '=');
			fd = host_end(rest);
			PORT(port[i], fd, fd);
		}
	}
	for (i = 0; i < n_fs; i++) {
		rest = cut(fs[i], '=');
		K(krun_add_virtiofs, (uint32_t, const char *, const char *), ctx, fs[i], rest);
	}
	for (i = 0; i < n_disk; i++) {
		char id[] = "disk0";

		id[4] = (char)('0' + i);
		rest = cut(disk[i], ',');
		sync = cut(rest, ',');
		K(krun_add_disk3, (uint32_t, const char *, const char *, uint32_t, bool, bool, uint32_t), ctx, id, disk[i],
		  strcmp(rest, "qcow2") == 0, false, false,
		  strcmp(sync, "none") == 0 ? 0u : strcmp(sync, "relaxed") == 0 ? 1u : 2u);
	}
	if (net) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
			return 1;
		K(krun_add_net_unixstream, (uint32_t, const char *, int, uint8_t *, uint32_t, uint32_t), ctx, NULL, sv[0],
		  mac, 0, 0);
	}
	K(krun_set_exec, (uint32_t, const char *, const char *const *, const char *const *), ctx, argv[optind + 1],
	  (const char *const *)argv + optind + 2, env);
	K(krun_start_enter, (uint32_t), ctx);
	return 1;
}
