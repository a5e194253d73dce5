"""How a session ends: closed descriptors, signals at boot and later, a flooded console, more exec clients than there is room for."""
import json
import os
import pathlib
import signal
import subprocess
import time
import unittest

from vmtest import AGENT_VM, BOOT_S, SLOW, STATE, Case, Terminal, children, command, environment, stopped, wait_for


class Closed(Case):
    def by_sh(self, line):
        return subprocess.run(["sh", "-c", line, AGENT_VM], cwd=self.project, env=environment(), timeout=BOOT_S,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_closed_descriptors_change_no_status_and_get_no_bytes(self):
        with self.session():
            self.assertEqual(self.by_sh('"$0" exec true 2>&-').returncode, 0)
            self.assertEqual(self.by_sh('"$0" exec true >&-').returncode, 0)
            self.assertEqual(self.by_sh('"$0" exec -- sh -c "exit 5" <&- >&- 2>&-').returncode, 5)
            # As in a pipeline whose reader went away.
            p = self.by_sh('"$0" exec -- -c "yes; echo yes-ended \\$? >&2" >&-')
            self.assertIn(b"yes-ended 141", p.stderr)
            p = self.by_sh('"$0" exec -- -c "readlink /proc/self/fd/0; cat; echo end" <&-')
            self.assertEqual((p.returncode, p.stdout), (0, b"/dev/null\nend\n"))

    def test_a_launch_without_stdout_or_stderr(self):
        p = self.by_sh('"$0" shell true 2>&-')
        self.assertEqual((p.returncode, p.stdout), (0, b""))
        p = self.by_sh('"$0" shell -- -c "echo FROM-GUEST; echo ERR-GUEST >&2; true" >&- 2>&-')
        self.assertEqual(p.returncode, 0)
        # Had another file taken descriptor 1 or 2, the words would be in it.
        logs = sorted((pathlib.Path(STATE) / "run/logs").iterdir(), key=lambda f: f.stat().st_mtime)[-1]
        for f in logs.iterdir():
            self.assertNotIn(b"-GUEST", f.read_bytes(), f)


class Many(Case):
    def test_the_33rd_exec_is_told_why(self):
        with self.session():
            many = [subprocess.Popen([AGENT_VM, "exec", "--", "-c", "echo in; exec sleep 300"], cwd=self.project,
                                     env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE) for _ in range(32)]
            try:
                for p in many:
                    self.assertEqual(p.stdout.readline(), b"in\n")
                p = self.vm("exec", "true", check=1)
                self.assertEqual(p.stderr.decode(), "agent-vm: exec: this session runs 32 programs beside the first one "
                                                    "already; wait until one has ended\n")
                many[0].terminate()
                many[0].wait(30)
                wait_for(lambda: self.vm("exec", "true").returncode == 0, 20, "no room though one has ended")
            finally:
                for p in many:
                    p.kill()
                    p.wait()
                    p.stdout.close()
                    p.stderr.close()


class Signals(Case):
    def test_at_boot_each_ends_at_once(self):
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            took = []
            # Not after what a guest that is up has to end; that is so once of three times on a machine that is busy, too.
            while len(took) < 3 and min(took, default=5 * SLOW) >= 5 * SLOW:
                took.append(self.at_boot(sig))
            self.assertLess(min(took), 5 * SLOW, (sig, took))

    def at_boot(self, sig):
        """How long it takes to end; for ever if it was up by then."""
        up = self.project / "up"
        up.unlink(missing_ok=True)
        p = subprocess.Popen(command(["shell", "--", "-c", "echo >up; exec sleep 600"]), cwd=self.project, env=environment(),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: len(children(p.pid)) >= 3, 60, "no monitor")
        kids = children(p.pid)
        start = time.monotonic()
        p.send_signal(sig)
        try:
            out, err = p.communicate(timeout=60 * SLOW)
        except subprocess.TimeoutExpired:
            if not up.exists():
                raise
            p.terminate()  # bash ignores SIGQUIT, and has not become sleep yet
            p.communicate()
        took = time.monotonic() - start
        if up.exists():
            return float("inf")
        self.assertEqual(p.returncode, -sig)
        self.assertNotIn(b"did not shut down", err)
        self.assertNotIn(b"broke the control protocol", err)
        self.nothing_left(kids)
        return took

    def test_nohup(self):
        """A terminal that goes is none of a session's that was started by nohup(1)."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGHUP, signal.SIG_DFL)
        with self.session(script="echo up; until [ -e go ]; do sleep 0.1; done; exit 3") as s:
            s.send_signal(signal.SIGHUP)
            self.assertEqual(self.exec("echo lives"), "lives\n")
            (self.project / "go").touch()
            self.assertEqual(s.wait(60 * SLOW), 3)

    def test_hup_and_quit_while_the_program_runs(self):
        with self.session(script="trap 'echo hup >hup; exit 3' HUP; echo up; while :; do sleep 0.2; done") as s:
            s.send_signal(signal.SIGHUP)
            self.assertEqual(s.wait(40 * SLOW), -signal.SIGHUP)
            self.assertEqual((self.project / "hup").read_text(), "hup\n")
        # SIGQUIT is the program's own business, as on a keyboard.
        with self.session(script="trap 'echo quit >quit; exit 3' QUIT; echo up; while :; do sleep 0.2; done") as s:
            s.send_signal(signal.SIGQUIT)
            self.assertEqual(s.wait(40 * SLOW), 3)
            self.assertEqual((self.project / "quit").read_text(), "quit\n")

    def test_tstp_stops_the_launcher_alone(self):
        with self.session(script="i=0; echo 0 >count; echo up; while :; do i=$((i+1)); echo $i >count; sleep 0.2; done") as s:
            s.send_signal(signal.SIGTSTP)
            wait_for(lambda: stopped(s.pid), 60, "it goes on")
            was = (self.project / "count").read_text()
            wait_for(lambda: (self.project / "count").read_text() not in ("", was), 60, "the guest stopped as well")
            s.send_signal(signal.SIGCONT)
            self.assertEqual(self.exec("echo works"), "works\n")

    def test_tstp_at_boot(self):
        # In a group of its own: one that nobody's shell watches (the lab's) is never stopped by this signal.
        p = subprocess.Popen(command(["shell", "--quiet", "--", "-c", "until [ -e go ]; do sleep 0.1; done; echo fine"]),
                             cwd=self.project, env=environment(), process_group=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        wait_for(lambda: len(children(p.pid)) >= 2, 60, "no monitor")
        p.send_signal(signal.SIGTSTP)
        wait_for(lambda: stopped(p.pid), 60, "it goes on")
        (self.project / "go").touch()
        p.send_signal(signal.SIGCONT)
        self.assertEqual(p.communicate(timeout=BOOT_S), (b"fine\n", b""))
        self.assertEqual(p.returncode, 0)


class Together(Case):
    def test_two_sessions_in_one_project(self):
        with self.session() as first:
            p = subprocess.Popen(command(["shell", "--", "-c", "echo up; echo two >two; exec sleep 600"]), cwd=self.project,
                                 env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                self.assertEqual(p.stdout.readline(), b"up\n")
                here = [s["pid"] for s in json.loads(self.vm("ps", "--json", check=0).stdout)
                        if s["project"] == str(self.project)]
                self.assertEqual(sorted(here), sorted([first.pid, p.pid]))
                # exec does not guess, and names both.
                got = self.vm("exec", "true", check=1).stderr.decode()
                self.assertIn(f"-{first.pid}", got)
                self.assertIn(f"-{p.pid}", got)
                name = next(s["name"] for s in json.loads(self.vm("ps", "--json").stdout) if s["pid"] == p.pid)
                self.assertEqual(self.vm("exec", "--session", name, "cat", "two", check=0).stdout, b"two\n")
                p.terminate()
                err = p.communicate(timeout=60 * SLOW)[1].decode()
                self.assertRegex(err, rf"==> another session runs in this project: shell, pid {first.pid}, .*; history and settings are shared")
            finally:
                p.kill()
                p.wait()
            # The first goes on undisturbed.
            self.assertEqual(self.exec("cat two"), "two\n")

    def test_two_reapers_at_once(self):
        with self.session() as s:
            kids = children(s.pid)
            s.kill()
            s.wait()
        many = [subprocess.Popen([AGENT_VM, "ps", "--json"], cwd="/", env=environment(), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
        for p in many:
            out, err = p.communicate(timeout=60 * SLOW)
            self.assertEqual((p.returncode, json.loads(out), err), (0, [], b""))
        self.nothing_left(kids)
        self.assertEqual([d for d in (pathlib.Path(STATE) / "run/sessions").iterdir() if not d.name.startswith(".")], [])
        logs = pathlib.Path(STATE) / "run/logs"
        last = sorted(logs.iterdir(), key=lambda f: f.stat().st_mtime)[-1]
        self.assertEqual(json.loads((last / "session.json").read_text())["result"], "lost")


class Hints(Case):
    def test_a_hint_changes_neither_words_nor_status(self):
        p = self.vm("shell", "--memroy", "8", check=2)  # bash's own mistake
        self.assertIn("agent-vm: note: '--memroy' is not an option of agent-vm and was passed to bash; did you mean --memory?",
                      p.stderr.decode())
        p = self.vm("shell", "printf", "[%s]", "a", "--memory", "9", check=0)
        self.assertEqual(p.stdout, b"[a][--memory][9]")
        self.assertIn("'--memory' comes after 'printf' and was passed to the command; options of agent-vm go first",
                      p.stderr.decode())

    def test_quiet_leaves_hints_out_and_keeps_warnings(self):
        p = self.vm("shell", "--quiet", "printf", "[%s]", "--memory", check=0)
        self.assertEqual((p.stdout, p.stderr), (b"[--memory]", b""))
        exposed = self.top / "home" / ".ssh"
        exposed.mkdir(parents=True)
        p = self.vm("shell", "--quiet", "--mount", f"{exposed}:/ssh", "true", env={"HOME": self.top / "home"}, check=0)
        lines = p.stderr.decode().splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith("agent-vm: warning: ") and ".ssh" in lines[0], lines)

    def test_a_word_with_operators_gets_a_note(self):
        p = self.vm("shell", "echo a && echo b", check=127)
        self.assertIn("to run a shell line use -c, as in: -c 'a && b'", p.stderr.decode())


class Flood(Case):
    def last_logs(self):
        return sorted((pathlib.Path(STATE) / "run/logs").iterdir(), key=lambda f: f.stat().st_mtime)[-1]

    def test_a_flooded_console_stays_small_and_is_shown(self):
        # 2 MiB in lines through the guest's console; the program's own output must not suffer.
        out = self.sh("yes 0123456789abcdef0123456789abcdef | head -c 2097152 >/dev/hvc0; echo LAST >/dev/hvc0; echo done")
        self.assertEqual(out, "done\n")
        log = self.last_logs() / "console.log"
        self.assertLess(log.stat().st_size, 600 << 10)
        self.assertGreater(log.stat().st_size, 200 << 10)
        self.assertIn(b"bytes are left out here]", log.read_bytes())
        p = self.vm("logs", "--role", "console", check=0)
        self.assertIn(b"left out here", p.stdout)
        p = self.vm("logs", "--role", "console", "--json", check=0)
        lines = json.loads(p.stdout)
        self.assertEqual({line["role"] for line in lines}, {"console"})
        self.assertGreater(len(lines), 1000)

    def test_a_stopped_launcher_holds_no_monitor(self):
        with self.session(script="echo up; yes 0123456789abcdef0123456789abcdef | head -c 1048576 >/dev/hvc0;"
                                 "echo over >over; exec sleep 600") as s:
            s.send_signal(signal.SIGSTOP)
            try:
                wait_for(lambda: (self.project / "over").exists(), 60, "the guest waits for its console")
            finally:
                s.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    unittest.main()
