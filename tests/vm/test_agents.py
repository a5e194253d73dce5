"""The agents' verbs: command lines, environment, state and its merging, the hook. Stand-ins take the agents' places; the real
programs are in tests/image/agents_test.py."""
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import threading
import time

from vmtest import BOOT_S, MONITOR, SLOW, STATE, Case, Terminal, children, comm, command, environment, program, wait_for

# Prints its name, each word in brackets, and then the variables that are asked for.
STAND_IN = r"""#!/bin/bash
printf '%s:' "${0##*/}"; printf ' [%s]' "$@"; echo
[ -f show ] && . ./show
exit 0
"""
MARK = "<!-- agent-vm: "


class Agents(Case):
    def setUp(self):
        super().setUp()
        self.state = pathlib.Path(STATE) / hashlib.sha256(os.fsencode(self.project)).hexdigest()[:12]
        bin_ = self.project / "bin"
        bin_.mkdir()
        for name in ("claude", "codex", "opencode", "copilot"):
            (bin_ / name).write_text(STAND_IN)
            (bin_ / name).chmod(0o755)
        self.hook("export PATH=$PWD/bin:$PATH")

    def vm(self, *words, **kw):
        if words[0] == "copilot":  # without a token it does not start
            kw["env"] = {"COPILOT_GITHUB_TOKEN": "gho_0123456789abcdef0123456789", **(kw.get("env") or {})}
        return super().vm(*words, **kw)

    def hook(self, text):
        (self.project / ".agent-vm.runtime.sh").write_text(text + "\n")

    def seed(self, path, content, mode=0o600):
        at = self.state / path
        at.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        at.write_bytes(content.encode() if isinstance(content, str) else content)
        at.chmod(mode)
        return at

    def json(self, path):
        return json.loads((self.state / path).read_text())


class Verbs(Agents):
    def test_command_lines(self):
        skip = "--dangerously-skip-permissions"
        for words, want in [
                (["claude", "-p", "say hi"], f"claude: [{skip}] [-p] [say hi]"),
                (["claude", "--", "--", "x"], f"claude: [{skip}] [--] [x]"),
                (["claude", "a", skip], f"claude: [a] [{skip}]"),
                (["claude", "--permission-mode=plan"], "claude: [--permission-mode=plan]"),
                (["codex", "exec", "x"], "codex: [exec] [x]"),
                (["opencode", "run", ""], "opencode: [run] []"),
                (["copilot", "-p", "*"], "copilot: [--allow-all] [-p] [*]"),
                (["copilot", "--yolo"], "copilot: [--yolo]")]:
            with self.subTest(words=words):
                p = self.vm(*words, check=0)
                self.assertEqual(p.stdout.decode(), want + "\n")

    def test_environment_and_input(self):
        (self.project / "show").write_text(
            "env | sort; pwd; cat; for p in /root/.claude /root/.claude.json /root/.local/share/opencode /root/.config/opencode "
            "/root/.copilot /root/.gitconfig /root/.config/gh /root/.bash_history; do test -e $p && readlink $p; done\n"
            "cat /etc/codex/config.toml; test -s /etc/claude-code/CLAUDE.md && echo instructed\n")
        p = self.vm("codex", input=b"from stdin\n", check=0)
        lines = p.stdout.decode().splitlines()
        for want in ["IS_SANDBOX=1", "CODEX_HOME=/agent-vm-state/codex", "DISABLE_AUTOUPDATER=1", "COPILOT_AUTO_UPDATE=false",
                     "OPENCODE_DISABLE_AUTOUPDATE=1", "CODEX_SQLITE_HOME=/var/lib/agent-vm/db/codex", "HOME=/root", "USER=root", "LANG=C.UTF-8", f"AGENT_VM_PROJECT={self.project}",
                     str(self.project), "from stdin", "/agent-vm-state/claude", "/agent-vm-state/claude.json",
                     "/agent-vm-state/opencode", "/agent-vm-state/opencode-config", "/agent-vm-state/copilot",
                     "/agent-vm-state/gitconfig", "/agent-vm-state/gh-config", "/agent-vm-state/bash_history",
                     'sandbox_mode = "danger-full-access"', "daemon_auto_start = false", "instructed"]:
            self.assertIn(want, lines)
        self.assertFalse([line for line in lines if line.startswith(("__agent_vm", "BASH_FUNC"))], lines)

    def test_an_agent_that_the_image_lacks_is_one_clear_line(self):
        for hook in (True, False):
            with self.subTest(hook=hook):
                if not hook:
                    (self.project / ".agent-vm.runtime.sh").unlink()
                else:
                    self.hook("true")
                p = self.vm("opencode", "--quiet", check=127)
                said = p.stderr.decode().splitlines()
                self.assertEqual(len(said), 1, said)
                self.assertIn(f"agent-vm: opencode: not in the image {os.environ['AGENT_VM_IMAGE_TAG']}; ", said[0])
                self.assertEqual(p.stdout, b"")

    def test_a_status_127_of_something_else_is_not_taken_for_a_missing_agent(self):
        for hook, said in (("no-such-program", 2), ("PATH=$PWD/bin:$PATH", 0)):
            with self.subTest(hook=hook):
                self.hook(hook)
                (self.project / "bin/claude").write_text("#!/bin/sh\nexit 127\n")
                p = self.vm("claude", "--quiet", check=127)
                self.assertNotIn(b"not in the image", p.stderr)
                self.assertEqual(p.stderr.count(b"agent-vm: "), said, p.stderr)


