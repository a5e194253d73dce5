#include "cli/gh.h"

#include "base/prog.h"

char *gh_folder(char *(*env)(const char *), const char *home)
{
	const char *dir = env("GH_CONFIG_DIR"), *xdg = env("XDG_CONFIG_HOME");

	return dir && dir[0] == '/'   ? xstrdup(dir)
	       : xdg && xdg[0] == '/' ? xasprintf("%s/gh", xdg)
	       : home		      ? xasprintf("%s/.config/gh", home)
				      : NULL;
}

void gh_env(const char *folder, struct strv *ret)
{
	static const char *const keyring[] = { "DBUS_SESSION_BUS_ADDRESS", NULL };

	prog_env_keep(ret, keyring);
	strv_addf(ret, "GH_CONFIG_DIR=%s", folder);
	strv_add(ret, "GH_NO_UPDATE_NOTIFIER=1");
	strv_add(ret, "GH_PROMPT_DISABLED=1");
}
