"""The real agents of an image against services of the test's own: one prompt each, with a tool call that makes a file.

The fake believes only the login's token, which the guest never has; behind each agent the guest is searched for it. The
Claude and Codex logins are over when the session begins, so the host's own program renews them, and they change once more
in mid-session, when the tool is called."""
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from models import ACCOUNT, BESIDES, HI, HOSTS, TEXT, Models, jwt
from upstream import certificates

# The agent as its own verb starts it; then all files that have changed on the disk, the guest's other file systems, environments
# and command lines are searched for the word that is in every token, in three forms of base64 as well. PLANTED shows that the
# search finds.
HOOK = r"""
mkdir -p /opt/wrapped
cat > /opt/wrapped/AGENT <<'EOF'
#!/bin/bash
PATH=${PATH#/opt/wrapped:}
AGENT "$@"
status=$?
echo AVMCANAR''Y > /root/planted
export LC_ALL=C
word='AVMCANAR[Y]|QVZNQ0FOQVJ[Z]|FWTUNBTkFS[W]|BVk1DQU5BU[l]'
{
	find / -xdev -type f -cmin -60 -exec grep -laE "$word" {} +
	grep -rlaE "$word" /tmp /run /agent-vm-state /dev/shm
	for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do tr '\0' '\n' < $f; done 2>/dev/null | grep -a 'AVMCANAR[Y]'
	echo searched
} 2>/dev/null | grep -v "^$AGENT_VM_PROJECT" > "$AGENT_VM_PROJECT/found"
exit $status
EOF
chmod 755 /opt/wrapped/AGENT
PATH=/opt/wrapped:$PATH
"""
WORDS = {
    "claude": ["-p", "say hi"],
    "codex": ["exec", "--skip-git-repo-check", "say hi"],
    "opencode": ["run", "say hi"],
    "copilot": ["-p", "say hi", "-s"],
}
PATHS = {"claude": ("api.anthropic.com", "/v1/messages"), "codex": ("chatgpt.com", "/backend-api/codex/responses"),
         "opencode": ("chatgpt.com", "/backend-api/codex/responses"), "copilot": ("api.githubcopilot.com", "/chat/completions")}
# Whom each agent asks, in a session without and with a login of its own kind: HOST PATH. What is not here is told.
KNOWN = {
    "claude": r"api\.anthropic\.com (/api/(hello|oauth/profile|claude_code\w*|claude_cli|eval|directory|event_logging)(/.*)?|/v1/(mcp_servers|messages(/count_tokens)?))"
              r"|(platform|mcp-proxy|downloads)\..*|(github|raw\.githubusercontent)\.com .*",
    "codex": r"chatgpt\.com /backend-api/(wham|codex|ps|plugins)/.*|api\.openai\.com /v1/responses|ab\.chatgpt\.com /otlp/.*|auth\.openai\.com /oauth/token"
             r"|api\.github\.com /repos/openai/.*|(github|raw\.githubusercontent)\.com .*",
    "opencode": r"chatgpt\.com /backend-api/codex/responses|api\.anthropic\.com /v1/messages|auth\.openai\.com /oauth/token|models\.opencode\.ai .*"
                r"|registry\.npmjs\.org .*|api\.github\.com /repos/anomalyco/.*",
    "copilot": r"api\.github\.com (/copilot_internal/(user|managed_settings|team_customizations)|/repos/github/copilot-cli/releases)"
               r"|api\.githubcopilot\.com /(models|chat/completions|responses|v1/messages)|copilot-telemetry\.githubusercontent\.com /telemetry",
}


