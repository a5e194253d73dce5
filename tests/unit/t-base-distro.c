#include "test.h"

#include "base/distro.h"

static const char bookworm[] =
	"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";

TEST(virtiofsd_is_a_part_of_qemu_in_old_releases)
{
	CHECK_STR(distro_virtiofsd_deb(bookworm), "qemu-system-common");
	CHECK_STR(distro_virtiofsd_deb("VERSION_CODENAME=\"jammy\""), "qemu-system-common");
	CHECK_STR(distro_virtiofsd_deb("ID=linuxmint\nVERSION_CODENAME=victoria\nUBUNTU_CODENAME=jammy\n"),
		  "qemu-system-common");
	CHECK_STR(distro_virtiofsd_deb("ID=debian\nVERSION_CODENAME=trixie\n"), "virtiofsd");
	CHECK_STR(distro_virtiofsd_deb("VERSION_CODENAME=bookworms\n"), "virtiofsd");
	CHECK_STR(distro_virtiofsd_deb("VERSION_CODENAME=\nbookworm\nX_VERSION_CODENAME=bookworm\n"), "virtiofsd");
	CHECK_STR(distro_virtiofsd_deb(""), "virtiofsd");
}

TEST(the_family_is_known_by_id_and_else_by_id_like)
{
	CHECK_INT(distro_parse(bookworm), ==, DISTRO_DEBIAN);
	CHECK_INT(distro_parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), ==, DISTRO_DEBIAN);
	CHECK_INT(distro_parse("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), ==, DISTRO_FEDORA);
	CHECK_INT(distro_parse("ID=arch"), ==, DISTRO_ARCH);
	CHECK_INT(distro_parse("ID=void\n"), ==, DISTRO_OTHER);
}
