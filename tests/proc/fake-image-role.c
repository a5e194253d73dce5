/* Stands in for agent-vm-image in tests of the launcher's side: an honest image of two layers, and every way to be
 * dishonest about it. The case is the name under which it was started, so a test makes a link of that name.
 *
 *	fetch: the layers are files of 300,000 bytes; unpack: reads them and writes a few bytes to the disk */
#include <errno.h>
#include <fcntl.h>
#include <sha256.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "proto/imagemsg.h"
#include "proto/rec.h"

#define LAYERS 2
#define LAYER_BYTES 300000

static const char *what;

static bool is(const char *name)
{
	return strcmp(what, name) == 0;
}

static bool starts(const char *name)
{
	return strncmp(what, name, strlen(name)) == 0;
}

static void hex_of(const void *p, size_t n, char ret[IM_DIGEST + 1])
{
	(void)SHA256Data(p, n, ret);
}

static void layer_fill(int layer, char *mem)
{
	for (int i = 0; i < LAYER_BYTES; i++)
		mem[i] = (char)(i * 7 + layer);
}

static void diff_id(int layer, char ret[IM_DIGEST + 1])
{
	char text[16];

	(void)snprintf(text, sizeof(text), "diff %d", layer);
	hex_of(text, strlen(text), ret);
}

static void send_or_die(struct buf *b, int fd)
{
	if (im_send(IM_FD_CONTROL, b, fd) < 0)
		_exit(3);
}

static void take(enum im_way way, struct im *m)
{
	/* the launcher is gone */
	if (im_recv(IM_FD_CONTROL, way, m) != 1)
		_exit(0);
}

static void hang(void)
{
	for (;;)
		(void)pause();
}

static void raw(const void *p, size_t n)
{
	(void)!send(IM_FD_CONTROL, p, n, 0);
	hang();
}

static void report(int e, const char *text)
{
	struct buf b;

	im_begin(&b, IM_ERROR);
	(void)rec_put_u64(&b, IM_K_ERRNO, (uint64_t)e);
	(void)rec_put_str(&b, IM_K_TEXT, text);
	send_or_die(&b, -1);
	_exit(1);
}

/* --- fetch --- */

static void blob_put(const char *hex, const void *p, size_t n)
{
	char path[128], tmp[128];
	int fd;

	(void)mkdirat(IM_FD_STORE, "blobs", 0700);
	(void)mkdirat(IM_FD_STORE, "blobs/sha256", 0700);
	(void)mkdirat(IM_FD_STORE, "partial", 0700);
	(void)snprintf(path, sizeof(path), "blobs/sha256/%s", hex);
	(void)snprintf(tmp, sizeof(tmp), "partial/%s.%d", hex, (int)getpid());
	fd = openat(IM_FD_STORE, tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || fd_write_all(fd, p, n) < 0 || renameat(IM_FD_STORE, tmp, IM_FD_STORE, path) < 0)
		_exit(4);
	(void)close(fd);
}

static void config_put(char ret[IM_DIGEST + 1])
{
	char a[IM_DIGEST + 1], b[IM_DIGEST + 1];
	char *text;

	diff_id(0, a);
	diff_id(is("config-other-layers") ? 7 : 1, b);
#ifdef __aarch64__
	const char *arch = is("config-other-arch") ? "amd64" : "arm64";
#else
	const char *arch = is("config-other-arch") ? "arm64" : "amd64";
#endif
	text = xasprintf("{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{\"Env\":[\"LANG=C.UTF-8\",\"A=%s\"]},"
			 "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:%s\",\"sha256:%s\"]}}",
			 arch, what, a, b);
	hex_of(text, strlen(text), ret);
	if (is("config-tampered"))
		text[strlen(text) - 3] = '0';
	if (!is("config-absent"))
		blob_put(ret, text, strlen(text));
	free(text);
}

static void send_manifest(void)
{
	char served[IM_DIGEST + 1], config[IM_DIGEST + 1];
	struct buf b;

	hex_of(what, strlen(what), served);
	config_put(config);
	im_begin(&b, IM_MANIFEST);
	if (is("head-other-platform")) /* the index has changed, our platform in it has not */
		hex_of("index", 5, served);
	(void)rec_put_str(&b, IM_K_SERVED, served);
	hex_of(is("head-other-platform") ? "honest" : what, strlen(is("head-other-platform") ? "honest" : what), served);
	(void)rec_put_str(&b, IM_K_PLATFORM, served);
	if (!is("config-unnamed") && !starts("head-"))
		(void)rec_put_str(&b, IM_K_CONFIG, config);
	(void)rec_put_u64(&b, IM_K_LAYERS, is("no-layers") || starts("head-") ? 0 : LAYERS);
	if (is("named"))
		(void)rec_put_str(&b, IM_K_NAME, "example.org/from-archive:9");
	send_or_die(&b, -1);
}