class Login:
    """A login of the host: its file, the token in it, and the program that renews it."""

    def __init__(self, agent, home, fake):
        self.agent, self.home, self.fake, self.n = agent, pathlib.Path(home), fake, 0
        self.env = {}
        if agent == "copilot":
            fake.token = "gho_AVMCANARY0123456789abcdefghijklmnop"
            self.env["COPILOT_GITHUB_TOKEN"] = fake.token
            return
        self.over = agent != "opencode"
        self.write(self.path(), -600 if self.over else 10 ** 6)
        if self.over:
            new = self.home / "renewed.json"
            fake.token = self.write(new, 10 ** 6)
            program = self.home / "bin" / agent
            program.parent.mkdir()
            # A host program writes anew and renames.
            program.write_text(f"#!/bin/sh\necho \"$*\" >> {self.home}/ran\ncp -p {new} {self.path()}.new && mv {self.path()}.new {self.path()}\n")
            program.chmod(0o755)
            self.env["PATH"] = f"{program.parent}:{os.environ['PATH']}"

    def path(self):
        return self.home / (".claude/.credentials.json" if self.agent == "claude" else ".codex/auth.json")

    def write(self, path, left_s):
        """The next token, into @path."""
        self.n += 1
        end = int(time.time()) + left_s
        if self.agent == "claude":
            token = f"sk-ant-oat01-AVMCANARY-{self.n}-7f3a9c2e5b81d604"
            text = {"claudeAiOauth": {"accessToken": token, "refreshToken": f"sk-ant-ort01-AVMCANARY-{self.n}-19be77aa0c4d", "expiresAt": end * 1000,
                                      "scopes": ["user:inference", "user:profile"], "subscriptionType": "max"}}
        else:
            token = jwt(f"AVMCANARY-access-{self.n}-5581aa7c", left_s)
            text = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "last_refresh": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "tokens": {
                "id_token": jwt(f"AVMCANARY-id-{self.n}-90ab", left_s), "access_token": token, "refresh_token": f"rt_AVMCANARY_{self.n}_77aacc",
                "account_id": ACCOUNT}}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_text(json.dumps(text))
        path.with_suffix(".tmp").chmod(0o600)
        path.with_suffix(".tmp").rename(path)
        self.fake.token = token
        return token

    def change(self):
        """In mid-session: another program of the host has renewed, and the old token is worth nothing."""
        if self.agent != "copilot":
            self.write(self.path(), 10 ** 6)


class Host:
    """A project, a home with one login and no other, and the services; all of it and the project's state go at the end."""

    def __init__(self, image, agent):
        self.image = image
        self.top = pathlib.Path(tempfile.mkdtemp(prefix=f"agent-vm-live-{agent}-", dir="/var/tmp"))
        self.project, self.home = self.top / "project", self.top / "home"
        self.state = image.state / hashlib.sha256(os.fsencode(str(self.project))).hexdigest()[:12]

    def __enter__(self):
        self.project.mkdir()
        self.home.mkdir()
        certificates(self.top, HOSTS)
        self.fake = Models(self.top)
        return self

    def __exit__(self, failed, *_):
        try:
            self.fake.close()
            shutil.rmtree(self.state, ignore_errors=bool(failed))
        finally:
            shutil.rmtree(self.top, ignore_errors=True)

    def words(self, verb):
        """With two processors: one draws OpenCode's screen, which takes all of an emulated one."""
        return [verb, "--no-update-check", "--memory", "3G", "--cpus", "2", "--image", f"localhost/agent-vm:{self.image.kind}", "--no-git"]

    def environment(self, login):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AGENT_VM_", "ANTHROPIC_", "OPENAI_", "GH_", "GITHUB_", "XDG_"))}
        to = ",".join(f"{n}:443:127.0.0.1:{self.fake.port}" for n in HOSTS + BESIDES)
        return {**env, "HOME": str(self.home), "SSL_CERT_FILE": str(self.top / "ca.pem"), "AGENT_VM_STATE_DIR": str(self.image.state),
                "AGENT_VM_CONNECT_TO": to, **login.env}


