/* The walk over a layer, libarchive inside: any bytes are a tar after checksums of what can be a header are put right. The
 * first byte says how many layers they are cut into. What is accepted must become a disk. */
#include <fcntl.h>
#include <locale.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/macros.h"
#include "fuzz.h"
#include "image/untar.h"

#define DISK (16ULL << 20)
#define LAYERS 3

/* A mutated header would nearly always fail by its checksum. */
static void repair(uint8_t *p, size_t n)
{
	size_t at = 0;

	while (at + 512 <= n) {
		uint8_t *h = p + at;
		unsigned int sum = 0;
		unsigned long size = 0;

		if (h[0] != 0 || h[156] != 0) {
			memset(h + 148, ' ', 8);
			for (size_t i = 0; i < 512; i++)
				sum += h[i];
			(void)snprintf((char *)h + 148, 8, "%06o", sum & 0777777);
		}
		for (size_t i = 124; i < 135 && h[i] >= '0' && h[i] <= '7'; i++)
			size = size * 8 + (unsigned long)(h[i] - '0');
		at += 512 + (size < n ? (size + 511) / 512 * 512 : 0);
	}
}

static int memory_file(const uint8_t *p, size_t n)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	MUST(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static char ids[LAYERS][IM_DIGEST + 1];
	unsigned int n_layers = n > 0 ? 1 + p[0] % LAYERS : 1;
	size_t each;
	struct untar_result res;
	struct layers *l;
	struct untar *u;
	struct err err = { 0 };
	uint8_t *copy;
	int disk, r;

	if (n < 1 || n > 1 << 20 || !setlocale(LC_CTYPE, "C.UTF-8"))
		return 0;
	n--;
	copy = malloc(n + 1);
	MUST(copy);
	memcpy(copy, p + 1, n);
	each = n / n_layers / 512 * 512;
	disk = memory_file(NULL, 0);
	l = layers_new(n_layers, 64 << 20);
	for (unsigned int i = 0; i < n_layers; i++) {
		size_t len = i + 1 == n_layers ? n - each * i : each;
		struct layer_spec spec = { .compression = IM_PLAIN };

		repair(copy + each * i, len);
		spec.fd = memory_file(copy + each * i, len);
		MUST(layers_add(l, i, &spec, &err) == 0);
	}
	MUST(layers_start(l) == 0 && untar_new(l, disk, DISK, 0, NULL, NULL, &u, &err) == 0);
	r = 0;
	for (unsigned int i = 0; i < n_layers && r == 0; i++) {
		r = untar_layer(u, &err);
		if (r == 0)
			memcpy(ids[i], layers_ended(l)->diff_id, IM_DIGEST + 1);
	}
	if (r == 0)
		r = untar_finish(u, (const char(*)[IM_DIGEST + 1])ids, n_layers, &res, &err);
	MUST(r == 0 || (r < 0 && err.text[0]));
	untar_free(u);
	layers_free(l);
	(void)close(disk);
	free(copy);
	return 0;
}
