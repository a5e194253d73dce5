"""What only libkrun can get wrong; runs in the lab (tests/lab/suite), beside the scenarios of tests/vm."""
import glob
import json
import os
import pathlib
import socket
import subprocess
import threading
import time
import unittest

from vmtest import AGENT_VM, Case, children, environment

TREE = "/tree"
NPM = TREE + "/deps/node_modules"
LIBRARIES = {"AGENT_VM_LIBKRUN": NPM + "/@earendil-works/gondolin-krun-runner-linux-x64/lib/libkrun.so.1",
             "AGENT_VM_LIBKRUNFW": glob.glob(NPM + "/@superradcompany/microsandbox-linux-x64-gnu/lib/libkrunfw.so.5*")[0]}


class Listener:
    """A daemon on the host's loopback that counts who comes."""

    def __enter__(self):
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.seen = 0
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def serve(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            self.seen += 1
            conn.close()

    def __exit__(self, *exc):
        self.sock.close()


class Machine(Case):
    def test_the_launch_says_that_it_is_libkrun(self):
        p = self.vm("shell", "true", check=0)
        self.assertIn(", krun, ", p.stderr.decode())

    def test_timers_with_the_split_interrupt_controller(self):
        out = self.sh("sleep 1; grep -c -w tsc_deadline_timer /proc/cpuinfo; cat /proc/interrupts; nproc")
        lines = out.splitlines()
        self.assertEqual(lines[0], lines[-1], "every processor has the deadline timer")
        self.assertIn("IO-APIC", out)
        # The PIT exists only with the controller in the kernel.
        self.assertNotIn("edge      timer", out)
        self.assertNotIn("XT-PIC", out)

    def test_our_program_is_the_first_process_and_the_root_has_no_window(self):
        out = self.sh("dmesg | grep -E 'Run .* as init|Cache len'")
        self.assertRegex(out, r"^.*Run /agent-vm-guest as init process\n$")

    def test_the_guest_s_memory_is_one_piece_with_the_kernel_read_into_it(self):
        """A mapping of libkrunfw in its midst would leave the rest without large pages (docs/platform/libkrun.md)."""
        out = self.sh("cat /proc/cmdline; grep 'System RAM' /proc/iomem")
        self.assertIn("max_loop=0", out)
        self.assertIn("00100000-80000000 : System RAM", out)

    def test_a_kernel_that_is_lost_is_made_again_and_old_ones_go(self):
        self.vm("shell", "true", check=0)
        cache = pathlib.Path(os.environ["AGENT_VM_STATE_DIR"]) / "cache"
        kernels = list(cache.glob("kernel-*"))
        self.assertEqual(len(kernels), 1)
        (cache / "kernel-of-an-older-one").write_text("x")
        kernels[0].unlink()
        self.vm("shell", "true", check=0)
        self.assertEqual(list(cache.glob("kernel-*")), kernels)

    def test_what_serves_an_idle_guest_sleeps(self):
        with self.session() as s:
            def ticks(pid):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                return int(fields[11]) + int(fields[12])

            pids = {pathlib.Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in children(s.pid)}
            roles = ("agent-vm-vmm", "agent-vm-wire", "agent-vm-vault")
            before = [ticks(pids[name]) for name in roles]
            time.sleep(3)
            for name, ticks_before in zip(roles, before):
                self.assertLess(ticks(pids[name]) - ticks_before, 10, f"{name}: 100 a second are one whole processor")

    def test_doctor_tells_what_is_there(self):
        p = self.vm("doctor", "--json", check=0)
        found = {line["check"]: line for line in json.loads(p.stdout)}
        for what in ("libkrun", "libkrunfw", "kvm", "namespaces", "landlock", "image"):
            self.assertEqual(found[what]["level"], "ok", found[what])
        ids = pathlib.Path("/etc/subuid").read_text()
        if os.geteuid() != 0:
            self.assertEqual(found["sub-ids"]["level"], "ok" if os.environ["USER"] + ":" in ids else "warn")


class Group(Case):
    """The monitor's cgroup: as user lab below the delegated one, as root at the top, as nosub nowhere."""
    TOP = pathlib.Path("/sys/fs/cgroup")

    def setUp(self):
        super().setUp()
        own = pathlib.Path("/proc/self/cgroup").read_text().rstrip().removeprefix("0::")
        self.place = {"/lab/session": self.TOP / "lab", "/": self.TOP if os.geteuid() == 0 else None}[own]
        self.doctor = subprocess.run([AGENT_VM, "doctor"], stdout=subprocess.PIPE, env=environment()).stdout.decode()

    def groups(self):
        return sorted(self.TOP.rglob("agent-vm-*"))

    def test_the_monitor_and_what_it_starts_are_in_it_and_nobody_else(self):
        with self.session("--memory", "512M") as s:
            below = children(s.pid)
            monitor = [p for p in below if pathlib.Path(f"/proc/{p}/comm").read_text().startswith("agent-vm-vmm")]
            inside = set(monitor).union(*map(children, monitor))
            self.assertGreaterEqual(len(inside), 2)
            if not self.place:
                self.assertEqual(self.groups(), [])
                self.assertIn("warn  cgroup", self.doctor)
                self.assertIn("systemd-run --user --scope", self.doctor)
            else:
                group, = self.groups()
                self.assertEqual(group.parent, self.place)
                there = {int(p) for p in (group / "cgroup.procs").read_text().split()}
                # KVM has a thread of the kernel for each VM, which joins the group of who made it.
                self.assertEqual({p for p in there if "\nPPid:\t2\n" not in pathlib.Path(f"/proc/{p}/status").read_text()}, inside)
                self.assertIn(f"ok    cgroup      {self.place}: ", self.doctor)
                limit = int((group / "memory.max").read_text())
                self.assertTrue(1 << 30 < limit < 5 << 30, limit)
                self.assertTrue(500 < int((group / "pids.max").read_text()) < 1000)
                self.assertEqual((group / "memory.oom.group").read_text(), "1\n")
                print(f"memory {(group / 'memory.current').read_text().strip()}, processes "
                      f"{(group / 'pids.current').read_text().strip()}")
            for p in inside - {monitor[0]}:  # that one is the supervisor, outside of the cage
                self.assertFalse(os.path.lexists(f"/proc/{p}/root/sys"))
        self.assertEqual(self.groups(), [])

    def test_what_a_killed_launcher_left_goes_with_the_next_launch(self):
        with self.session() as s:
            below = children(s.pid)
            s.kill()
            s.wait()
        self.assertEqual(len(self.groups()), 1 if self.place else 0)
        self.vm("shell", "true", check=0)
        self.nothing_left(below)
        self.assertEqual(self.groups(), [])


class Tsi(Case):
    """Without a network device libkrun's implicit vsock carries TSI: the monitor opens the guest's sockets itself."""

    def connect(self, port):
        return f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null && echo OPEN; echo end"

    def test_the_probe_shows_that_libkrun_would_open_them(self):
        """So that the next test is known to be able to fail."""
        root = pathlib.Path("/image/root")
        with Listener() as host:
            p = subprocess.run([TREE + "/build/tests/bench/krunprobe", "-N", "-V", root, "/bin/sh", "-c", self.connect(host.port)],
                               env={**os.environ, **LIBRARIES}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120)
            self.assertIn(b"OPEN", p.stdout)
            self.assertGreater(host.seen, 0)

    def test_the_guest_has_neither_vsock_nor_the_host_s_sockets(self):
        with Listener() as host:
            out = self.sh(self.connect(host.port) + "; perl -e 'use Socket; socket(S, 40, SOCK_STREAM, 0) or exit;"
                          "print connect(S, pack(\"SSLLLx4\", 40, 0, 1, 2, 0)) ? \"VSOCK\\n\" : \"\"';"
                          "ls -d /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio* 2>/dev/null;"
                          "ls -d /sys/bus/virtio/drivers/virtio_net/virtio* | wc -l")
            self.assertEqual(out, "end\n1\n")
            self.assertEqual(host.seen, 0)


if __name__ == "__main__":
    unittest.main()