class State(Agents):
    def test_a_fresh_project(self):
        self.vm("copilot", check=0)
        project = str(self.project)
        settings, claude = self.json("claude/settings.json"), self.json("claude.json")
        self.assertEqual(settings, {"hasCompletedOnboarding": True, "skipDangerousModePermissionPrompt": True, "theme": "dark",
                                    "effortLevel": "xhigh"})
        self.assertEqual(claude, {"hasCompletedOnboarding": True, "bypassPermissionsModeAccepted": True, "projects": {project: {
            "hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True, "history": []}}})
        self.assertEqual(self.json("opencode-config/opencode.json"), {
            "$schema": "https://opencode.ai/config.json", "autoupdate": False})  # no login at OpenAI, so no model of theirs
        copilot = self.json("copilot/config.json")
        self.assertRegex(copilot.pop("github_token"), r"^gho_avm_[a-z2-9]{26}$")
        self.assertEqual(copilot, {"trusted_folders": ["/"], "trustedFolders": ["/"]})
        self.assertEqual(self.json("copilot/settings.json"), {"disabledMcpServers": ["github-mcp-server"]})
        self.assertEqual((self.state / "codex/config.toml").read_text(), 'approval_policy = "never"\nsandbox_mode = '
                         f'"danger-full-access"\n\n[projects."{project}"]\ntrust_level = "trusted"\n')
        for path, mode in [("claude.json", 0o600), ("claude/settings.json", 0o600), ("copilot/config.json", 0o600), ("claude", 0o700)]:
            self.assertEqual((self.state / path).stat().st_mode & 0o777, mode, path)
        for path in ("codex/AGENTS.md", "opencode-config/AGENTS.md", "copilot/copilot-instructions.md"):
            text = (self.state / path).read_text()
            self.assertTrue(text.startswith(MARK) and project in text and len(text.splitlines()) < 60, text)

    def test_what_is_there_survives(self):
        project = str(self.project)
        self.seed("claude.json", '{"projects": 5, "x": 1, "big": 12345678901234567890123, "half": "\\ud83d"}')
        self.seed("claude/settings.json", '{"theme":"light","hooks":{"a":[]},"hasCompletedOnboarding":false}')
        self.seed("codex/config.toml", 'model = "o9"\n# mine\n')
        self.seed("opencode-config/opencode.json", '{\n  // mine\n  "model": "zai/glm",\n}\n')
        self.seed("codex/AGENTS.md", "mine\n")
        self.seed("codex/sessions/a.jsonl", "{}\n")
        before = None
        for turn in range(2):
            p = self.vm("claude", check=0)
            self.assertNotIn(b"agent-vm-bad", p.stderr)
            text = (self.state / "claude.json").read_text()
            self.assertIn('"x": 1, "big": 12345678901234567890123, "half": "\\ud83d"', text)
            self.assertTrue(json.loads(text)["projects"][project]["hasTrustDialogAccepted"])
            self.assertEqual(self.json("claude/settings.json"), {
                "theme": "light", "hooks": {"a": []}, "hasCompletedOnboarding": True, "skipDangerousModePermissionPrompt": True,
                "effortLevel": "xhigh"})
            self.assertEqual((self.state / "codex/config.toml").read_text(),
                             f'model = "o9"\n# mine\n\n[projects."{project}"]\ntrust_level = "trusted"\n')
            opencode = (self.state / "opencode-config/opencode.json").read_text()
            self.assertIn('// mine\n  "model": "zai/glm"', opencode)
            self.assertIn('"autoupdate":false', opencode)
            self.assertTrue((self.state / "codex/AGENTS.md").read_text().startswith("mine\n\n" + MARK))
            self.assertEqual((self.state / "codex/sessions/a.jsonl").read_text(), "{}\n")
            after = [(self.state / p).stat().st_ino for p in ("claude.json", "claude/settings.json", "codex/config.toml")]
            # What holds already is not written again.
            self.assertTrue(before is None or before == after)
            before = after

    def test_logins_of_an_earlier_session_go_and_others_stay(self):
        mine = "avm-claude-a-abcdefghijkmnpqrstuvwxyz23"
        self.seed("claude/.credentials.json", json.dumps({"mcpOAuth": {"x": 1}, "claudeAiOauth": {"accessToken": mine}}))
        self.seed("codex/auth.json", json.dumps({"auth_mode": "apikey", "OPENAI_API_KEY": "avm-codex-key-abcdefghijkmnpqrstuvwxyz23"}))
        self.seed("opencode/auth.json", json.dumps({"zai": {"type": "api", "key": "typed-in-the-guest"}, "openai": {"access": mine}, "own": {"k": 1}}))
        # As Claude Code writes it; this image has no browser any more.
        self.seed("claude.json", json.dumps({"mcpServers": {"own": {"command": "x"}, "chrome-devtools": {
            "command": "/usr/local/bin/agent-vm-chrome-mcp", "args": ["npx"], "env": {}}}}, indent=2))
        p = self.vm("claude", check=0)
        self.assertEqual(self.json("claude/.credentials.json"), {"mcpOAuth": {"x": 1}})
        self.assertEqual(self.json("claude.json")["mcpServers"], {"own": {"command": "x"}})
        self.assertFalse((self.state / "codex/auth.json").exists())
        self.assertEqual(self.json("opencode/auth.json"), {"zai": {"type": "api", "key": "typed-in-the-guest"}, "own": {"k": 1}})
        self.assertIn(b"opencode/auth.json: it holds a login that was made in the guest; it is kept", p.stderr)
        self.assertFalse((self.state / "opencode/opencode.db").exists())

    def test_poisoned_files_are_set_aside(self):
        self.addCleanup(shutil.rmtree, self.state, ignore_errors=True)  # other tests read what states hold
        secret = self.top / "secret.json"
        secret.write_text('{"hasCompletedOnboarding": false}')
        for d in ("claude", "codex", "opencode-config", "copilot"):
            (self.state / d).mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
        (self.state / "claude.json").symlink_to(secret)
        os.mkfifo(self.state / "claude/settings.json")
        with open(self.state / "opencode-config/opencode.json", "wb") as huge:
            huge.truncate(1 << 30)
        (self.state / "codex/config.toml").mkdir()
        (self.state / "codex/config.toml/x").write_text("x")
        (self.state / "copilot/config.json").write_text("[" * 100000)
        (self.state / "codex/AGENTS.md").symlink_to("/etc/shadow")
        (self.state / "claude/.settings.json.new").mkdir()
        (self.state / "claude.json.agent-vm-bad").mkdir()
        (self.state / "claude.json.agent-vm-bad/old").write_text("x")
        p = self.vm("copilot", check=0)
        self.assertEqual(p.stdout, b"copilot: [--allow-all]\n")
        said = p.stderr.decode()
        for path, why in [("claude.json", "is a link"), ("claude/settings.json", "is no regular file"),
                          ("opencode-config/opencode.json", "is larger than 8 MiB"), ("codex/config.toml", "is no regular file"),
                          ("copilot/config.json", "is no JSON object"), ("codex/AGENTS.md", "is a link")]:
            self.assertEqual(said.count(f"/agent-vm-state/{path}: {why}; it was renamed"), 1, said)
            self.assertTrue((self.state / path).is_file() and not (self.state / path).is_symlink(), path)
            self.assertTrue(os.path.lexists(self.state / (path + ".agent-vm-bad")), path)
        self.assertEqual(secret.read_text(), '{"hasCompletedOnboarding": false}')
        self.assertTrue(self.json("claude.json")["hasCompletedOnboarding"])
        self.assertNotIn("renamed", self.vm("copilot", check=0).stderr.decode())

    FOLDERS = ["claude", "codex", "opencode", "opencode-config", "copilot", "gh-config", "db"]
    FILES = ["claude.json", "gitconfig", "bash_history", "claude/settings.json", "claude/.credentials.json", "codex/config.toml", "codex/auth.json",
             "codex/AGENTS.md", "opencode/auth.json", "opencode-config/opencode.json", "opencode-config/AGENTS.md", "copilot/config.json",
             "copilot/settings.json", "copilot/copilot-instructions.md", "gh-config/hosts.yml", "gh-config/config.yml", "codex/state_5.sqlite", "opencode/opencode.db",
             "copilot/session-store.db", "db/codex.7/state_5.sqlite", "db/codex.8", "db/opencode.1"]

    def forms(self, outside, name):
        """What can stand in the place of a file or folder: each makes it there."""
        def socket_at(at):
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(f"/proc/self/fd/{fd}/s")
            (outside / "s").rename(at)
        fd = os.open(outside, os.O_PATH)
        self.addCleanup(os.close, fd)
        return [lambda at: at.symlink_to(outside / name), os.mkfifo, lambda at: at.symlink_to(at), lambda at: (at / "x/y").mkdir(parents=True),
                lambda at: at.write_bytes(b"") or os.truncate(at, 1 << 42), socket_at, lambda at: at.write_bytes(b"\0\xff{" * 999),
                lambda at: at.symlink_to("/etc/passwd"), lambda at: at.symlink_to(os.path.relpath(outside / name, at.parent))]

    def test_every_file_and_folder_in_every_wrong_form(self):
        self.addCleanup(shutil.rmtree, self.state, ignore_errors=True)
        outside = self.top / "outside"
        outside.mkdir()
        (outside / "file").write_text('{"CANARY": 1}')
        (outside / "folder").mkdir()
        before = sorted(outside.rglob("*"))
        (self.project / "show").write_text("cat /etc/passwd | md5sum; git config --global --list >/dev/null; bash -ic 'history | tail -n 1' >/dev/null 2>&1\n")
        sums = set()
        self.state.mkdir(mode=0o700)
        for turn, (places, name) in enumerate([(self.FILES, "file"), (self.FOLDERS, "folder"), (self.FILES, "file"), ([], "")]):
            for n, place in enumerate(places):
                at = self.state / place
                shutil.rmtree(at, ignore_errors=True)
                at.unlink(missing_ok=True)
                at.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                forms = self.forms(outside, name)
                forms[(n + turn * 4) % len(forms)](at)
            p = self.vm("copilot", check=0)
            first, _, rest = p.stdout.decode().partition("\n")
            self.assertEqual(first, "copilot: [--allow-all]", p.stderr)
            sums.add(rest)
            self.assertEqual(self.json("copilot/config.json")["trustedFolders"], ["/"])
            self.assertTrue(self.json("claude.json")["hasCompletedOnboarding"])
            self.assertEqual(sorted(outside.rglob("*")), before)
            self.assertEqual((outside / "file").read_text(), '{"CANARY": 1}')
            for f in self.state.rglob("*"):
                if f.is_file() and not f.is_symlink() and f.stat().st_size < 1 << 30:
                    self.assertNotRegex(f.read_bytes(), b"CANARY|root:x:0:0", f)
        self.assertEqual(len(sums), 1, sums)  # the guest's own file is as it was

    def test_a_session_beside_that_never_stops_poisoning(self):
        self.addCleanup(shutil.rmtree, self.state, ignore_errors=True)  # other tests read what states hold
        outside = self.top / "outside"
        outside.write_text('{"CANARY": 1}')
        script = f"""cd /agent-vm-state; i=0; n() {{ rm -rf $1; case $((i++ % 4)) in 0) ln -s {outside} $1;; 1) mkfifo $1;; 2) mkdir -p $1/x;;
            3) truncate -s 1G $1;; esac; }}
            (while :; do for f in claude.json claude/settings.json codex/config.toml codex/AGENTS.md copilot/config.json gitconfig; do n $f; done 2>/dev/null
            mv claude c; ln -s codex claude; rm claude; mv c claude; done) & echo up; exec sleep 600"""
        with self.session(script=script):
            for _ in range(2):
                p = self.vm("copilot")  # begins, or says why not
                if p.returncode != 0:
                    self.assertRegex(p.stderr.decode(), r"agent-vm: .*/agent-vm-state/\S+: cannot be ")
        p = self.vm("copilot", check=0)
        self.assertEqual(p.stdout, b"copilot: [--allow-all]\n")
        self.assertTrue(self.json("claude.json")["hasCompletedOnboarding"])
        self.assertEqual(outside.read_text(), '{"CANARY": 1}')

    def test_what_an_agent_leaves_is_there_the_next_time(self):
        self.sh("echo 'a = 1' >> ~/.codex-test; mkdir -p ~/.claude/projects ~/.copilot/x; echo h > ~/.claude/projects/s.jsonl;"
                "echo p > $CODEX_HOME/history.jsonl; echo o > ~/.local/share/opencode/log; echo b >> ~/.bash_history")
        self.assertEqual(self.sh("cat ~/.claude/projects/s.jsonl $CODEX_HOME/history.jsonl ~/.local/share/opencode/log; tail -n 1 "
                                 "~/.bash_history; ls -d ~/.copilot/x; ls ~/.codex-test 2>&1 | grep -c No"),
                         "h\np\no\nb\n/root/.copilot/x\n1\n")


class Databases(Agents):
    """On the session's own disk, saved whole at its end."""
    WRITE = "echo {0} > $CODEX_SQLITE_HOME/state_5.sqlite; echo wal > $CODEX_SQLITE_HOME/state_5.sqlite-wal; echo no > $CODEX_SQLITE_HOME/x"

    def sets(self, name="codex"):
        return sorted(p.name for p in (self.state / "db").glob(name + ".*"))

    def saved(self, which):
        return (self.state / "db" / which / "state_5.sqlite").read_text().strip()

    def test_saved_at_the_end_and_there_the_next_time(self):
        for turn in range(1, 4):
            self.sh(self.WRITE.format(turn))
        self.assertEqual(self.sets(), ["codex.2", "codex.3"])
        self.assertEqual((self.saved("codex.2"), self.saved("codex.3")), ("2", "3"))
        self.assertEqual(sorted(os.listdir(self.state / "db/codex.3")), ["state_5.sqlite", "state_5.sqlite-wal"])
        self.assertEqual(self.sh("cat $CODEX_SQLITE_HOME/state_5.sqlite; ls -A $CODEX_SQLITE_HOME | wc -l"), "3\n2\n")
        # Nothing was written: nothing is saved.
        self.assertEqual(self.sets(), ["codex.2", "codex.3"])
        self.assertEqual(self.sets("opencode") + self.sets("copilot"), [])

    def test_of_a_vm_that_is_killed_what_it_had_saved_meanwhile_is_there(self):
        shutil.copy(program("db-in-vm"), self.project)
        with self.session(script="./db-in-vm $CODEX_SQLITE_HOME/x.sqlite lock & ./db-in-vm $OPENCODE_DB write & echo up; exec sleep 600") as p:
            kept = wait_for(lambda: list((self.state / "db").glob("opencode.1.*")), 300, "nothing is saved while it runs")[0]
            for pid in children(p.pid):
                if comm(pid).startswith("agent-vm-vmm" if MONITOR == "krun" else "qemu"):
                    os.kill(pid, 9)
            p.wait(60 * SLOW)
        self.assertEqual([f.name for f in kept.iterdir()], ["opencode.db"])
        db = sqlite3.connect(f"file:{kept}/opencode.db?immutable=1", uri=True)
        saved = db.execute("SELECT count(*) FROM t").fetchone()[0]
        db.close()
        self.assertGreater(saved, 0)
        out = self.sh("./db-in-vm $OPENCODE_DB count; ls -A ${OPENCODE_DB%/*} | wc -l; ls -A /var/lib/agent-vm/db | wc -l")
        self.assertEqual(out.split(), ["ok", str(saved), str(saved), "1", "3"])
        # It is the last set now; the other one's name is gone, and nothing was told but in the log.
        self.assertEqual(self.sets("opencode"), ["opencode.1"])
        self.assertIn(f"those of a session that did not end in order, db/{kept.name}", self.vm("logs", check=0).stdout.decode())
        # One that could not be read has kept nothing else up.
        said = self.vm("logs", kept.name.partition(".")[2].partition(".")[2], check=0).stdout.decode()
        self.assertEqual(said.count("the databases of codex could not be saved while the session ran: x.sqlite: database is locked; "), 1, said)
        self.assertEqual(self.sets(), [])

    def test_the_session_that_ends_later_overwrites_nothing(self):
        with self.session(script=self.WRITE.format("first") + "; echo up; exec sleep 600") as p:
            self.sh(self.WRITE.format("second"))
            p.terminate()
            said = p.communicate(timeout=60 * SLOW)[1].decode()
        name = self.sets()[-1]
        self.assertEqual(self.sets(), ["codex.1", name])
        self.assertTrue(name.startswith("codex.1.agent-vm-"))
        self.assertEqual((self.saved("codex.1"), self.saved(name)), ("second", "first"))
        self.assertIn(f"those of this one are db/{name} in the project's state", said)
        self.assertEqual(self.sh("cat $CODEX_SQLITE_HOME/state_5.sqlite"), "second\n")

    def test_of_three_sessions_each_keeps_its_own(self):
        up = "; echo up; exec sleep 600"
        with self.session(script=self.WRITE.format("a") + up) as a, self.session(script=self.WRITE.format("b") + up) as b:
            self.sh(self.WRITE.format("c"))
            for p in (a, b):
                p.terminate()
                p.communicate(timeout=60 * SLOW)
        self.assertEqual(self.saved("codex.1"), "c")
        self.assertEqual(sorted(self.saved(name) for name in self.sets()), ["a", "b", "c"])

    def test_a_set_that_cannot_be_read_stays_and_what_is_begun_anew_lies_beside(self):
        at = self.seed("db/codex.3/state_5.sqlite", bytes(8192))
        self.seed("db/codex.2/state_5.sqlite", "before")
        self.state.chmod(0o700)
        for turn in range(2):
            p = self.vm("shell", "--", "-c", "cat $CODEX_SQLITE_HOME/state_5.sqlite; " + self.WRITE.format(f"anew{turn}"), check=None)
            self.assertEqual(p.stdout, b"" if turn == 0 else b"anew0\n", p.stderr)
            name = self.sets()[-1]
            self.assertEqual(self.sets(), ["codex.2", "codex.3", name])
            self.assertTrue(name.startswith("codex.anew.agent-vm-"), name)
            self.assertEqual((self.saved(name), at.read_bytes()), (f"anew{turn}", bytes(8192)))
            self.assertEqual(p.stderr.decode().count("the databases of codex could not be read: a database is damaged; they stay in db/codex.3 "), 1, p.stderr)
            self.assertIn(f"those of this session are db/{name}", p.stderr.decode())
        shutil.rmtree(at.parent)
        self.assertEqual(self.sh("cat $CODEX_SQLITE_HOME/state_5.sqlite"), "before")
        self.assertEqual(self.sets(), ["codex.2", name])

    def test_what_the_older_program_left_is_taken_over(self):
        self.seed("opencode/opencode.db", "o1")
        self.seed("opencode/opencode.db-wal", "o2")
        self.seed("copilot/session-store.db", "c1")
        (self.state / "codex").mkdir()
        os.mkfifo(self.state / "codex/state_5.sqlite")
        self.state.chmod(0o700)
        for _ in range(2):
            self.assertEqual(self.sh("cat $OPENCODE_DB $OPENCODE_DB-wal ~/.copilot/session-store.db; ls $CODEX_SQLITE_HOME | wc -l"), "o1o2c10\n")
        self.assertEqual((self.sets("opencode"), self.sets("copilot"), self.sets()), (["opencode.1"], ["copilot.1"], []))
        self.sh("echo -n more >> ~/.copilot/session-store.db")
        self.assertEqual((self.state / "db/copilot.2/session-store.db").read_text(), "c1more")
        self.assertEqual(os.readlink(self.state / "copilot/session-store.db"), "/var/lib/agent-vm/db/copilot/session-store.db")


class HostSettings(Agents):
    """The user's own skills, commands and settings, from an allow-list; never a login."""

    def setUp(self):
        super().setUp()
        self.home = self.top / "home"
        for path, text in [(".claude/CLAUDE.md", "my rules\n"), (".claude/skills/mine/SKILL.md", "skill\n"),
                           (".claude/skills/mine/.credentials.json", "CANARY"), (".claude/.credentials.json", "CANARY"),
                           (".claude/settings.json", '{"model": "opus", "theme": "light", "env": {"T": "CANARY"}}'),
                           (".codex/auth.json", "CANARY"), (".codex/AGENTS.md", "my codex rules\n"), (".codex/prompts/p.md", "p\n"),
                           (".config/opencode/command/c.md", "c\n"), (".config/gh/hosts.yml", "CANARY"),
                           (".gitconfig", '[user]\n name = Ann Ex\n email = a@b.c\n[alias]\n st = status\n')]:
            at = self.home / path
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_text(text)
        self.env = {"HOME": self.home, "CLAUDE_CONFIG_DIR": "", "CODEX_HOME": "", "XDG_CONFIG_HOME": ""}

    def test_carried_read_only_and_left_out_on_demand(self):
        self.seed("claude/skills/project/SKILL.md", "of the project\n")
        out = self.sh("cat ~/.claude/CLAUDE.md ~/.claude/skills/*/SKILL.md $CODEX_HOME/prompts/p.md ~/.config/opencode/command/c.md; "
                      "head -n 2 $CODEX_HOME/AGENTS.md | tail -n 1; grep -c 'virtual machine' $CODEX_HOME/AGENTS.md;"
                      "for f in CLAUDE.md skills/mine/SKILL.md skills/mine/new; do (echo x > ~/.claude/$f) 2>/dev/null && echo WRITTEN; done;"
                      "mount -o remount,rw /run/agent-vm/host; echo x > ~/.claude/CLAUDE.md && echo WRITTEN;"
                      "grep -rl CANARY /run /root/ /agent-vm-state /etc 2>/dev/null; env | grep CANARY;"
                      "git config user.name; git config alias.st", env=self.env)
        self.assertEqual(out, "my rules\nskill\nof the project\np\nc\nmy codex rules\n1\nAnn Ex\nstatus\n")
        self.assertEqual((self.home / ".claude/CLAUDE.md").read_text(), "my rules\n")
        settings = self.json("claude/settings.json")
        self.assertEqual((settings["model"], settings["theme"], settings["effortLevel"]), ("opus", "light", "xhigh"))
        self.assertNotIn("env", settings)
        p = self.vm("shell", "--no-host-settings", "--", "-c", "ls -A ~/.claude ~/.claude/skills /run/agent-vm; head -n 2 $CODEX_HOME/AGENTS.md",
                    env=self.env, check=0)
        self.assertNotIn(b"CLAUDE.md", p.stdout)
        self.assertNotIn(b"mine", p.stdout)
        self.assertIn(b"project", p.stdout)
        self.assertNotIn(b"my codex rules", p.stdout)


class Clipboard(Agents):
    def clip(self, *words, **kw):
        return self.vm("clipboard", *words, timeout=30 * SLOW, **kw)

    def test_without_a_session(self):
        self.assertEqual(self.clip("get", check=0).stdout, b"")
        self.clip("put", "-- x", check=2)
        self.clip("put", "--", "-- x", check=0)
        at = self.state / "clipboard.txt"
        self.assertEqual((self.clip("get", check=0).stdout, at.stat().st_mode & 0o777), (b"-- x", 0o600))
        self.clip("put", input=b"a\0b\xff\n", check=0)
        self.assertEqual(self.clip("get", check=0).stdout, b"a\0b\xff\n")
        for words in ([], ["got"], ["get", "x"], ["put", "a", "b"]):
            self.clip(*words, check=2)
        p = self.clip("put", input=b"x" * ((16 << 20) + 1), check=1)
        self.assertIn(b"longer than 16 MiB", p.stderr)
        self.assertEqual(self.clip("get", check=0).stdout, b"a\0b\xff\n")

    def test_what_the_guest_puts_in_its_place(self):
        secret = self.top / "secret"
        secret.write_text("CANARY")
        at = self.seed("clipboard.txt", "")
        self.state.chmod(0o700)
        for make, why in [(lambda: at.symlink_to(secret), b"is a link"), (lambda: os.mkfifo(at), b"no regular file"), (at.mkdir, b"no regular file"),
                          (lambda: at.write_bytes(b"") or os.truncate(at, 1 << 30), b"1073741824 bytes, more than 16 MiB")]:
            os.rmdir(at) if at.is_dir() and not at.is_symlink() else at.unlink()
            make()
            p = self.clip("get", check=1)
            self.assertIn(why, p.stderr)
            self.assertEqual(p.stdout, b"")
        at.unlink()
        at.symlink_to(secret)
        (self.state / ".clipboard.txt.new").mkdir()
        self.clip("put", "new", check=0)
        self.assertEqual((secret.read_text(), at.read_text(), at.is_symlink()), ("CANARY", "new", False))

    def test_the_desktop(self):
        tools = self.top / "tools"
        tools.mkdir()
        for name, body in [("wl-copy", "exit 1"), ("xclip", f"case $1 in -o) printf from-desktop;; *) cat > {tools}/got;; esac"),
                           ("xsel", "sleep 60")]:
            (tools / name).write_text(f"#!/bin/sh\n{body}\n")
            (tools / name).chmod(0o755)
        env = {"PATH": f"{self.project}/bin:{tools}:/usr/bin:/bin", "WAYLAND_DISPLAY": "w", "DISPLAY": ":9"}
        (self.project / "bin/wl-copy").write_text(f"#!/bin/sh\ntouch {self.top}/HOLE\n")
        (self.project / "bin/wl-copy").chmod(0o755)
        self.clip("put", "text", check=0)
        self.assertEqual(self.clip("get", "-s", env=env, check=0).stdout, b"text")
        self.assertEqual((tools / "got").read_text(), "text")
        self.assertFalse((self.top / "HOLE").exists())
        self.clip("put", "--sys", env=env, check=0)
        self.assertEqual(self.clip("get").stdout, b"from-desktop")
        bare = {"PATH": "/usr/bin:/bin", "WAYLAND_DISPLAY": "", "DISPLAY": ""}
        p = self.clip("get", "-s", env=bare, check=0)
        self.assertIn(b"warning: clipboard: no program", p.stderr)
        self.assertEqual(self.clip("put", "-s", env=bare, check=1).stdout, b"")

    def test_with_the_guest_and_on_a_terminal(self):
        self.clip("put", "to the guest", check=0)
        self.assertEqual(self.sh(r"cat /agent-vm-state/clipboard.txt; printf '\033]52;c;AAAA\a\tx\n' > /agent-vm-state/clipboard.txt"),
                         "to the guest")
        self.assertEqual(self.clip("get", check=0).stdout, b"\x1b]52;c;AAAA\x07\tx\n")
        t = Terminal("clipboard", "get", cwd=self.project)
        self.addCleanup(t.close)
        self.assertEqual(t.wait(), 0)
        self.assertEqual(t.out, b"\\x1b]52;c;AAAA\\x07\tx\r\n")
        self.clip("put", "hi", check=0)
        t = Terminal("clipboard", "get", "--osc52", cwd=self.project)
        self.addCleanup(t.close)
        self.assertEqual(t.wait(), 0)
        self.assertEqual(t.out, b"\x1b]52;c;aGk=\x07")


class Two(Agents):
    def test_two_sessions_at_once(self):
        self.hook("export PATH=$PWD/bin:$PATH; [ ! -e slow ] || { touch in-hook; while [ -e slow ]; do sleep 0.1; done; }")
        (self.project / "slow").touch()
        first = subprocess.Popen(command(["claude"]), cwd=self.project, env=environment(), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(first.kill)
        wait_for((self.project / "in-hook").exists, BOOT_S, "the first session's hook")
        (self.project / "slow").rename(self.project / "slower")
        self.hook("export PATH=$PWD/bin:$PATH")
        claude = self.state / "claude.json"
        claude.write_text(json.dumps({**json.loads(claude.read_text()), "of the first": 1}))
        p = self.vm("claude", check=0)
        self.assertIn(b"another session runs in this project", p.stderr)
        self.assertEqual(p.stdout, b"claude: [--dangerously-skip-permissions]\n")
        self.assertEqual(self.json("claude.json")["of the first"], 1)
        out, err = first.communicate(timeout=60 * SLOW)
        self.assertEqual((first.returncode, out), (0, b"claude: [--dangerously-skip-permissions]\n"), err)

    def test_the_lock_of_the_files_is_waited_for(self):
        locks = pathlib.Path(STATE) / "run/locks"
        locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(locks / self.state.name, "w") as lock:
            lock.write("somebody, pid 1")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            p = subprocess.Popen(command(["claude"]), cwd=self.project, env=environment(), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.addCleanup(p.kill)
            said = []
            reader = threading.Thread(target=lambda: said.extend(iter(p.stderr.readline, b"")))
            reader.start()
            wait_for(lambda: any(b"held by somebody, pid 1" in line for line in said), BOOT_S, "the holder's name")
            self.assertIsNone(p.poll())
            self.assertFalse((self.state / "claude.json").exists())
        self.assertEqual(p.stdout.read(), b"claude: [--dangerously-skip-permissions]\n")
        self.assertEqual(p.wait(60 * SLOW), 0)
        reader.join()
        self.assertTrue(self.json("claude.json")["hasCompletedOnboarding"])
        p.stdout.close()
        p.stderr.close()


class Hook(Agents):
    def check_stop(self, hook, status, *parts):
        self.hook(hook)
        p = self.vm("shell", "--quiet", "echo", "ran", check=status)
        self.assertEqual(p.stdout, b"")
        said = [line for line in p.stderr.decode().splitlines() if line.startswith("agent-vm: ")]
        self.assertEqual(len(said), 2, p.stderr)
        for part in (".agent-vm.runtime.sh: stopped", f"with status {status}", "the agent was not started", *parts):
            self.assertIn(part, said[-2])
        self.assertIn("--no-hook", said[-1])

    def test_what_carries_over(self):
        (self.project / "sub").mkdir()
        self.hook("export A='1 2'; umask 027; ulimit -n 777; set -eux; trap 'echo T' EXIT INT; echo noise; read x || true; cd sub; set -- y")
        p = self.vm("shell", "--", "-c", 'echo "$A" $(umask) $(ulimit -n) $- ${PWD##*/} "$@"; trap; cat', "sh", "z",
                    input=b"in\n", check=0)
        self.assertEqual(p.stdout, b"1 2 0027 777 hBc sub z\nin\n")
        self.assertIn(b"noise\n", p.stderr)
        self.assertIn(b"==> running .agent-vm.runtime.sh\n", p.stderr)
        self.hook("exit 9")
        self.assertEqual(self.vm("shell", "--no-hook", "echo", "ran", check=0).stdout, b"ran\n")

    def test_every_stop_has_its_line(self):
        self.check_stop("true\n[ -f nothing ]", 1, "at line 2", "last command: [ -f nothing ]")
        self.check_stop("set -e\ntrue\nls nothing 2>/dev/null\ntrue", 2, "at line 3")
        self.check_stop("exit 3", 3, "at line 1")
        self.check_stop("if then", 2)
        self.check_stop("trap 'echo gone' EXIT\nset -e\nsource ./nothing", 1, "at line 3", "last command: source ./nothing")
        self.check_stop("true\nkill -TERM $$\nsleep 1", 143, "at line 2", "last command: kill -TERM $$")

    def test_a_hook_that_is_no_file_in_the_guest_is_one_line(self):
        hook = self.project / ".agent-vm.runtime.sh"
        for make, part in ((lambda: hook.symlink_to("/nowhere/hook.sh"), "a link that leads to no file in the guest"),
                           (lambda: os.mkfifo(hook), "is no regular file")):
            hook.unlink()
            make()
            p = self.vm("shell", "--quiet", "echo", "ran", check=1)
            said = [line for line in p.stderr.decode().splitlines() if line.startswith("agent-vm: ")]
            self.assertEqual((p.stdout, len(said)), (b"", 1), said)
            self.assertIn(part, said[0])
            self.assertIn("--no-hook; the agent was not started", said[0])
        self.assertEqual(self.vm("shell", "--no-hook", "echo", "ran", check=0).stdout, b"ran\n")

    def test_exec_gets_what_the_hook_has_set(self):
        self.hook("export A='x y' PATH=$PWD/bin:$PATH")
        with self.session():
            self.assertEqual(self.exec('echo "$A"; command -v claude; pwd'), f"x y\n{self.project}/bin/claude\n{self.project}\n")

    def test_a_login_shell_keeps_path(self):
        """With Debian's profile, which sets PATH anew and then reads the folder, or one that does the same."""
        ask = r"""test -e /etc/profile || printf 'PATH=/usr/bin:/bin\nexport PATH\nfor i in /etc/profile.d/*.sh; do . "$i"; done\n' >/etc/profile
            bash -lc 'echo "$PATH"'; echo "$PATH" """
        for hook, first in (True, f"{self.project}/bin"), (False, "/root/.local/bin"):
            with self.subTest(hook=hook):
                login, path = self.sh(ask, *[] if hook else ["--no-hook"]).splitlines()
                self.assertEqual(login, path)
                self.assertEqual(path.split(":")[0], first)
                self.assertIn("/root/.local/bin", path.split(":"))

    def test_ctrl_c_ends_hook_and_launch(self):
        self.hook("echo waiting; sleep 600")
        t = Terminal("claude", cwd=self.project)
        self.addCleanup(t.close)
        t.read_until(rb"waiting", BOOT_S)
        time.sleep(1)
        t.type(b"\x03")
        self.assertEqual(t.wait(), 130)
        self.assertTrue(t.sane())
        self.assertIn(b"the agent was not started", t.out)