def run(image, agent):
    """One prompt with a tool call."""
    with Host(image, agent) as host:
        project, home, fake = host.project, host.home, host.fake
        (project / ".agent-vm.runtime.sh").write_text(HOOK.replace("AGENT \"", f"{agent} \"").replace("/AGENT", f"/{agent}"))
        login = Login(agent, home, fake)
        fake.make, fake.made = str(project / "made.txt"), login.change
        start = time.monotonic()
        p = subprocess.run([image.agent_vm, *host.words(agent), *WORDS[agent]], cwd=project, env=host.environment(login),
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=2400)
        seconds = time.monotonic() - start
        said = f"exit status {p.returncode}\n{p.stdout.decode(errors='replace')[-3000:]}\n{p.stderr.decode(errors='replace')[-6000:]}\n" + "\n".join(
            f"{n} {h.splitlines()[0]}" for n, h, _ in fake.seen) + f"\nrefused {fake.refused}"
        assert p.returncode == 0 and HI in p.stdout.decode(), f"{agent}: {said}"
        made = project / "made.txt"
        assert made.exists() and made.read_text() == TEXT, f"{agent}: no file made, {said}"
        st = made.stat()
        assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (os.geteuid(), os.getegid(), 0o644), f"{agent}: {st}"
        assert fake.models.count(PATHS[agent]) >= 2, f"{agent}: {fake.models}"
        assert not [c for _, _, c in fake.refused if "avm" in c], f"{agent}: a placeholder went out: {fake.refused}"
        for name, head, _ in fake.seen:
            assert "avm-" not in head and "gho_avm_" not in head, f"{agent}: a placeholder went out to {name}: {head}"
        assert (project / "found").read_text() == "/root/planted\nsearched\n", f"{agent}: in the guest: {(project / 'found').read_text()}"
        for f in host.state.rglob("*"):
            if f.is_file() and not f.is_symlink():
                assert not re.search(rb"AVMCANARY|QVZNQ0FOQVJZ|FWTUNBTkFSW|BVk1DQU5BUl", f.read_bytes()), f"{agent}: {f}"
        renewed = (home / "ran").read_text().splitlines() if (home / "ran").exists() else []
        if agent in ("claude", "codex"):
            assert len(renewed) == 1, f"{agent}: its host program ran {len(renewed)} times: {said}"
        strange = sorted({f"{n} {path}" for n, path in fake.paths() if not re.fullmatch(KNOWN[agent], f"{n} {path}")})
        if strange:
            print(f"warning: {agent} asks for what is not known of it: {', '.join(strange)}", flush=True)
        return "one prompt with a tool call; no token found in the guest", f"{seconds:.0f} s; requests: {len(fake.seen)}; renewals: {len(renewed)}"


KEY = "sk-ant-api03-AVMCANARY" + "A" * 40 + "ABCDEFGHIJKLMNOPQRST"
# By agent: what its screen shows when it waits for words; what it shows when it asks something first, or something has failed; its
# own words to leave; and those with which it goes on with what was said last.
SCREENS = {
    "claude": (r"bypass permissions on", r"trust this folder|text style|login method|custom API key|Yes, I accept", "/exit", ["--continue"]),
    "codex": (r"permissions: YOLO", r"trust the contents|Sign in with|Update available", "/quit", ["resume", "--last"]),
    "opencode": (r"Ask anything|ctrl\+p", r"Connect a provider|Select provider|Update available", "/exit", ["--continue"]),
    "copilot": (r"/commands|/ commands", r"trust the files|trust this folder|/login|Update available|[Ff]ailed", "/exit", ["--continue"]),
}


