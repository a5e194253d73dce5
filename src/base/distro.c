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

/* Whether a line is KEY=word, in quotes or not. */
static bool has_value(const char *text, const char *key, const char *word)
{
	size_t k = strlen(key), w = strlen(word);

	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *v = line + k;

		if (strncmp(line, key, k) != 0)
			continue;
		v += strspn(v, "\"'");
		if (strncmp(v, word, w) == 0 && strcspn(v + w, "\"'\n") == 0)
			return true;
	}
	return false;
}

const char *distro_virtiofsd_deb(const char *os_release)
{
	static const char *const old[] = { "bullseye", "bookworm", "focal", "jammy" };

	/* Ubuntu's kin name its release in the second. */
	for (size_t i = 0; i < ARRAY_SIZE(old); i++)
		if (has_value(os_release, "VERSION_CODENAME=", old[i]) || has_value(os_release, "UBUNTU_CODENAME=", old[i]))
			return "qemu-system-common";
	return "virtiofsd";
}

/* Of this host, "" when there is none; read once. */
static const char *os_release(void)
{
	static char *text;
	AUTO_FD(root);

	if (text)
		return text;
	/* Most often a link into /usr/lib, hence both. */
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || (file_read_beneath(root, "etc/os-release", OS_RELEASE_MAX, &text, NULL) < 0 &&
			 file_read_beneath(root, "usr/lib/os-release", OS_RELEASE_MAX, &text, NULL) < 0))
		text = xstrdup("");
	return text;
}

enum distro distro_get(void)
{
	return distro_parse(os_release());
}

char *distro_install_virtiofsd(void)
{
	return distro_install(distro_virtiofsd_deb(os_release()), "virtiofsd", "virtiofsd");
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
