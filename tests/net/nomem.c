/* Before a program by LD_PRELOAD: a malloc() of NOMEM_SIZE bytes finds no memory. */
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

#define NOMEM_SIZE 8192

void *malloc(size_t n);

void *malloc(size_t n)
{
	static void *(*next)(size_t);

	if (n == NOMEM_SIZE) {
		errno = ENOMEM;
		return NULL;
	}
	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "malloc");
	return next(n);
}