class Screen:
    """An agent under tmux, which is the terminal: what a person would see is read, and words are typed. Ends with the block."""

    def __init__(self, words, where, env, columns=110, rows=40):
        self.server = ["tmux", "-u", "-S", str(where / "tmux"), "-f", str(where / "tmux.conf")]
        self.env, self.agent, self.seen = env, words[1], ""
        # tmux 3.3a takes its SIGCHLD away for a moment when a terminal ends, and then never learns how the program did.
        self.status = where / "status"
        self.status.unlink(missing_ok=True)
        (where / "tmux.conf").write_text("set -g remain-on-exit on\n")
        self.tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(where / "project"), "--",
                  "sh", "-c", 'status=$1; shift; "$@"; echo $? >"$status"', "sh", str(self.status), *words)

    def tmux(self, *words):
        return subprocess.run([*self.server, *words], env=self.env, check=True, stdout=subprocess.PIPE, encoding="utf-8", timeout=60).stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.ended() is None:
            shell = self.tmux("display", "-p", "#{pane_pid}").strip()
            for pid in pathlib.Path(f"/proc/{shell}/task/{shell}/children").read_text().split():
                os.kill(int(pid), signal.SIGTERM)
            with contextlib.suppress(AssertionError):
                self.until(None, 60)
        self.tmux("kill-server")

    def ended(self):
        """The status of the program as a shell gives it; None while it runs."""
        said = self.status.read_text() if self.status.exists() else ""
        return int(said) if said.endswith("\n") else None

    def until(self, pattern, seconds):
        """Until the screen shows it; None: until the program has ended."""
        end = time.monotonic() + seconds
        while True:
            status, shown = self.ended(), self.tmux("capture-pane", "-p")
            if shown not in self.seen[-len(shown):]:
                self.seen += shown
            if re.search(pattern, shown) if pattern else status is not None:
                return status
            assert time.monotonic() < end and status is None, f"{self.agent}: no {pattern!r}, status {status}, the screen:\n{shown}"
            time.sleep(0.3)

    def type(self, words):
        self.tmux("send-keys", "-l", words)
        time.sleep(5)  # what is typed at once with the key that ends it, some take for something that was pasted
        self.tmux("send-keys", "Enter")


def interactive(image, agent):
    """On a terminal, twice: it waits for words and asks nothing first, words get their answer, it follows the terminal's size and leaves
    when it is told. The second time it goes on with what the first has said."""
    with Host(image, agent) as host:
        fake, state = host.fake, host.state
        login = Login(agent, host.home, fake)
        login.change()
        prompt, questions, leave, again = SCREENS[agent]
        waits = []
        for words in ([], again):
            if agent == "claude" and words:  # a key, which its own program would ask about
                login.path().unlink()
                fake.token = login.env["ANTHROPIC_API_KEY"] = KEY
            fake.models.clear()
            fake.make = "/opt/made.txt"  # in the guest, outside the project: a question about it would keep the answer away
            start = time.monotonic()
            with Screen([image.agent_vm, *host.words(agent), *words], host.top, host.environment(login)) as screen:
                screen.until(prompt, 1500)
                waits.append(f"{time.monotonic() - start:.0f}")
                screen.until(HI if words else prompt, 600)
                time.sleep(15)  # it may draw a question over it
                screen.until(prompt, 60)
                screen.tmux("resize-window", "-x", "90", "-y", "30")
                screen.type("say hello")
                screen.until(HI + r"(?s:.*" + HI + ")" if words else HI, 1500)
                assert PATHS[agent] in fake.models and not [c for _, _, c in fake.refused if "avm" in c], (fake.models, fake.refused)
                screen.type(leave)
                status = screen.until(None, 600)
                assert status == 0, f"{agent}: exit status {status}:\n{screen.tmux('capture-pane', '-p')}"
                asked = re.findall(questions, screen.seen)
                assert not asked, f"{agent}: {asked}:\n{screen.seen}"
        assert not (state / "codex/packages").exists(), "codex: a daemon copied itself into its folder"
        assert agent == "claude" or list((state / "db").glob(f"{agent}.*")), f"{agent}: its databases were not saved"
        assert agent != "claude" or json.loads((state / "claude.json").read_text())["numStartups"] >= 2, "claude: its state did not stay"
        return "on a terminal: asks nothing, makes a file, answers, leaves; goes on the second time", f"words after {' and '.join(waits)} s"