static void send_layer(int layer, const char *blob)
{
	char diff[IM_DIGEST + 1];
	struct buf b;

	diff_id(layer, diff);
	im_begin(&b, IM_LAYER);
	(void)rec_put_u64(&b, IM_K_LAYER, (uint64_t)(is("layer-out-of-order") ? 1 - layer : layer));
	(void)rec_put_u64(&b, IM_K_COMPRESSION, IM_GZIP);
	if (!is("layer-without-digest"))
		(void)rec_put_str(&b, IM_K_BLOB, blob);
	(void)rec_put_u64(&b, IM_K_BYTES, is("layer-huge") ? INT64_MAX : is("layer-large") ? 1LL << 38 : LAYER_BYTES);
	(void)rec_put_str(&b, IM_K_DIFF_ID, diff);
	send_or_die(&b, -1);
}

static void send_number(enum im_msg type, int layer, uint64_t bytes, int fd)
{
	struct buf b;

	im_begin(&b, type);
	(void)rec_put_u64(&b, IM_K_LAYER, (uint64_t)layer);
	if (type != IM_BLOB)
		(void)rec_put_u64(&b, IM_K_BYTES, bytes);
	send_or_die(&b, fd);
}

static void load(int layer, const char *hex)
{
	static char mem[LAYER_BYTES];
	char partial[128], path[128];
	int out, in, ends[2];

	layer_fill(layer, mem);
	(void)mkdirat(IM_FD_STORE, "partial", 0700);
	(void)snprintf(partial, sizeof(partial), "partial/%s.%d", hex, (int)getpid());
	(void)snprintf(path, sizeof(path), "blobs/sha256/%s", hex);
	out = openat(IM_FD_STORE, partial, O_RDWR | O_CREAT | O_TRUNC, 0600);
	in = openat(IM_FD_STORE, partial, is("part-writable") ? O_RDWR : O_RDONLY);
	if (is("part-pipe")) {
		(void)!pipe(ends);
		in = ends[0];
	}
	if (is("part-folder"))
		in = openat(IM_FD_STORE, ".", O_RDONLY | O_DIRECTORY);
	if (!is("blob-unbegun"))
		send_number(IM_PART, is("part-layer-beyond") ? LAYERS : layer, is("part-beyond") ? LAYER_BYTES + 1 : 0, in);
	for (int at = 0; at < LAYER_BYTES; at += LAYER_BYTES / 10) {
		if (fd_write_all(out, mem + at, LAYER_BYTES / 10) < 0)
			_exit(4);
		send_number(IM_PROGRESS, layer, (uint64_t)at + LAYER_BYTES / 10, -1);
		if (at == LAYER_BYTES / 2 && layer == 1) {
			if (is("fetch-dies"))
				(void)raise(SIGKILL);
			if (is("fetch-leaves"))
				_exit(0);
			if (is("fetch-hangs"))
				hang();
			if (is("fetch-closes")) {
				(void)close(IM_FD_CONTROL);
				hang();
			}
			if (is("fetch-no-network"))
				report(EHOSTUNREACH, "example.org: cannot be reached (no address); agent-vm build needs no registry");
			if (is("fetch-full"))
				report(ENOSPC, "partial: no space left on device; free some");
			if (is("fetch-says-stopped"))
				report(EINTR, "interrupted");
		}
	}
	if (layer == 1 && starts("broken-")) {
		if (is("broken-by-the-network"))
			report(EBADMSG, "layer 2: not what its digest says; it was deleted, pull again");
		(void)usleep(100000);
	}
	if (is("progress-beyond"))
		send_number(IM_PROGRESS, layer, LAYER_BYTES + 1, -1);
	if (is("done-early"))
		return;
	if (renameat(IM_FD_STORE, partial, IM_FD_STORE, path) < 0)
		_exit(5);
	send_number(IM_BLOB, layer, 0, -1);
}

static int fetch(void)
{
	static char mem[LAYER_BYTES];
	char hex[LAYERS][IM_DIGEST + 1];
	struct buf b;
	struct im m;

	take(IM_TO_FETCH, &m);
	if (m.type == IM_HEAD) {
		if (is("head-hangs"))
			hang();
		if (is("head-fails"))
			report(EHOSTUNREACH, "example.org: cannot be reached");
		if (is("head-garbage")) {
			(void)!send(IM_FD_CONTROL, "\xff\xff\xff\xff garbage", 12, 0);
			return 0; /* the test waits for its end */
		}
		send_manifest();
		return 0;
	}
	if (is("garbage"))
		raw("\xff\xff\xff\xff garbage", 12);
	if (is("unpacks-message"))
		raw("\x09\x00\x00\x00", 4);
	if (is("error-escape")) /* what im_send() would not send */
		raw("\x0d\0\0\0\x12\0\x08\0\0\0\x05\0\0\0\0\0\0\0\x13\0\x05\0\0\0a\x1b[2J", 33);
	send_manifest();
	if (is("manifest-twice"))
		send_manifest();
	for (int i = 0; i < LAYERS; i++) {
		layer_fill(is("same-layer-twice") ? 0 : i, mem);
		hex_of(mem, sizeof(mem), hex[i]);
		send_layer(i, hex[i]);
	}
	if (is("done-unasked")) {
		im_begin(&b, IM_DONE);
		send_or_die(&b, -1);
	}
	take(IM_TO_FETCH, &m);
	if (m.type != IM_GO)
		return 6;
	load(0, hex[0]);
	if (!is("same-layer-twice"))
		load(1, hex[1]);
	im_begin(&b, IM_DONE);
	send_or_die(&b, -1);
	return 0;
}

