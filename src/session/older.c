#include "session/older.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/str.h"
#include "session/trash.h"

char *older_secrets_warning(const struct state_root *root, const char *hash)
{
	AUTO_FREE(char, name);
	AUTO_FREE(char, shown);
	struct stat st;

	name = xasprintf("%s.secrets", hash);
	if (fstatat(root->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return NULL;
	shown = str_escape(root->path, strlen(root->path));
	return xasprintf("%s/%s: holds real tokens that the older program wrote there; they are not used, delete this "
			 "folder once you no longer use that program",
			 shown, name);
}

int older_tokens_remove(int root_fd, int state_fd, const char *state_path, struct err *err)
{
	AUTO_FREE(char, shown);
	int r;

	/* One component, relative to the folder's descriptor, and no link followed below: another live guest may be
	 * changing the folder meanwhile. */
	r = trash_put(root_fd, state_fd, "tokens");
	if (r == 0)
		return 0;
	shown = str_escape(state_path, strlen(state_path));
	return err_set(err, r,
		       "%s/tokens: may hold real tokens of the older program and cannot be removed: %s; remove it by hand",
		       shown, strerror(-r));
}
