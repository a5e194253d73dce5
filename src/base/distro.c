#include "base/distro.h"

#include <fcntl.h>
#include <string.h>

#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"

#define OS_RELEASE_MAX 65536

static const struct {
	const char *id;
	enum distro distro;
} ids[] = {
	{ "debian", DISTRO_DEBIAN }, { "ubuntu", DISTRO_DEBIAN }, { "fedora", DISTRO_FEDORA },
	{ "rhel", DISTRO_FEDORA },   { "centos", DISTRO_FEDORA }, { "arch", DISTRO_ARCH },
};

static enum distro of_word(const char *s, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		if (strlen(ids[i].id) == n && memcmp(s, ids[i].id, n) == 0)
			return ids[i].distro;
	return DISTRO_OTHER;
}

/* The first known word in the value of KEY=value or KEY="several values". */
static enum distro of_key(const char *text, const char *key)
{
	size_t k = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *v = line + k, *end = line + strcspn(line, "\n");

		if (strncmp(line, key, k) != 0)
			continue;
		while (v < end) {
			size_t n = strcspn(v, " \"'\n");
			enum distro d = of_word(v, n);

			if (d != DISTRO_OTHER)
				return d;
			v += n + 1;
		}
	}
	return DISTRO_OTHER;
}

enum distro distro_parse(const char *os_release)
{
	enum distro d = of_key(os_release, "ID=");

	return d != DISTRO_OTHER ? d : of_key(os_release, "ID_LIKE=");
}

enum distro distro_get(void)
{
	static int known = -1;
	AUTO_FREE(char, text);
	AUTO_FD(etc);

	if (known >= 0)
		return (enum distro)known;
	known = DISTRO_OTHER;
	/* Most often a link into /usr/lib, hence both. */
	etc = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (etc >= 0 && (file_read_beneath(etc, "etc/os-release", OS_RELEASE_MAX, &text, NULL) == 0 ||
			 file_read_beneath(etc, "usr/lib/os-release", OS_RELEASE_MAX, &text, NULL) == 0))
		known = (int)distro_parse(text);
	return (enum distro)known;
}

char *distro_install(const char *apt, const char *dnf, const char *pacman)
{
	switch (distro_get()) {
	case DISTRO_DEBIAN:
		if (apt)
			return xasprintf("sudo apt install %s", apt);
		break;
	case DISTRO_FEDORA:
		if (dnf)
			return xasprintf("sudo dnf install %s", dnf);
		break;
	case DISTRO_ARCH:
		if (pacman)
			return xasprintf("sudo pacman -S %s", pacman);
		break;
	case DISTRO_OTHER:
		break;
	}
	return xasprintf("install %s", apt ? apt : dnf ? dnf : pacman);
}
