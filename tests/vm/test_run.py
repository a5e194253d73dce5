"""Commands in the guest: exit status, words, stdin, output, terminals, exec."""
import array
import hashlib
import os
import signal
import subprocess
import time
import unittest

from vmtest import AGENT_VM, BULK, Case, Terminal, environment, wait_for


class Run(Case):
    def test_exit_status_and_clean_stdout(self):
        p = self.vm("shell", "true", check=0)
        self.assertEqual(p.stdout, b"")
        err = p.stderr.decode()
        for row in ("project", "login     none", "network   public internet only", "github    none"):
            self.assertIn(row, err)

    def test_quiet_prints_nothing(self):
        p = self.vm("shell", "--quiet", "--", "sh", "-c", "exit 7", check=7)
        self.assertEqual((p.stdout, p.stderr), (b"", b""))

    def test_statuses_of_one_boot(self):
        with self.session():
            self.vm("exec", "true", check=0)
            self.vm("exec", "--", "sh", "-c", "exit 7", check=7)
            self.vm("exec", "--", "sh", "-c", "kill -TERM $$", check=143)
            self.vm("exec", "--", "sh", "-c", "kill -9 $$", check=137)
            self.vm("exec", "nosuchprogram", check=127)
            self.vm("exec", "/etc", check=126)
            p = self.vm("exec", "--", "-c", "echo a && echo b", check=0)
            self.assertEqual(p.stdout, b"a\nb\n")
            p = self.vm("exec", "--", "printf", "[%s]", "a b", "$HOME", "it's", "\N{CYRILLIC SMALL LETTER ZHE}", "", check=0)
            self.assertEqual(p.stdout.decode(), "[a b][$HOME][it's][\N{CYRILLIC SMALL LETTER ZHE}][]")
            self.assertIn(b"builtin", self.vm("exec", "type", "cd", check=0).stdout)
            self.assertEqual(self.exec("echo out; echo err >&2"), "out\n")
            self.assertEqual(self.exec("id -u; pwd; echo $HOME; echo $IS_SANDBOX"),
                             f"0\n{self.project}\n/root\n1\n")

    def test_signal_death_of_the_main_program(self):
        self.vm("shell", "--", "sh", "-c", "kill -TERM $$", check=143)

    def test_stdin_of_100_mb_comes_back_byte_for_byte(self):
        # Every block another, so that one that is lost, doubled or in another's place is seen.
        data = array.array("Q", range(int((100 << 20) * BULK) // 8)).tobytes()
        p = self.vm("shell", "--", "cat", input=data, check=0, timeout=400)
        self.assertEqual(len(p.stdout), len(data))
        self.assertEqual(hashlib.sha256(p.stdout).digest(), hashlib.sha256(data).digest())

    def test_a_zone_of_the_host_counts_where_the_image_knows_it(self):
        zone = "date -d @0 +%H:%M%Z; echo ${TZ-none}"
        self.assertEqual(self.sh(zone, env={"TZ": "Nowhere/City"}), "00:00UTC\nnone\n")
        with self.session(env={"TZ": "XYZ-3:30"}):
            self.assertEqual(self.exec(zone), "03:30XYZ\nXYZ-3:30\n")

    def test_bash_reads_commands_from_stdin(self):
        p = self.vm("shell", input=b"echo from-stdin; exit 3\n", check=3)
        self.assertEqual(p.stdout, b"from-stdin\n")

    def test_slow_reader_of_much_output_bounds_memory(self):
        size = int((1 << 30) * BULK)
        p = subprocess.Popen([AGENT_VM, "shell", "--quiet", "--", "-c", f"head -c {size} /dev/zero"], cwd=self.project,
                             env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        got = 0
        time.sleep(1)
        peak = 0
        while True:
            chunk = p.stdout.read(1 << 20)
            if not chunk:
                break
            got += len(chunk)
            if got % (64 << 20) == 0:
                time.sleep(0.2)
                with open(f"/proc/{p.pid}/status") as f:
                    rss = [int(line.split()[1]) for line in f if line.startswith("VmRSS")]
                peak = max([peak, *rss])
        self.assertEqual(p.wait(60), 0)
        p.stdout.close()
        self.assertEqual(got, size)
        self.assertLess(peak, 32 << 10, "the launcher holds output without bound")

    def test_a_closed_stdout_is_a_broken_pipe_inside(self):
        p = subprocess.Popen([AGENT_VM, "shell", "--quiet", "--", "-c", "yes; echo yes-ended $? >&2"], cwd=self.project,
                             env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        p.stdout.read(4096)
        p.stdout.close()
        self.assertIn(b"yes-ended 141", p.stderr.read())
        p.wait(60)
        p.stderr.close()

    def test_children_that_hold_stdout_are_not_waited_for(self):
        p = self.vm("shell", "--", "-c", "sleep 100000 & echo main", check=0)
        self.assertEqual(p.stdout, b"main\n")

    def test_environment(self):
        p = self.vm("shell", "--env", "A=1", "--env", "B_TOKEN=x y", "--env", "FROM_HOST", "--", "-c", "env; tty; true", check=0,
                    env={"FROM_HOST": "h", "LEAK": "leak", "LD_PRELOAD": "", "COLORTERM": "truecolor", "NO_COLOR": "1"})
        out = p.stdout.decode()
        self.assertIn("    env       A, B_TOKEN (in clear), FROM_HOST\n", p.stderr.decode())
        self.assertNotIn("x y", p.stderr.decode())
        self.assertLessEqual(p.stderr.count(b"==> starting: kernel\n"), 1)
        self.assertIn("COLORTERM=truecolor\n", out)
        self.assertIn("NO_COLOR=1\n", out)
        self.assertIn("A=1\n", out)
        self.assertIn("B_TOKEN=x y\n", out)
        self.assertIn("FROM_HOST=h\n", out)
        self.assertNotIn("leak", out)
        self.assertNotIn("\nTERM=", "\n" + out)
        self.assertIn("not a tty", out)


class Tty(Case):
    def terminal(self, *words, **kw):
        t = Terminal(*words, cwd=self.project, **kw)
        self.addCleanup(t.close)
        return t

    def test_pty_size_resize_control_bytes_and_ctrl_c(self):
        t = self.terminal("shell", rows=31, cols=97)
        t.read_until(rb"\$ |# ", 120)
        t.type(b"stty size; echo TERM=$TERM\r")
        t.read_until(rb"31 97\r\n")
        t.read_until(rb"TERM=xterm-256color")
        t.size(40, 120)
        t.p.send_signal(signal.SIGWINCH)
        t.type(b"until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; stty size\r")
        t.read_until(rb"40 120\r\n")
        # Ctrl-C reaches the foreground job, the shell and the session go on.
        t.type(b"(echo r''uns; exec sleep 300)\r")
        t.read_until(rb"runs\r\n")
        t.type(b"\x03")
        t.type(b"echo after-$?\r")
        t.read_until(rb"after-130")
        # 0x1d arrives like any other byte: there is no detach key.
        t.type(b"echo n''ow; cat -v\r")
        t.read_until(rb"now\r\n")  # the terminal is no more the shell's, which has a meaning for that byte
        t.type(b"\x1d\r")
        t.read_until(rb"\^\]\r\n\^\]")
        t.type(b"\x04")
        t.type(b"exit 5\r")
        self.assertEqual(t.wait(), 5)
        self.assertTrue(t.sane())

    def test_stdout_a_file_means_no_pty(self):
        with open(self.top / "out", "wb") as f:
            t = Terminal("shell", "--", "-c", "[ -t 0 ] || echo no0; [ -t 1 ] || echo no1; echo e >&2", cwd=self.project)
            self.addCleanup(t.close)
            t.wait(120)
        # The terminal case above gives a PTY; here stdout of the launcher is a file.
        p = subprocess.Popen([AGENT_VM, "shell", "--quiet", "--", "-c", "[ -t 0 ] || echo no0; [ -t 1 ] || echo no1"],
                             cwd=self.project, env=environment(), stdin=t.slave, stdout=open(self.top / "out2", "wb"),
                             stderr=subprocess.DEVNULL)
        self.assertEqual(p.wait(120), 0)
        self.assertEqual((self.top / "out2").read_bytes(), b"no0\nno1\n")

    def test_signals_while_the_agent_runs_leave_a_sane_terminal(self):
        for sig, code in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)):
            with self.subTest(sig=sig):
                t = self.terminal("shell")
                t.read_until(rb"\$ |# ", 120)
                t.p.send_signal(sig)
                self.assertEqual(t.wait(60), code)
                self.assertTrue(t.sane())

    def test_signal_while_booting(self):
        for sig in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(sig=sig):
                t = self.terminal("shell", "sleep", "600")  # a fast boot may be over
                t.read_until(rb"==> agent-vm-", 30)
                time.sleep(0.7)
                t.p.send_signal(sig)
                self.assertEqual(t.wait(60), -sig)
                self.assertTrue(t.sane())

    def test_exec_with_a_terminal(self):
        with self.session():
            t = self.terminal("exec", rows=20, cols=70)
            t.read_until(rb"\$ |# ")
            t.type(b"stty size; exit 4\r")
            t.read_until(rb"20 70")
            self.assertEqual(t.wait(), 4)
            self.assertTrue(t.sane())


class Exec(Case):
    def test_many_at_once_and_two_sessions(self):
        other = self.top / "other"
        other.mkdir()
        with self.session(), self.session(cwd=other):
            many = [subprocess.Popen([AGENT_VM, "exec", "--", "-c", f"head -c 3000000 /dev/zero; exit {i}"],
                                     cwd=self.project, env=environment(), stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE) for i in range(8)]
            for i, p in enumerate(many):
                self.assertEqual(len(p.stdout.read()), 3000000)
                self.assertEqual(p.wait(60), i)
                p.stdout.close()
            self.assertEqual(self.exec("pwd", cwd=other), f"{other}\n")
            listing = self.vm("ps", check=0).stdout.decode()
            self.assertIn(str(self.project), listing)
            self.assertIn(str(other), listing)

    def test_a_client_that_goes_away_takes_its_program_along(self):
        with self.session():
            p = subprocess.Popen([AGENT_VM, "exec", "--", "-c", "echo $$ > pid; exec sleep 500"], cwd=self.project,
                                 env=environment(), stdin=subprocess.DEVNULL)
            wait_for(lambda: (self.project / "pid").exists() and (self.project / "pid").read_text().strip(), 30, "pid")
            pid = (self.project / "pid").read_text().strip()
            p.kill()
            p.wait()
            wait_for(lambda: self.vm("exec", "--", "-c", f"kill -0 {pid}").returncode != 0, 20, "it still runs")

    def test_exec_ends_with_the_session(self):
        with self.session() as s:
            line = self.vm("exec", "echo a && echo b")
            self.assertEqual(line.returncode, 127)
            self.assertIn(b"agent-vm: note: to run a shell line use -c, as in: -c 'a && b'", line.stderr)
            p = subprocess.Popen([AGENT_VM, "exec", "sleep", "500"], cwd=self.project, env=environment(),
                                 stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            time.sleep(1.5)
            s.terminate()
            # The guest's shutdown ends the program with SIGTERM, or the session is gone first.
            code, err = p.wait(60), p.stderr.read()
            self.assertTrue(code == 143 or (code == 1 and b"session" in err), (code, err))
            p.stderr.close()
            s.wait(60)

    def test_no_session(self):
        p = self.vm("exec", "true", check=1)
        self.assertIn(b"agent-vm:", p.stderr)


if __name__ == "__main__":
    unittest.main()
