"""What the VM tests share: a state root with an image, project folders, and ways to run agent-vm.

Run through tests/vm/run, which makes the image and, as root, starts the suite as an ordinary user.
"""
import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest

AGENT_VM = os.environ["AGENT_VM"]
# Whatever we were started with: what is ignored then is lost, and agent-vm started by nohup(1) outlives a hang-up.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
STATE = os.environ["AGENT_VM_STATE_DIR"]
SLOW = float(os.environ.get("AGENT_VM_TEST_SLOW", "1"))  # multiplies every time limit
BULK = float(os.environ.get("AGENT_VM_TEST_BULK", "1"))  # multiplies the amounts of data
BOOT_S = 300 * SLOW
MONITOR = os.environ.get("AGENT_VM_TEST_MONITOR")  # krun or qemu; else what the launcher chooses


def command(words):
    """agent-vm with these words, and with the monitor that the suite is for."""
    words = [str(w) for w in words]
    if MONITOR and words[:1] == ["shell"] and "--vmm" not in words:
        words[1:1] = ["--vmm", MONITOR]
    return [AGENT_VM, *words]


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AGENT_VM_") or k == "AGENT_VM_STATE_DIR"}
    env["TERM"] = "xterm-256color"
    env.update({k: str(v) for k, v in more.items()})
    return env