/* --- unpack --- */

static uint64_t disk_bytes; /* that unpack was given */

struct in {
	int fd[LAYERS];
	uint64_t told[LAYERS];
};

/* Until all of @layer may be read; layers come in order, news of them in any. */
static void wait_for(struct in *in, int layer)
{
	while (in->fd[layer] < 0 || in->told[layer] < LAYER_BYTES) {
		struct im m;
		int k;

		take(IM_TO_UNPACK, &m);
		k = (int)im_u64(&m, IM_K_LAYER);
		if (m.type == IM_LAYER)
			in->fd[k] = m.fd;
		else if (m.type == IM_GROWN)
			in->told[k] = im_u64(&m, IM_K_BYTES);
		else
			_exit(7);
	}
}

static void unpack_layer(struct in *in, int layer)
{
	static char mem[LAYER_BYTES + 1];
	char diff[IM_DIGEST + 1];
	struct buf b;
	struct im m;

	if (layer == 1 && starts("broken-")) {
		take(IM_TO_UNPACK, &m);
		report(EBADMSG, "layer 2: no gzip data; use another image");
	}
	wait_for(in, layer);
	/* What was announced is there, and it is read-only. */
	if (pread(in->fd[layer], mem, sizeof(mem), 0) != LAYER_BYTES || write(in->fd[layer], mem, 1) >= 0)
		_exit(8);
	im_begin(&b, IM_PROGRESS);
	(void)rec_put_u64(&b, IM_K_LAYER, (uint64_t)(is("unpack-progress-other") ? 1 - layer : layer));
	(void)rec_put_u64(&b, IM_K_BYTES, is("unpack-progress-beyond") ? LAYER_BYTES + 1 : LAYER_BYTES);
	(void)rec_put_str(&b, IM_K_NAME, "usr/bin/x");
	send_or_die(&b, -1);
	if (layer == 1) {
		if (is("unpack-dies"))
			(void)raise(SIGKILL);
		if (is("unpack-leaves"))
			_exit(0);
		if (is("unpack-hangs"))
			hang();
		if (is("unpack-grows") && disk_bytes < 64LL << 30)
			report(EFBIG, "layer 2: x: its content does not fit into a disk; use a smaller image");
		if (is("unpack-bursts"))
			report(EFBIG, "layer 2: x: its content does not fit into a disk; use a smaller image");
		if (is("unpack-refuses"))
			report(EBADMSG, "layer 2, etc/../../x: leads out of the image; use another image");
	}
	diff_id(is("diff-wrong") ? 9 : layer, diff);
	im_begin(&b, IM_LAYER_DONE);
	(void)rec_put_u64(&b, IM_K_LAYER, (uint64_t)(is("layer-done-order") ? 1 - layer : layer));
	(void)rec_put_str(&b, IM_K_DIFF_ID, diff);
	(void)rec_put_u64(&b, IM_K_BYTES, 1000);
	if (layer == 0 || !is("unpack-done-early"))
		send_or_die(&b, -1);
	else
		buf_done(&b);
}

static int unpack(void)
{
	const char *version = is("api-newer") ? "2\n" : is("api-garbled") ? "x\x1b[1m" : "1\n";
	struct in in = { { -1, -1 }, { 0 } };
	struct im m;
	struct buf b;

	take(IM_TO_UNPACK, &m);
	disk_bytes = im_u64(&m, IM_K_BYTES);
	if (m.type != IM_DISK || ftruncate(m.fd, (off_t)disk_bytes) < 0 || pwrite(m.fd, "disk", 4, 4096) != 4)
		return 9;
	for (int i = 0; i < LAYERS; i++)
		unpack_layer(&in, i);
	im_begin(&b, IM_DONE);
	(void)rec_put_u64(&b, IM_K_ENTRIES, 10);
	(void)rec_put_u64(&b, IM_K_USED, is("used-beyond") ? INT64_MAX : 1000000);
	if (!is("api-none"))
		(void)rec_put(&b, IM_K_VERSION, version, strlen(version));
	(void)rec_put_u64(&b, IM_K_HAS, IM_HAS_BASH | IM_HAS_CLAUDE);
	send_or_die(&b, -1);
	return 0;
}

int main(int argc, char **argv)
{
	const char *path = (const char *)(uintptr_t)getauxval(AT_EXECFN);

	what = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	(void)signal(SIGPIPE, SIG_IGN);
	(void)alarm(600); /* a test that failed leaves nothing behind */
	return argc == 2 && strcmp(argv[1], "fetch") == 0 ? fetch() : unpack();
}