# How chromium's renderers are confined while it runs.
RENDERERS = r"""
renderers() {
	for f in $(grep -la -e '--type=rendere[r]' /proc/[0-9]*/cmdline); do
		how=$(grep -E '^(Seccomp|Uid):' ${f%/*}/status) && open=$(grep -ca -e --no-sandbox $f; :) && [ "$open" ] && echo "renderer" $how $open
	done 2>/dev/null
}
"""
# Chromium as the MCP server would start it, by the user chrome: a page of a host that the session looks into, then one of a host
# whose certificate nobody believes. Under emulation its processes need longer to find each other than the 15 s that it gives them.
PAGES = RENDERERS + r"""
page() {
	timeout 1200 agent-vm-chrome-mcp chromium --headless --disable-gpu --no-first-run --ipc-connection-timeout=600 --enable-logging=stderr \
		--dump-dom "$1" 2> /root/log
	grep -aoE 'net_error -[0-9]+' /root/log | sort -u
	tail -n 20 /root/log >&2
}
while sleep 5; do renderers; done > /root/renderers &
page https://api.anthropic.com/page
echo ====
page https://raw.githubusercontent.com/page
kill $!
sort -u /root/renderers
"""
# The same through the MCP server of the agents' settings.
BROWSER = RENDERERS + r"""
ask() { printf '{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"%s","arguments":%s}}\n' "$@"; }
waiting() { for i in $(seq 900); do grep -q "\"id\":$1[,}]" /root/answers && return; sleep 1; done; echo "no answer $1" >&2; exit 1; }
: > /root/answers
{
	printf '%s\n' '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}' \
		'{"jsonrpc":"2.0","method":"notifications/initialized"}'
	waiting 1
	ask 2 new_page '{"url":"https://api.anthropic.com/page","timeout":200000}'; waiting 2
	ask 3 evaluate_script '{"pageId":2,"function":"() => location.protocol + document.body.innerText"}'; waiting 3
	ask 4 new_page '{"url":"https://raw.githubusercontent.com/page","timeout":200000}'; waiting 4
	renderers | sort -u > /root/renderers
} | timeout 2700 sh -c "$(node -e '
const s = JSON.parse(require("fs").readFileSync("/root/.claude.json")).mcpServers["chrome-devtools"];
console.log("exec env", ...Object.entries(s.env).map(e => e.join("=")), s.command, ...s.args, "--chromeArg=--ipc-connection-timeout=600")')" > /root/answers 2> /root/mcp.log
cat /root/answers /root/renderers
tail -n 20 /root/mcp.log >&2
"""


def browser(image, by_mcp):
    """The agents' browser believes the session's authority and no other, and is confined; without its entry it is not offered."""
    with Host(image, "browser") as host:
        fake = host.fake
        login = Login("claude", host.home, fake)
        login.change()
        env = host.environment(login)

        def shell(script, **more):
            p = subprocess.run([image.agent_vm, *host.words("shell"), "--quiet", "--", "-c", script], cwd=host.project, env={**env, **more},
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3000, text=True)
            return p.stdout, p.stdout + p.stderr
        start = time.monotonic()
        out, said = shell(BROWSER if by_mcp else PAGES)
        seconds = time.monotonic() - start
        if by_mcp:
            answers = {a["id"]: json.dumps(a.get("result")) for a in map(json.loads, re.findall(r"^\{.*\}$", out, re.M)) if "id" in a}
            assert "https:" in answers.get(3, "") and "nothing here" in answers[3], said
            assert "ERR_CERT_AUTHORITY_INVALID" in answers.get(4, ""), said
        else:
            first, _, second = out.partition("====\n")
            assert "nothing here" in first and "net_error -2" not in first, said
            assert "net_error -202" in second and "nothing here" not in second, said  # ERR_CERT_AUTHORITY_INVALID
        assert ("api.anthropic.com", "/page") in fake.paths() and ("raw.githubusercontent.com", "/page") not in fake.paths(), fake.paths()
        renderers = re.findall(r"^renderer .*", out, re.M)
        assert renderers and all(re.fullmatch(r"renderer Uid: 9999 9999 9999 9999 Seccomp: 2 0", r) for r in renderers), said
        if by_mcp:
            out, said = shell("grep -c chrome-devtools ~/.claude.json", AGENT_VM_NO_CHROME_MCP="1")
            assert out == "0\n", said
        return (f"a page over the session's authority, none over another{' by the MCP server' if by_mcp else ''}; renderers confined",
                f"{seconds:.0f} s")
