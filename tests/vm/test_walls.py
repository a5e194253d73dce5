"""Hosts that lack a wall: what is said, what still works, and what is refused before anything starts."""
import os
import pathlib
import subprocess
import unittest

from vmtest import Case, MONITOR, NO_LANDLOCK, NO_NAMESPACES, command, environment, without

ROOT = os.geteuid() == 0
QEMU = unittest.skipIf(MONITOR == "krun", "of QEMU's own")
DEBIAN_12 = pathlib.Path("/usr/lib/qemu/virtiofsd").exists() and not pathlib.Path("/usr/libexec/virtiofsd").exists()


class Walls(Case):
    def run_without(self, deny, *words, **env):
        return without(deny, command(words), cwd=self.project, env=environment(**env))

    def test_no_landlock_is_said_in_one_line(self):
        p = self.run_without(NO_LANDLOCK, "shell", "--quiet", "true")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(p.stderr.decode(), "agent-vm: warning: cage: no Landlock around the VM's monitor; the other walls "
                                            "stand; agent-vm doctor says what to do\n")
        doctor = self.run_without(NO_LANDLOCK, "doctor").stdout
        self.assertIn(b"warn  landlock", doctor)
        self.assertRegex(doctor, rb"(?m)^(ok   |warn ) cgroup      .*/")

    def test_doctor_says_what_the_network_lacks(self):
        """A new network namespace lets no group ping."""
        def doctor(more):
            line = "%s exec \"$@\"" % more
            return subprocess.run(["unshare", "-n" if ROOT else "-Urn", "sh", "-c", line, "sh", *command(["doctor"])],
                                  cwd=self.project, env=environment(), stdout=subprocess.PIPE, timeout=120).stdout.decode()
        lacks = doctor("ulimit -n 1000;")
        self.assertIn("warn  ping        fails in the guest: net.ipv4.ping_group_range holds none of your groups; as root: sysctl "
                      "net.ipv4.ping_group_range=", lacks)
        self.assertIn("warn  files       only 1000 may be open", lacks)
        has = doctor("echo 0 0 >/proc/sys/net/ipv4/ping_group_range;")
        self.assertIn("ok    ping", has)
        self.assertNotIn("only 1000", has)

    @QEMU
    def test_no_namespaces(self):
        script = "mknod c c 1 3 2>&1; mknod b b 7 0 2>&1; chmod 666 b c 2>/dev/null; mkfifo p; echo x >x; echo works"
        p = self.run_without(NO_NAMESPACES, "shell", "--vmm", "qemu", "--quiet", "--", "-c", script)
        err = p.stderr.decode()
        if DEBIAN_12 and not ROOT:
            self.assertEqual(p.returncode, 1, err)
            self.assertIn("virtiofsd: ", err)
            self.assertIn("agent-vm doctor", err)
            self.assertFalse((self.project / "x").exists())
            return
        self.assertEqual((p.returncode, p.stdout.splitlines()[-1:]), (0, [b"works"]), err)
        self.assertIn("agent-vm: warning: cage: no namespaces around the VM's monitor", err)
        self.assertEqual((self.project / "x").read_text(), "x\n")
        self.assertTrue((self.project / "p").is_fifo())
        # As root's they would be devices of the host.
        self.assertEqual(p.stdout.count(b"Operation not permitted"), 2, p.stdout)
        self.assertEqual(sorted(f.name for f in self.project.iterdir()), ["p", "x"])

    @QEMU
    def test_copies_of_the_own_settings_are_not_told_as_left(self):
        """Without namespaces the guest may write their share."""
        home = self.top / "home"
        (home / ".claude/commands").mkdir(parents=True)
        (home / ".claude/commands/x.md").write_text("x")
        (home / ".claude/settings.json").write_text("{}")
        p = self.run_without(NO_NAMESPACES, "shell", "--vmm", "qemu", "true", HOME=home)
        if DEBIAN_12 and not ROOT:
            return
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn(b"rw a copy of your own settings of the agents", p.stderr)
        self.assertNotIn(b"left in", p.stderr)

    @QEMU
    def test_nothing_but_seccomp(self):
        p = self.run_without({**NO_NAMESPACES, **NO_LANDLOCK}, "shell", "--vmm", "qemu", "--quiet", "true")
        doctor = self.run_without({**NO_NAMESPACES, **NO_LANDLOCK}, "doctor").stdout.decode()
        self.assertIn("warn  cage", doctor)
        self.assertIn("warn  namespaces", doctor)
        if DEBIAN_12 and not ROOT:
            self.assertEqual(p.returncode, 1, p.stderr)
            self.assertIn("warn  virtiofsd", doctor)
            return
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("cage: no namespaces, no Landlock around the VM's monitor; a guest that takes the monitor over has "
                      + ("root's" if ROOT else "your"), p.stderr.decode())

    def test_a_read_only_mount_needs_namespaces(self):
        more = self.top / "more"
        more.mkdir()
        p = self.run_without(NO_NAMESPACES, "shell", "--mount", f"{more}:ro", "--memory", "0", "true")
        lines = p.stderr.decode().splitlines()
        self.assertEqual(p.returncode, 2, lines)
        self.assertIn("agent-vm: --memory 0: less than 256M; for four GiB write --memory 4", lines)
        self.assertTrue(any(line.startswith(f"agent-vm: --mount {more}:ro: ") and "namespaces" in line for line in lines), lines)

    @QEMU
    def test_too_many_shares_are_a_mistake_among_the_others(self):
        more = [self.top / "a", self.top / "b"]
        for m in more:
            m.mkdir()
        p = self.run_without(NO_NAMESPACES, "shell", "--vmm", "qemu", "--mount", more[0], "--mount", more[1], "--memory", "0", "true")
        lines = p.stderr.decode().splitlines()
        self.assertEqual(p.returncode, 2, lines)
        self.assertIn("agent-vm: --memory 0: less than 256M; for four GiB write --memory 4", lines)
        self.assertIn("agent-vm: 4 shares: with QEMU and without namespaces at most 3 are possible; mount less, or see agent-vm "
                      "doctor for how to allow them", lines)


if __name__ == "__main__":
    unittest.main()
