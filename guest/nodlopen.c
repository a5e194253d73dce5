/* SQLite can load extensions as shared libraries; a static program cannot, and this takes the place of dlopen(3) in one
 * (-Wl,--wrap), so that the C library's loader is not part of it. */
#include <stddef.h>

void *__wrap_dlopen(const char *file, int mode);

void *__wrap_dlopen(const char *file, int mode)
{
	return NULL;
}
