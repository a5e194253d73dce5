#include "cli/guest_env.h"

#include <fnmatch.h>
#include <limits.h>
#include <string.h>

#include "base/macros.h"
#include "proto/guestcfg.h"

static void put(struct strv *env, const char *assignment)
{
	size_t n = (size_t)(strchrnul(assignment, '=') - assignment) + 1;

	for (size_t i = 0; i < env->n; i++)
		if (strncmp(env->v[i], assignment, n) == 0) {
			free(env->v[i]);
			env->v[i] = xstrdup(assignment);
			return;
		}
	strv_add(env, assignment);
}

static void put_value(struct strv *env, const char *name, const char *value)
{
	AUTO_FREE(char, s);

	s = xasprintf("%s=%s", name, value);
	put(env, s);
}

static void put_all(struct strv *env, const struct strv *from)
{
	for (size_t i = 0; from && i < from->n; i++)
		put(env, from->v[i]);
}

static bool has(const struct strv *env, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < env->n; i++)
		if (strncmp(env->v[i], name, n) == 0 && env->v[i][n] == '=')
			return true;
	return false;
}

/* Programs with a store of their own, or that find none without being told: the bundle, which has the session's certificate
 * in it, or that certificate alone where it is added to a store. */
static void put_ca(struct strv *env, const char *ca)
{
	static const char *const whole[] = {
		"SSL_CERT_FILE",      "REQUESTS_CA_BUNDLE",  "CURL_CA_BUNDLE",
		"GIT_SSL_CAINFO",     "AWS_CA_BUNDLE",	     "PIP_CERT",
		"CARGO_HTTP_CAINFO",  "NIX_SSL_CERT_FILE",   "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
		"BUNDLE_SSL_CA_CERT", "HTTPLIB2_CA_CERTS",   "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
	};
	static const char *const added[] = { "NODE_EXTRA_CA_CERTS", "DENO_CERT" };

	for (size_t i = 0; i < ARRAY_SIZE(whole); i++)
		if (!has(env, whole[i]))
			put_value(env, whole[i], GC_CA_BUNDLE);
	for (size_t i = 0; i < ARRAY_SIZE(added); i++)
		if (!has(env, added[i]))
			put_value(env, added[i], ca);
	if (!has(env, GC_JAVA_VAR))
		put_value(env, GC_JAVA_VAR, GC_JAVA_VALUE);
}

/* TZ of the host: the variable, else the zone that /etc/localtime links to. */
static char *host_zone(void)
{
	static const char mark[] = "/zoneinfo/";
	const char *tz = getenv("TZ");
	char path[PATH_MAX];
	const char *zone;
	ssize_t n;

	if (tz && *tz)
		return xstrdup(tz);
	n = readlink("/etc/localtime", path, sizeof(path) - 1);
	if (n <= 0)
		return NULL;
	path[n] = '\0';
	zone = strstr(path, mark);
	return zone ? xstrdup(zone + sizeof(mark) - 1) : NULL;
}

#define GUEST_PATH                                                                                             \
	"PATH=/root/.local/bin:/root/.claude/local/bin:/root/.opencode/bin:/usr/local/bin:/usr/bin:/usr/sbin:" \
	"/bin:/sbin:/usr/local/sbin"

void guest_env(const struct guest_env_args *args, struct strv *ret)
{
	static const char *const ours[] = {
		"HOME=/root",
		"USER=root",
		"LOGNAME=root",
		"SHELL=/bin/bash",
		GUEST_PATH,
		"LANG=C.UTF-8",
		"IS_SANDBOX=1",
		"CODEX_HOME=/agent-vm-state/codex",
		"CODEX_SQLITE_HOME=" GC_DB_AT "/codex",
		"OPENCODE_DB=" GC_DB_AT "/opencode/opencode.db",
		"DISABLE_AUTOUPDATER=1",
		"OPENCODE_DISABLE_AUTOUPDATE=1",
		"COPILOT_AUTO_UPDATE=false",
		"GH_NO_UPDATE_NOTIFIER=1",
		"GH_PROMPT_DISABLED=1",
		"GIT_TERMINAL_PROMPT=0",
		/* The project of a subfolder, its top and the git directory are mounts of their own. */
		"GIT_DISCOVERY_ACROSS_FILESYSTEM=1",
	};
	static const char *const forwarded[] = { "COLORTERM", "NO_COLOR" };
	AUTO_FREE(char, tz);

	put_all(ret, args->image);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		put(ret, ours[i]);
	put_value(ret, "AGENT_VM_SESSION", args->session);
	put_value(ret, "AGENT_VM_PROJECT", args->project);
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++) {
		const char *v = getenv(forwarded[i]);

		if (v)
			put_value(ret, forwarded[i], v);
	}
	tz = host_zone();
	if (tz)
		put_value(ret, "TZ", tz);
	put_all(ret, args->logins);
	put_all(ret, args->user);
	put_all(ret, args->typed);
	if (args->ca)
		put_ca(ret, args->ca);
}

bool env_name_is_secretive(const char *name, size_t n)
{
	static const char *const patterns[] = { "*TOKEN*", "*SECRET*", "*PASSWORD*", "*_KEY", "*CREDENTIAL*" };
	AUTO_FREE(char, s);

	s = xstrndup(name, n);
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++)
		if (fnmatch(patterns[i], s, FNM_CASEFOLD) == 0)
			return true;
	return false;
}
