#include "test.h"

#include "base/macros.h"
#include "cli/monitor.h"
#include "cli/walls.h"
#include "proto/vmmcfg.h"

#define NS (CAGE_MOUNT_NS | CAGE_NET_NS | CAGE_PID_NS)

static void is(unsigned walls, bool root, const char *want)
{
	AUTO_FREE(char, got);

	got = walls_warning(walls, root);
	if (want)
		CHECK_STR(got, want);
	else
		CHECK(!got);
}

TEST(a_whole_cage_is_no_news)
{
	is(NS | CAGE_USER_NS | CAGE_LANDLOCK | CAGE_SECCOMP | CAGE_SUBIDS, false, NULL);
	is(NS | CAGE_LANDLOCK | CAGE_SECCOMP, true, NULL);
}

TEST(each_missing_wall_is_named)
{
	is(NS | CAGE_SECCOMP, false, "cage: no Landlock around the VM's monitor; the other walls stand; agent-vm doctor says what to do");
	is(NS | CAGE_LANDLOCK, false, "cage: no seccomp around the VM's monitor; the other walls stand; agent-vm doctor says what to do");
	is(CAGE_LANDLOCK | CAGE_SECCOMP, false,
	   "cage: no namespaces around the VM's monitor; the other walls stand; agent-vm doctor says what to do");
	/* one of the three is not enough */
	is((NS & ~CAGE_NET_NS) | CAGE_LANDLOCK | CAGE_SECCOMP, false,
	   "cage: no namespaces around the VM's monitor; the other walls stand; agent-vm doctor says what to do");
}

TEST(without_namespaces_and_landlock_it_is_said_whose_files_are_at_stake)
{
	is(CAGE_SECCOMP, true, "cage: no namespaces, no Landlock around the VM's monitor; a guest that takes the monitor over has "
			       "root's files on this host; agent-vm doctor says what to do");
	is(0, false, "cage: no namespaces, no Landlock, no seccomp around the VM's monitor; a guest that takes the monitor over has "
		     "your files on this host; agent-vm doctor says what to do");
}

TEST(why_a_guest_is_emulated_names_the_device_once)
{
	AUTO_FREE(char, object);
	AUTO_FREE(char, other);

	object = monitor_emulated("/dev/kvm: not there");
	CHECK_STR(object, "/dev/kvm cannot run a guest here (not there)");
	other = monitor_emulated("the probe died");
	CHECK_STR(other, "/dev/kvm cannot run a guest here (the probe died)");
}
