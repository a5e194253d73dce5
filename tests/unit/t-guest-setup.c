#include "guest/setup.h"

#include "files.h"

/* A shell that is started with @path, and whose /etc/profile is @before and then our file, has @want in the end. */
static void check_path(const char *path, const char *before, const char *want)
{
	static const char *const shells[] = { "bash", "sh" };
	char *dir = files_tmp("/tmp");

	files_write(dir, "agent-vm.sh", setup_profile);
	for (size_t i = 0; i < sizeof(shells) / sizeof(*shells); i++) {
		char *line = xasprintf("at=$(command -v %s) && test \"$(env %s X=\"$(printf '\nPATH=/no')\" \"$at\" -euc '%s\n. ./agent-vm.sh\n"
				       "printf \"%%s\" \"$PATH ${__agent_vm_path-}\"')\" = '%s '",
				       shells[i], path, before, want);

		files_sh(dir, line);
		free(line);
	}
	files_rm(dir);
}

TEST(a_login_shell_keeps_the_path_that_it_was_started_with)
{
	check_path("PATH='/a b:/root/.local/bin:/bin'", "PATH=/usr/bin:/bin", "/a b:/root/.local/bin:/bin");
	/* What is added to it stays. */
	check_path("PATH=/a:/usr/bin:/bin", "PATH=/before:$PATH:/after", "/before:/a:/usr/bin:/bin:/after");
	check_path("PATH=/a:/usr/bin:/bin", ":", "/a:/usr/bin:/bin");
	/* Nothing to keep, or nothing to find it with. */
	check_path("-u PATH", "PATH=/usr/bin:/bin", "/usr/bin:/bin");
	check_path("PATH=/a", "PATH=/nothing", "/nothing");
}
