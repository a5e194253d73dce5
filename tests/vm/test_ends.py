"""How a session ends: closed descriptors, signals at boot and later, a flooded console, more exec clients than there is room for."""
import json
import os
import pathlib
import signal
import subprocess
import time
import unittest

from vmtest import AGENT_VM, BOOT_S, SLOW, STATE, Case, Terminal, children, command, environment, wait_for


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
