"""The group around the monitor, on a kernel whose groups are nobody else's: the guest's."""
import shutil
import unittest

from vmtest import Case, program


class Cgroup(Case):
    def test_limits_hold_and_nothing_is_left(self):
        shutil.copy(program("cgroup-in-vm"), self.project)
        p = self.vm("shell", "--", "-c", "./cgroup-in-vm; s=$?; ls -d /sys/fs/cgroup/agent-vm-test/*/agent-vm-*; exit $s")
        self.assertEqual((p.returncode, p.stdout), (0, b"all hold\n"), p.stderr.decode())


if __name__ == "__main__":
    unittest.main()
