#include "proto/imageapi.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"

#define API_BYTES 32 /* image page 1.1 */
#define API_SHOWN 16 /* 1.2 */
#define API_DIGITS 9 /* more is no version that anybody will reach */

uint32_t image_api_parse(const void *p, size_t n, char ret_found[IMAGE_API_FOUND])
{
	const unsigned char *c = p;
	AUTO_FREE(char, shown);
	uint32_t v = 0;

	n = MIN(n, (size_t)API_BYTES);
	while (n > 0 && isspace(c[0])) {
		c++;
		n--;
	}
	while (n > 0 && isspace(c[n - 1]))
		n--;
	shown = str_escape(c, MIN(n, (size_t)API_SHOWN));
	(void)snprintf(ret_found, IMAGE_API_FOUND, "%s", shown);
	if (n == 0 || n > API_DIGITS)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (c[i] < '0' || c[i] > '9')
			return 0;
		v = v * 10 + (uint32_t)(c[i] - '0');
	}
	return v;
}

int image_api_read(const char *path, uint32_t *ret, char ret_found[IMAGE_API_FOUND])
{
	char text[API_BYTES];
	struct stat st;
	size_t n = 0;
	ssize_t k = 1;
	AUTO_FD(fd);

	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	while (n < sizeof(text) && k != 0) {
		k = read(fd, text + n, sizeof(text) - n);
		if (k < 0 && errno != EINTR)
			return -errno;
		n += k > 0 ? (size_t)k : 0;
	}
	*ret = image_api_parse(text, n, ret_found);
	return 0;
}
