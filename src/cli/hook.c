#include "cli/hook.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "proto/guestcfg.h"

/* Run by bash -c; its words are what is said where the agent is not there, and those of the agent. $0 is "hook" where it is to run.
 *
 * The DEBUG trap notes where the hook is (BASH_SOURCE is empty in this text itself), the EXIT trap is what a hook meets that
 * stops: "exit", set -e, a signal. $? is looked at before anything can change it. What the hook leaves of traps, options and
 * positional parameters goes; variables, folder, umask and limits stay. "." is called with a slash, so that PATH is not
 * searched. */
static const char script[] =
	"[[ -x " GC_SEED " ]] && " GC_SEED " </dev/null >/dev/null 2>&1\n"
	"if [[ $0 = hook && -f " HOOK_FILE " ]]; then\n"
	"__agent_vm_words=(\"$@\") __agent_vm_at= __agent_vm_did=\n"
	"set --\n"
	"[[ -t 0 && -t 1 ]] || exec {__agent_vm_in}<&0 {__agent_vm_out}>&1 </dev/null >&2\n"
	"__agent_vm_stopped() {\n"
	"	local status=$1 where=''\n"
	"	trap - DEBUG EXIT\n"
	"	set +eux\n"
	"	[[ -n $__agent_vm_at ]] && where=\" at line $__agent_vm_at\"\n"
	"	[[ -n $__agent_vm_did ]] && __agent_vm_did=\" (last command: ${__agent_vm_did%%$'\\n'*})\"\n"
	"	printf 'agent-vm: %s: stopped%s with status %s%s; the agent was not started\\n' " HOOK_FILE
	" \"$where\" \"$status\" \"${__agent_vm_did//[[:cntrl:]]/?}\" >&2\n"
	"	printf \"agent-vm: if that status is meant, end the hook with 'true'; to skip the hook use --no-hook\\n\" >&2\n"
	"	[[ -n ${2-} ]] && trap - $2 && kill -s $2 $$\n"
	"	exit \"$status\"\n"
	"}\n"
	"trap '__agent_vm_stopped $?' EXIT\n"
	"for __agent_vm_sig in HUP INT TERM; do\n"
	"	trap \"__agent_vm_stopped $((128 + $(kill -l $__agent_vm_sig))) $__agent_vm_sig\" $__agent_vm_sig\n"
	"done\n"
	"set -T\n"
	"trap '[[ -n ${BASH_SOURCE-} && $BASH_COMMAND != \". ./\"* && $BASH_COMMAND != __agent_vm_* ]] && __agent_vm_at=$LINENO __agent_vm_did=$BASH_COMMAND' DEBUG\n"
	". ./" HOOK_FILE "\n"
	"__agent_vm_status=$?\n"
	"trap - DEBUG\n"
	"set +eux +T\n"
	"[[ $__agent_vm_status = 0 ]] || __agent_vm_stopped $__agent_vm_status\n"
	"trap - EXIT ERR RETURN\n"
	"for __agent_vm_sig in {1..31}; do trap - $__agent_vm_sig; done 2>/dev/null\n"
	"[[ -n ${__agent_vm_in-} ]] && exec <&$__agent_vm_in >&$__agent_vm_out {__agent_vm_in}<&- {__agent_vm_out}>&-\n"
	"set -- \"${__agent_vm_words[@]}\"\n"
	"unset -f __agent_vm_stopped\n"
	"unset ${!__agent_vm_*}\n"
	"{ mkdir -p /run/agent-vm; env -0 >" GC_HOOK_ENV ".new; mv " GC_HOOK_ENV ".new " GC_HOOK_ENV "; } 2>/dev/null\n"
	"fi\n"
	/* The program of that name, never a function that the hook has made. */
	"type -P -- \"$2\" >/dev/null || { [[ -z $1 ]] || printf '%s\\n' \"$1\" >&2; exit 127; }\n"
	"shift\n"
	"exec -- \"$@\"\n";

bool hook_is_there(int project_fd)
{
	struct stat st;

	return fstatat(project_fd, HOOK_FILE, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode);
}

void hook_exec_prefix(struct strv *ret)
{
	static const char *const before[] = {
		"bash", "--norc", "--noprofile", "-c",
		"while IFS= read -r -d '' v; do case $v in TERM=*|_=*|SHLVL=*|PWD=*|OLDPWD=*) ;; *) export \"$v\" ;; esac; done "
		"2>/dev/null <" GC_HOOK_ENV "\nunset v\nexec -- \"$@\"\n",
		"agent-vm"
	};

	for (size_t i = 0; i < ARRAY_SIZE(before); i++)
		strv_add(ret, before[i]);
}

void hook_wrap(struct strv *argv, bool hook, const char *lacks)
{
	const char *const before[] = { "bash", "--norc", "--noprofile", "-c", script, hook ? "hook" : "none", lacks ? lacks : "" };
	struct strv all = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(before); i++)
		strv_add(&all, before[i]);
	for (size_t i = 0; i < argv->n; i++)
		strv_add(&all, argv->v[i]);
	strv_done(argv);
	*argv = all;
}
