/* replay: run a fuzz target over files and folders of inputs. It fails when there are none. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "fuzz.h"

#define INPUT_MAX (16 << 20)

static int replay(const char *path)
{
	AUTO_FREE(char, bytes);
	AUTO_FD(fd);
	uint8_t *exact;
	size_t n;
	int r;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	r = fd < 0 ? -errno : fd_read_file(fd, INPUT_MAX, &bytes, &n);
	if (r < 0) {
		(void)fprintf(stderr, "%s: %s\n", path, strerror(-r));
		exit(1);
	}
	/* A copy of its size, so that a sanitizer sees the first byte too many. */
	exact = xmalloc(n);
	memcpy(exact, bytes, n);
	(void)LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	return 1;
}

static int replay_all(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int n = 0;

	if (!d)
		return replay(path);
	while ((e = readdir(d))) {
		AUTO_FREE(char, file);

		if (e->d_name[0] == '.')
			continue;
		file = xasprintf("%s/%s", path, e->d_name);
		n += replay(file);
	}
	(void)closedir(d);
	return n;
}

int main(int argc, char **argv)
{
	int n = 0;

	(void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++)
		n += replay_all(argv[i]);
	(void)printf("%d inputs\n", n);
	return n > 0 ? 0 : 1;
}
