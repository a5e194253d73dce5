"""Boots the lab and runs commands in it.

    with Lab(timeout=300) as lab:
        done = lab.run(["id"], user="lab")
        print(done.status, done.out)

The lab is QEMU (TCG) with an emulated AMD processor that has SVM, so that the Debian in it has a real /dev/kvm; the
disk is a snapshot, so every boot is the same. /tree in it is a copy, made at boot, of what the project's programs need:
every file git knows plus the build folders and deps/node_modules. Results come back as output: there is no shared
folder, for a file system over 9p or FUSE would be what a benchmark measures.

Whatever happens, QEMU is gone at the end: it is bounded by timeout(1), and dies with us.
"""
import base64
import ctypes
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PORT = "lab"
CPU = os.environ.get("LAB_CPU", "EPYC,+svm")
# Where a turn through a guest is slower than the timer's period the lab does nothing but serve timers (docs/platform).
TICK = "highres=off nohz=off"
os.environ["PATH"] += ":/usr/sbin:/sbin"


class LabError(Exception):
    pass


class Done:
    """How a command ended: status as a shell has it (128+n for signals), and what it wrote."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


def make():
    """Makes disk and initrd if they are not there; returns their folder."""
    r = subprocess.run([HERE / "make"], stdout=subprocess.PIPE, text=True)
    if r.returncode != 0:
        raise LabError("tests/lab/make failed")
    return pathlib.Path(r.stdout.strip())


def ext4_of(folder, image, room_mib=64):
    """Makes an ext4 image with the content of folder."""
    used = int(subprocess.check_output(["du", "-sk", "--apparent-size", folder]).split()[0])
    files = sum(len(d) + len(f) for _, d, f in os.walk(folder))
    size = used * 1024 + files * 4096 + used * 1024 // 20 + (room_mib << 20)
    with open(image, "wb") as f:
        f.truncate(size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-N", str(files + 4096),
                    "-d", folder, image], check=True)


def tree_image(work, build_dirs):
    """Puts what the lab needs of the project into an image; hard links, so it costs only mke2fs."""
    stage = work / "tree"
    stage.mkdir()
    names = subprocess.check_output(["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others",
                                     "--exclude-standard"], cwd=ROOT).decode().split("\0")
    for d in build_dirs:
        for base, dirs, files in os.walk(ROOT / d):
            rel = pathlib.Path(base).relative_to(ROOT)
            # Object files and the lab itself are the bulk of a build folder and of no use in the lab.
            dirs[:] = [n for n in dirs if n not in ("lab", "meson-private", "meson-logs") and not n.endswith(".p")]
            names += [str(rel / f) for f in files if not f.endswith(".a")]
            (stage / rel).mkdir(parents=True, exist_ok=True)  # the boot root has empty folders
    for name in filter(None, names):
        src, dst = ROOT / name, stage / name
        if not os.path.lexists(src):
            continue
        dst.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(src, dst, follow_symlinks=False)
        except OSError:
            shutil.copy2(src, dst, follow_symlinks=False)
    ext4_of(stage, work / "tree.img")
    shutil.rmtree(stage)
    return work / "tree.img"


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Lab:
    def __init__(self, timeout=300, image=None, trees=("build", "build-asan", "deps/node_modules"), memory=4096,
                 cpus=2, verbose=False):
        self.timeout, self.image, self.trees, self.memory, self.cpus = timeout, image, trees, memory, cpus
        self.verbose = verbose
        self.qemu = self.sock = None
        self.ident = 0
        self.pending = b""

    def __enter__(self):
        try:
            self.boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def boot(self, detached=False):
        base = make()
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="agent-vm-lab.", dir="/tmp"))
        disks = [base / "disk.img", tree_image(self.work, self.trees)] + ([self.image] if self.image else [])
        args = ["qemu-system-x86_64", "-M", "q35", "-cpu", CPU, "-smp", str(self.cpus), "-m", str(self.memory),
                "-accel", "tcg,thread=multi", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-kernel", base / "vmlinuz", "-initrd", base / "initrd",
                "-append", "console=ttyS0 loglevel=4 panic=-1 mitigations=off random.trust_cpu=on " + TICK,
                "-serial", f"file:{self.work}/console", "-monitor", f"unix:{self.work}/monitor,server=on,wait=off",
                "-device", "virtio-serial-pci", "-chardev", f"socket,id=lab,path={self.work}/ctl,server=on,wait=off",
                "-device", f"virtserialport,chardev=lab,name={PORT}"]
        for n, disk in enumerate(disks):
            args += ["-drive", f"file={disk},if=none,id=d{n},format=raw,snapshot=on,cache=unsafe",
                     "-device", f"virtio-blk-pci,drive=d{n}"]
        env = dict(os.environ, TMPDIR=str(self.work))
        start = time.monotonic()
        self.deadline = start + self.timeout
        with open(self.work / "qemu.log", "wb") as log:
            self.qemu = subprocess.Popen(["timeout", "-k", "5", str(self.timeout), "setpriv", "--pdeathsig", "KILL", "--",
                                          *map(str, args)], env=env,
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                         preexec_fn=None if detached else die_with_parent)
        (self.work / "pid").write_text(str(self.qemu.pid))
        self.connect()
        self.frame(0, self.deadline)
        if self.verbose:
            print(f"lab: up after {time.monotonic() - start:.1f} s", file=sys.stderr)

    def connect(self):
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                return self.sock.connect(str(self.work / "ctl"))
            except OSError:
                self.sock.close()
                if (self.qemu and self.qemu.poll() is not None) or time.monotonic() > self.deadline:
                    raise LabError(self.story("QEMU did not start")) from None
                time.sleep(0.05)

    def story(self, what):
        """what, with the end of the console and of QEMU's own output."""
        tail = b""
        for name in ("qemu.log", "console"):
            try:
                tail += (self.work / name).read_bytes()[-1500:]
            except OSError:
                pass
        return f"lab: {what}\n{tail.decode(errors='replace')}"

    def frame(self, ident, deadline):
        """The next frame of that id: (kind, bytes). Bytes before it, the rest of a dead command's, are skipped."""
        while True:
            at = self.pending.find(b"LAB1")
            if at >= 0 and len(self.pending) >= at + 13:
                got, kind, n = struct.unpack(">IBI", self.pending[at + 4:at + 13])
                if len(self.pending) >= at + 13 + n:
                    data = self.pending[at + 13:at + 13 + n]
                    self.pending = self.pending[at + 13 + n:]
                    if got == ident:
                        return kind, data
                    continue
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise LabError(self.story("no answer in time"))
            data = self.sock.recv(1 << 16)
            if not data:
                raise LabError(self.story("it died"))
            self.pending += data

    def run(self, argv, user="lab", timeout=None, stdin=b"", cwd=None, env=None, out=None, err=None):
        """Runs argv in the lab. With out and err (functions of bytes) the output goes there as it comes."""
        left = self.deadline - time.monotonic()
        timeout = min(timeout or left, left)
        self.ident = (self.ident + 1) or 1
        ident = self.ident
        req = {"id": ident, "argv": list(argv), "user": user, "timeout": timeout, "env": env or {}, "cwd": cwd,
               "stdin": base64.b64encode(stdin).decode()}
        self.sock.sendall(json.dumps(req).encode() + b"\n")
        got = {1: [], 2: []}
        # The agent's own limit comes first; ours is for an agent that is stuck.
        while True:
            kind, data = self.frame(ident, time.monotonic() + timeout + 10)
            if kind == 3:
                return Done(json.loads(data)["status"], b"".join(got[1]), b"".join(got[2]))
            sink = (out, err)[kind - 1]
            if sink:
                sink(data)
            else:
                got[kind].append(data)

    def close(self):
        """Asks the lab to power off, then makes sure."""
        if self.qemu and self.sock:
            try:
                self.sock.sendall(b'{"id": 1, "off": true}\n')
                self.qemu.wait(15)
            except (OSError, subprocess.TimeoutExpired):
                pass
        if self.qemu and self.qemu.poll() is None:
            os.killpg(self.qemu.pid, signal.SIGKILL)
            self.qemu.wait()
        if self.sock:
            self.sock.close()
        if getattr(self, "work", None):
            shutil.rmtree(self.work, ignore_errors=True)
        self.qemu = self.sock = self.work = None

    # A lab that outlives its starter, for work by hand: up() in one command, attach() in the next ones.

    def up(self):
        self.boot(detached=True)
        self.sock.close()
        return self.work

    def attach(self, work):
        self.work = pathlib.Path(work)
        self.deadline = time.monotonic() + self.timeout
        # An id no earlier client of this lab has used, so that the remains of its output are not taken for ours.
        self.ident = int(time.monotonic() * 10) & 0x7fffffff
        self.connect()
        self.sock.sendall(b"\n\n")
        self.frame(0, time.monotonic() + 20)

    def down(self):
        pid = int((self.work / "pid").read_text())
        self.sock.sendall(b'{"id": 1, "off": true}\n')
        for _ in range(150):
            try:
                if (pathlib.Path("/proc") / str(pid) / "stat").read_text().split()[2] == "Z":
                    break
            except OSError:
                break
            time.sleep(0.1)
        else:
            os.killpg(pid, signal.SIGKILL)
        self.sock.close()
        shutil.rmtree(self.work, ignore_errors=True)
        self.work = self.sock = None