def alive(pid):
    """A process that is there and no zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children(pid):
    """All descendants of a process, nearest first."""
    found, look = [], [pid]
    while look:
        p = look.pop(0)
        for task in pathlib.Path(f"/proc/{p}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                kids = [int(k) for k in task.read_text().split()]
                found += kids
                look += kids
    return found


def stopped(pid):
    """A stop is not there at once when kill(2) has returned."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def comm(pid):
    """The name of a process's program; "" when it is gone."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def program(name):
    """One of tests/proc that runs in a VM: beside the tests, in the lab in the build."""
    places = pathlib.Path(__file__).resolve().parent, pathlib.Path(AGENT_VM).parent / "tests/proc"
    return next(p / name for p in places if (p / name).exists())


def wait_for(what, seconds, why):
    end = time.monotonic() + seconds * SLOW
    while True:
        got = what()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s: {why}")
        time.sleep(0.05)


class Case(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        # Not under /tmp, which the guest uses itself: there a project would be shown as /workspace.
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="agent-vm-test-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        self.project = self.top / "project"
        self.project.mkdir()

    def vm(self, *words, cwd=None, stdin=subprocess.DEVNULL, timeout=BOOT_S, env=None, check=None, **kw):
        """Run agent-vm to its end."""
        p = subprocess.run(command(words), cwd=cwd or self.project, env=environment(**(env or {})),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                           **({"input": kw.pop("input")} if "input" in kw else {"stdin": stdin}), **kw)
        if check is not None:
            self.assertEqual(p.returncode, check, f"{words}\n{p.stdout[-2000:]!r}\n{p.stderr.decode(errors='replace')}")
        return p

    def sh(self, script, *options, **kw):
        """Run a shell line in the guest and return what it printed."""
        kw.setdefault("check", 0)
        return self.vm("shell", *options, "--", "-c", script, **kw).stdout.decode()

    @contextlib.contextmanager
    def session(self, *options, cwd=None, script="echo up; exec sleep 600", env=None):
        """A live session; yields its launcher. Ended by the test or at the end."""
        p = subprocess.Popen(command(["shell", *options, "--", "-c", script]), cwd=cwd or self.project,
                             env=environment(**(env or {})), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        try:
            ready, _, _ = select.select([p.stdout], [], [], BOOT_S)
            first = p.stdout.readline() if ready else b""
            if first != b"up\n":
                p.kill()
                raise AssertionError(f"no session: {first!r} {p.stderr.read().decode(errors='replace')}")
            yield p
        finally:
            if p.poll() is None:
                p.terminate()
                try:
                    p.wait(120 * SLOW)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
            p.stdout.close()
            p.stderr.close()

    def exec(self, script, **kw):
        kw.setdefault("check", 0)
        return self.vm("exec", "--", "-c", script, **kw).stdout.decode()

    def nothing_left(self, pids, seconds=60):
        wait_for(lambda: not [p for p in pids if alive(p)], seconds, f"processes are left of {pids}")


class Terminal:
    """agent-vm under a PTY of its own session, as a terminal emulator would run it."""

    def __init__(self, *words, cwd, rows=30, cols=100, env=None):
        self.master, slave = pty.openpty()
        self.size(rows, cols)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.out = b""

        def setup():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.p = subprocess.Popen(command(words), cwd=cwd, env=environment(**(env or {})), stdin=slave,
                                  stdout=slave, stderr=slave, preexec_fn=setup)

    def size(self, rows, cols):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, data):
        os.write(self.master, data)

    def read_until(self, pattern, seconds=60):
        end = time.monotonic() + seconds * SLOW
        while True:
            m = re.search(pattern, self.out)
            if m:
                self.out = self.out[m.end():]
                return m
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no {pattern!r} in {self.out[-2000:]!r}")
            ready, _, _ = select.select([self.master], [], [], left)
            if ready:
                try:
                    self.out += os.read(self.master, 65536)
                except OSError:
                    raise AssertionError(f"terminal closed, no {pattern!r} in {self.out[-2000:]!r}") from None

    def drain(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.out += os.read(self.master, 65536)
            except OSError:
                break

    def wait(self, seconds=60):
        """Read to the end; a full terminal would hold the program."""
        end = time.monotonic() + seconds * SLOW
        while self.p.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"still running; {self.out[-2000:]!r}")
            self.drain()
            time.sleep(0.02)
        self.drain()
        return self.p.returncode

    def sane(self):
        """The mode is as it was."""
        return termios.tcgetattr(self.slave)[:4] == self.before[:4]

    def close(self):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.wait(120)
            except AssertionError:
                self.p.kill()
                self.p.wait()
        os.close(self.master)
        os.close(self.slave)


def _deny(words, syscalls):
    """In a child before exec: every system call of the list {number: errno, or (errno, argument, bits)} fails."""
    import ctypes

    def ins(code, jt, jf, k):
        return struct.pack("HBBI", code, jt, jf, k)

    prog = [ins(0x20, 0, 0, 0)]  # ld [nr]
    for nr, how in syscalls.items():
        errno_, arg, bits = how if isinstance(how, tuple) else (how, None, None)
        if arg is None:
            prog += [ins(0x15, 0, 1, nr), ins(0x06, 0, 0, 0x00050000 | errno_)]
        else:  # refuse only when one of the bits is set in the low half of the argument
            prog += [ins(0x15, 0, 4, nr), ins(0x20, 0, 0, 16 + 8 * arg), ins(0x45, 0, 1, bits),
                     ins(0x06, 0, 0, 0x00050000 | errno_), ins(0x06, 0, 0, 0x7fff0000)]
    prog.append(ins(0x06, 0, 0, 0x7fff0000))
    code = b"".join(prog)
    libc = ctypes.CDLL(None, use_errno=True)
    mem = ctypes.create_string_buffer(code, len(code))
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(prog), ctypes.addressof(mem)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, fprog, 0, 0):
        os._exit(99)
    os.execv(words[0], words)


NEW_ANY = 0x7e020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
NO_NAMESPACES = {272: (1, 0, NEW_ANY), 56: (1, 0, NEW_ANY), 435: 38}  # unshare, clone; clone3 is said not to be there
NO_LANDLOCK = {444: 95}


def without(deny, words, **kw):
    """Run a program on a host that refuses these system calls; needs no privilege."""
    return subprocess.run(words, preexec_fn=lambda: _deny([str(w) for w in words], deny), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOOT_S, **kw)
