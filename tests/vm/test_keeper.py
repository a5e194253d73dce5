"""Guards and hidden files stay when the host replaces what they lie on."""
import os
import subprocess

from vmtest import SLOW, Case, comm, wait_for


class Keeper(Case):
    """A guest waits for `go`, then attacks; meanwhile the host works in the project as people do."""

    # What was made anew is open for a moment, which is long on a busy machine; what is covered stays so.
    ATTACK = ("bare() { grep -qs SECRET .env dir/key late/key || (: >> .git/config) || (: >> .agentvmignore) ||"
              "{ : > .git/hooks/probe && rm .git/hooks/probe; }; };"
              "echo up; while [ ! -e go ]; do sleep 0.1; done; for i in $(seq 300); do bare 2>/dev/null || break; sleep 0.1; done; cat .env; cat dir/key; cat late/key;"
              "echo '[core] fsmonitor=./x' >> .git/config; echo x > .git/hooks/post-commit; echo >> .agentvmignore;"
              "mv .git/config c2; rm -f .git/hooks/x; mv dir dir2; cat dir2/key; echo end")

    def setUp(self):
        super().setUp()
        subprocess.run(["git", "init", "-q", self.project], check=True)
        (self.project / ".agentvmignore").write_text(".env\ndir/\n")
        (self.project / ".env").write_text("SECRET=1\n")
        (self.project / "dir").mkdir()
        (self.project / "dir/key").write_text("SECRET=dir\n")

    def attack(self, host):
        with self.session(script=self.ATTACK) as s:
            host()
            (self.project / "go").touch()
            out = s.stdout.read().decode()
            s.wait(120)
        self.assertTrue(out.endswith("end\n"), out)
        self.assertNotIn("SECRET", out)
        self.assertNotIn("fsmonitor", (self.project / ".git/config").read_text())
        self.assertFalse((self.project / ".git/hooks/post-commit").exists())
        return out

    def test_git_config_and_editors_that_save_by_rename(self):
        def host():
            subprocess.run(["git", "config", "user.name", "n"], cwd=self.project, check=True)
            subprocess.run(["sed", "-i", "s/1/2/", ".env"], cwd=self.project, check=True)
            subprocess.run(["sed", "-i", "s/x/x/", ".agentvmignore"], cwd=self.project, check=True)
        self.attack(host)
        self.assertIn("name = n", (self.project / ".git/config").read_text())
        self.assertEqual((self.project / ".env").read_text(), "SECRET=2\n")
        self.assertEqual((self.project / ".agentvmignore").read_text(), ".env\ndir/\n")

    def test_folders_that_are_made_anew(self):
        def host():
            for d in (".git/hooks", "dir"):
                new = self.project / (d + ".new")
                new.mkdir()
                (new / "key").write_text("SECRET=new\n")
                os.rename(self.project / d, str(self.project / d) + ".old")
                os.rename(new, self.project / d)
            subprocess.run(["rm", "-rf", ".git/hooks.old", "dir.old"], cwd=self.project, check=True)
        self.attack(host)
        self.assertEqual((self.project / "dir/key").read_text(), "SECRET=new\n")

    def test_removed_and_written_again_a_hundred_times(self):
        def host():
            for i in range(100):
                (self.project / ".env").unlink()
                (self.project / ".env").write_text(f"SECRET={i}\n")
                subprocess.run(["git", "config", "user.name", f"n{i}"], cwd=self.project, check=True)
        self.attack(host)

    def test_the_end_of_the_keeper_is_the_end_of_the_vm(self):
        with self.session() as s:
            keeper = wait_for(lambda: [p for p in os.listdir("/proc") if p.isdigit() and comm(p) == "vmm-keeper"],
                              60, "no keeper")
            mine = [k for k in keeper if self.descends(int(k), s.pid)]
            self.assertEqual(len(mine), 1)
            os.kill(int(mine[0]), 9)
            self.assertEqual(s.wait(60 * SLOW), 1)

    @staticmethod
    def descends(pid, top):
        while pid > 1:
            if pid == top:
                return True
            try:
                with open(f"/proc/{pid}/stat") as f:
                    pid = int(f.read().rpartition(")")[2].split()[1])
            except OSError:
                return False
        return False
