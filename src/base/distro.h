/* Which distribution this is, as far as messages need it. */
#pragma once

#include <stdbool.h>

enum distro { DISTRO_DEBIAN, DISTRO_FEDORA, DISTRO_ARCH, DISTRO_OTHER };

/* From the text of os-release(5): ID, else the first known one in ID_LIKE. Ubuntu and all of Debian's kin are
 * DISTRO_DEBIAN. */
enum distro distro_parse(const char *os_release);
/* Of this host. */
enum distro distro_get(void);

/**
 * distro_install() - The command that installs a package here
 * @apt, @dnf, @pacman:	Its name in each; NULL: not packaged there
 *
 * Return: "sudo apt install NAME" and the like, or "install NAME" in words; caller owns
 */
char *distro_install(const char *apt, const char *dnf, const char *pacman);

/* The Debian package with virtiofsd, from the text of os-release(5): its own since Debian 13 and Ubuntu 24.04, a part of QEMU's
 * before. */
const char *distro_virtiofsd_deb(const char *os_release);
/* The command that installs it here; caller owns. */
char *distro_install_virtiofsd(void);
