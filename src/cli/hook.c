#include "cli/hook.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "proto/guestcfg.h"

/* Run by bash -c; its words are what is said where the agent is not there, and those of the agent. $0 is "hook" where it is to run.
 *
 * The DEBUG trap notes where the hook is (BASH_SOURCE is empty in this text itself), the EXIT trap is what a hook meets that
 * stops: "exit", set -e, a signal. A hook that sets an EXIT trap of its own takes that place: before its next command we take
 * it back, and run the hook's text after our line. A function in the place of "trap" could not do that: bash puts the ERR trap
 * back when a function ends. $? is looked at before anything can change it. What the hook leaves of traps, options and
 * positional parameters goes; variables, folder, umask and limits stay. "." is called with a slash, so that PATH is not
 * searched. Functions with the names of builtins that stand below go as well, and programs are looked for where the system has
 * them, whatever PATH the hook has made. */
static const char script[] =
	"[[ -x " GC_SEED " ]] && " GC_SEED " </dev/null >/dev/null 2>&1\n"
	"if [[ $0 = hook && ! -f " HOOK_FILE " ]]; then\n"
	"__agent_vm_said='is no regular file; make it one'\n"
	"[[ -L " HOOK_FILE " ]] && __agent_vm_said='a link that leads to no file in the guest; "
	"share the folder that it leads to with --mount'\n"
	"printf 'agent-vm: %s: %s, or skip the hook with --no-hook; the agent was not started\\n' " HOOK_FILE " \"$__agent_vm_said\" >&2\n"
	"exit 1\n"
	"fi\n"
	"if [[ $0 = hook ]]; then\n"
	"__agent_vm_words=(\"$@\") __agent_vm_at= __agent_vm_did= __agent_vm_exit= __agent_vm_look=\n"
	"set --\n"
	"[[ -t 0 && -t 1 ]] || exec {__agent_vm_in}<&0 {__agent_vm_out}>&1 </dev/null >&2\n"
	"__agent_vm_take() {\n"
	"	__agent_vm_look=$(builtin trap -p EXIT)\n"
	"	if [[ $__agent_vm_look != *__agent_vm_stopped* ]]; then\n"
	"		builtin eval \"builtin set -- ${__agent_vm_look:-'' '' ''}\"\n"
	"		__agent_vm_exit=$3\n"
	"		builtin trap '__agent_vm_stopped $?' EXIT\n"
	"	fi\n"
	"	__agent_vm_look=\n"
	"}\n"
	"__agent_vm_plain() {\n"
	"	builtin set +eux +T\n"
	"	builtin unset -f command eval exec exit printf set shift trap type unset\n"
	"}\n"
	"__agent_vm_stopped() {\n"
	"	builtin trap - DEBUG\n"
	"	__agent_vm_plain\n"
	"	__agent_vm_take\n"
	"	trap - EXIT\n"
	"	__agent_vm_status=$1 __agent_vm_sig=${2-}\n"
	"	__agent_vm_did=${__agent_vm_did%%$'\\n'*}\n"
	"	printf 'agent-vm: %s: stopped%s with status %s%s; the agent was not started\\n' " HOOK_FILE
	" \"${__agent_vm_at:+ at line $__agent_vm_at}\" \"$1\""
	" \"${__agent_vm_did:+ (last command: ${__agent_vm_did//[[:cntrl:]]/?})}\" >&2\n"
	"	printf \"agent-vm: if that status is meant, end the hook with 'true'; to skip the hook use --no-hook\\n\" >&2\n"
	"	set --\n"
	"	(exit \"$__agent_vm_status\")\n"
	"	eval \"$__agent_vm_exit\"\n"
	"	[[ -n $__agent_vm_sig ]] && builtin trap - $__agent_vm_sig && builtin kill -s $__agent_vm_sig $$\n"
	"	builtin exit \"$__agent_vm_status\"\n"
	"}\n"
	"trap '__agent_vm_stopped $?' EXIT\n"
	"for __agent_vm_sig in HUP INT TERM; do\n"
	"	trap \"__agent_vm_stopped $((128 + $(kill -l $__agent_vm_sig))) $__agent_vm_sig\" $__agent_vm_sig\n"
	"done\n"
	"set -T\n"
	/* One line, because LINENO counts those of this text, too. A trap that comes while the hook runs comes by here as well, with
	 * the hook's command and its own line. */
	"trap 'if [[ -n ${BASH_SOURCE-} && ${FUNCNAME-} != __agent_vm_* && $BASH_COMMAND != __agent_vm_*"
	" && $BASH_COMMAND != \". ./" HOOK_FILE "\""
	" && ($LINENO != 1 || $BASH_COMMAND != \"$__agent_vm_did\") ]]; then"
	" [[ -z $__agent_vm_look || $BASH_SUBSHELL != 0 ]] || __agent_vm_take;"
	" __agent_vm_at=$LINENO __agent_vm_did=$BASH_COMMAND;"
	" [[ $BASH_COMMAND != *trap* ]] || __agent_vm_look=1; fi' DEBUG\n"
	". ./" HOOK_FILE "\n"
	"__agent_vm_status=$?\n"
	"builtin trap - DEBUG\n"
	"__agent_vm_plain\n"
	"[[ $__agent_vm_status = 0 ]] || __agent_vm_stopped $__agent_vm_status\n"
	"trap - EXIT ERR RETURN\n"
	"for __agent_vm_sig in {1..31}; do trap - $__agent_vm_sig; done 2>/dev/null\n"
	"[[ -n ${__agent_vm_in-} ]] && exec <&$__agent_vm_in >&$__agent_vm_out {__agent_vm_in}<&- {__agent_vm_out}>&-\n"
	"set -- \"${__agent_vm_words[@]}\"\n"
	"unset -f __agent_vm_take __agent_vm_plain __agent_vm_stopped\n"
	"unset \"${!__agent_vm_@}\"\n"
	"{ command -p mkdir -p /run/agent-vm && command -p env -0 >" GC_HOOK_ENV ".new &&\n"
	"	command -p mv " GC_HOOK_ENV ".new " GC_HOOK_ENV "; } 2>/dev/null ||\n"
	"	printf 'agent-vm: warning: %s: what it has set is not kept for agent-vm exec: " GC_HOOK_ENV " cannot be written\\n' " HOOK_FILE
	" >&2\n"
	"fi\n"
	/* The program of that name, never a function that the hook has made. */
	"type -P -- \"$2\" >/dev/null || { printf '%s\\n' \"${1:-agent-vm: $2: not found in PATH, which is $PATH}\" >&2; exit 127; }\n"
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
