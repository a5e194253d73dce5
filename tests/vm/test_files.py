"""The project and other folders as the guest sees them, and what it cannot do to them."""
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import time
import unittest

from vmtest import AGENT_VM, MONITOR, STATE, Case, environment, wait_for


def git(*words, cwd):
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
           "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org"}
    subprocess.run(["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *words], cwd=cwd, env=env,
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


IDENTITY = "export GIT_AUTHOR_NAME=g GIT_AUTHOR_EMAIL=g@example.org GIT_COMMITTER_NAME=g GIT_COMMITTER_EMAIL=g@example.org; "


class Files(Case):
    def test_kinds_modes_links_and_owner_are_real_on_the_host(self):
        self.sh("echo '#!/bin/sh' > run.sh; chmod 755 run.sh; echo s > secret; chmod 600 secret; ln -s run.sh link;"
                "ln run.sh hard; mkfifo fifo; mkdir -p 'a b/ж'; touch -d @1000000000 old; mkdir d; mv secret d/moved;"
                "chmod 4711 run.sh; chmod 755 run.sh")
        p = self.project
        self.assertEqual(stat.S_IMODE((p / "run.sh").stat().st_mode), 0o755)
        self.assertEqual(stat.S_IMODE((p / "d/moved").stat().st_mode), 0o600)
        self.assertEqual(os.readlink(p / "link"), "run.sh")
        self.assertEqual((p / "hard").stat().st_ino, (p / "run.sh").stat().st_ino)
        self.assertTrue(stat.S_ISFIFO((p / "fifo").stat().st_mode))
        self.assertTrue((p / "a b/ж").is_dir())
        self.assertEqual(int((p / "old").stat().st_mtime), 1000000000)
        for f in p.rglob("*"):
            st = f.lstat()
            self.assertEqual((st.st_uid, st.st_gid), (os.geteuid(), os.getegid()), f)
            self.assertEqual(os.listxattr(f, follow_symlinks=False), [], f)

    def test_no_set_id_file_is_left_on_the_host(self):
        out = self.sh("cp /bin/true a; cp a b; chmod 6755 a && echo CHMOD; chmod 2755 b && echo CHMOD; chmod g+s b && echo CHMOD;"
                      "install -m 4755 a c && echo INSTALL; "
                      "perl -e 'use Fcntl; sysopen(F, \"d\", O_CREAT|O_WRONLY, 04755) and print \"OPEN\\n\"';"
                      "cp a /root/e; chmod 6755 /root/e; cp -p /root/e e; mv /root/e f; chmod 755 a; test -x a && echo fine")
        self.assertEqual(out, "fine\n")
        files = list(self.project.iterdir())
        self.assertGreaterEqual(len(files), 3)
        for f in files:
            self.assertEqual(f.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID), 0, f)

    def test_host_changes_are_seen_and_fsync_survives_a_killed_vm(self):
        with self.session() as s:
            (self.project / "from-host").write_text("one")
            self.assertEqual(self.exec("cat from-host"), "one")
            (self.project / "from-host").write_text("second")
            self.assertEqual(self.exec("cat from-host"), "second")
            self.exec("python3 -c pass 2>/dev/null; dd if=/dev/zero of=synced bs=1M count=8 conv=fsync 2>/dev/null;"
                      "sha256sum synced | cut -c1-8")
            s.kill()
        self.assertEqual((self.project / "synced").stat().st_size, 8 << 20)

    def test_ten_thousand_small_files(self):
        self.sh("mkdir many; cd many; for i in $(seq 10000); do echo $i > f$i; done; ls | wc -l; cat f9999")
        self.assertEqual(len(list((self.project / "many").iterdir())), 10000)
        self.assertEqual((self.project / "many/f10000").read_text(), "10000\n")
        out = self.sh("cd many; find . -type f | wc -l; cat f* | wc -l; rm -r ../many; ls -A ..| wc -l")
        self.assertEqual(out, "10000\n10000\n0\n")

    def test_paths_with_spaces_and_other_letters(self):
        for name in ("with space", "проект", "a:b,c=d", "emoji-🙂", "quote'\"", "-dash", "$HOME"):
            with self.subTest(name=name):
                d = self.top / name
                d.mkdir()
                out = self.sh("pwd; echo x > f", cwd=d)
                self.assertEqual(out, f"{d}\n")
                self.assertTrue((d / "f").exists())

    def test_odd_paths_become_workspace(self):
        d = self.top / "new\nline"
        d.mkdir()
        p = self.vm("shell", "pwd", cwd=d, check=0)
        self.assertEqual(p.stdout, b"/workspace\n")
        self.assertIn(b"/workspace", p.stderr)
        tmp = subprocess.run(["mktemp", "-d", "/tmp/agent-vm-test-XXXXXX"], check=True,
                             stdout=subprocess.PIPE).stdout.decode().strip()
        self.addCleanup(shutil.rmtree, tmp)
        p = self.vm("shell", "--", "-c", "pwd; echo hi > f; ls /tmp", cwd=tmp, check=0)
        self.assertTrue(p.stdout.startswith(b"/workspace\n"), p.stdout)
        self.assertEqual(open(f"{tmp}/f").read(), "hi\n")

    def test_mounts(self):
        for name in ("ro", "rw", "other"):
            (self.top / name).mkdir()
        (self.top / "ro/file").write_text("data")
        out = self.sh(
            "cat /data/file; touch /data/x 2>/dev/null && echo WROTE; mount -o remount,rw /data 2>/dev/null;"
            "touch /data/x 2>/dev/null && echo WROTE2; rm -f /data/file 2>/dev/null; echo y > /tmp/w/y; cat /tmp/w/y;"
            f"ls {self.top}/other",
            "--mount", "../ro:/data:ro", "--mount", f"{self.top}/rw:/tmp/w", "--mount", self.top / "other")
        self.assertEqual(out, "datay\n")
        self.assertEqual((self.top / "ro/file").read_text(), "data")
        self.assertEqual((self.top / "rw/y").read_text(), "y\n")
        for bad in (["--mount", "/nope"], ["--mount", "../ro:relative"], ["--mount", "../ro:/proc/x"],
                    ["--mount", "../ro/file"]):
            p = self.vm("shell", *bad, "true")
            self.assertIn(p.returncode, (1, 2), bad)
            self.assertEqual(p.stderr.count(b"\n"), 1, p.stderr)
            self.assertIn(b"--mount", p.stderr)

    def test_hidden_files(self):
        (self.project / ".agentvmignore").write_text("# comment\n.env\nsecrets/\n")
        (self.project / ".env").write_text("REAL=canary")
        (self.project / ".env.other").write_text("shown")
        (self.project / "secrets").mkdir()
        (self.project / "secrets/key").write_text("canary")
        out = self.sh("cat .env; cat .env.other; ls -A secrets; cat secrets/key; echo x > .env; rm -f .env; mv .env .e;"
                      "rm -rf secrets; mv secrets s2; echo z > .agentvmignore; ln .env hard; cat hard; cp -r . /root/copy;"
                      "grep -r canary /root/copy && echo LEAK; true")
        self.assertNotIn("canary", out)
        self.assertNotIn("LEAK", out)
        self.assertIn("shown", out)
        self.assertEqual((self.project / ".env").read_text(), "REAL=canary")
        self.assertEqual((self.project / "secrets/key").read_text(), "canary")
        self.assertTrue((self.project / ".agentvmignore").read_text().startswith("# comment"))
        self.assertIn("REAL=canary", self.sh("cat .env", "--no-hide"))

    def test_a_hidden_file_cannot_be_uncovered_by_moving_its_folder(self):
        (self.project / ".agentvmignore").write_text("/a/b/key\n")
        (self.project / "a/b").mkdir(parents=True)
        (self.project / "a/b/key").write_text("canary")
        with self.session():
            self.exec("mv a a2; mv a/b a/b2; mv a/b b2; rm -rf a; mkdir -p a/b; true")
            self.assertEqual((self.project / "a/b/key").read_text(), "canary")
            self.assertNotIn("canary", self.exec("cat a/b/key a2/b/key a/b2/key b2/key; true"))
            self.assertNotIn("canary", self.exec("sleep 2; find . -name key -exec cat {} +; true"))


    @unittest.skipIf(MONITOR == "krun", "of QEMU's own")
    def test_programs_in_the_project_are_not_run_on_the_host(self):
        (self.project / "bin").mkdir()
        for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
            f = self.project / "bin" / name
            f.write_text(f"#!/bin/sh\ntouch {self.project}/ran\nexec /usr/bin/{name} \"$@\"\n")
            f.chmod(0o755)
        path = f"{self.project}/bin:{os.environ['PATH']}"
        p = self.vm("shell", "--vmm", "qemu", "--", "echo", "fine", env={"PATH": path}, check=0)
        self.assertEqual(p.stdout, b"fine\n")
        self.assertFalse((self.project / "ran").exists())

    @unittest.skipIf(MONITOR == "krun", "the lab has no installation to copy, and no other monitor changes this")
    def test_a_project_that_holds_agent_vm_itself_is_warned_of(self):
        shutil.copytree(pathlib.Path(AGENT_VM).parent.parent, self.top / "prefix", symlinks=True)
        own = self.top / "prefix/bin/agent-vm"
        p = subprocess.run([own, "shell", "--", "-c", "echo fine"], cwd=own.parent, env=environment(), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual((p.returncode, p.stdout), (0, b"fine\n"), p.stderr)
        self.assertIn(f"{own.parent}: the guest will see {own} (a program of agent-vm)".encode(), p.stderr)
        self.assertRegex(p.stderr.decode(), rf"\n *exposed +{re.escape(str(own))} \(a program of agent-vm\)")

    def test_links_left_in_the_state_folder_are_set_aside(self):
        self.sh("cd /agent-vm-state && rm -rf bash_history claude && ln -s /etc/passwd bash_history && ln -s /nowhere claude")
        p = self.vm("shell", "--", "-c", "ls -ld /root/.claude/ > /dev/null && echo typed >> ~/.bash_history && echo fine",
                    check=0)
        self.assertEqual(p.stdout, b"fine\n")
        self.assertIn(b"bash_history: is a link; it was renamed bash_history.agent-vm-bad", p.stderr)
        self.assertIn(b"claude: is a link", p.stderr)
        self.assertEqual(self.sh("cat ~/.bash_history"), "typed\n")

    def test_what_a_guest_leaves_in_the_state_folder_stops_no_later_launch(self):
        """Folders without rights, deeper than we have descriptors, in the place of what must go; and no rights to the folder itself."""
        self.sh("cd /agent-vm-state && mkdir -p tokens/a/b codex.agent-vm-bad/a && rm -rf codex && touch codex tokens/a/b/f && "
                "mkdir -p tokens/$(printf 'd/%.0s' $(seq 600)) && "
                "chmod 0 tokens/a/b tokens/a tokens codex.agent-vm-bad/a codex.agent-vm-bad && chmod 0 .")
        p = self.vm("shell", "--", "-c", "ls -d /agent-vm-state/*; echo fine", check=0)
        self.assertTrue(p.stdout.endswith(b"fine\n"), p.stdout)
        self.assertNotIn(b"tokens", p.stdout)
        self.assertIn(b"codex: is no folder; it was renamed codex.agent-vm-bad", p.stderr)
        self.vm("prune", check=0)
        self.assertFalse((pathlib.Path(STATE) / "run/trash").exists())


class Git(Case):
    def setUp(self):
        super().setUp()
        git("init", cwd=self.project)
        (self.project / "f").write_text("1\n")
        git("add", "f", cwd=self.project)
        git("commit", "-m", "one", cwd=self.project)

    ATTACK = ("echo x > .git/hooks/post-commit; echo x > .git/hooks/pre-push; rm -rf .git/hooks; mv .git/hooks .git/h2;"
              "mv .git .git2; rm -rf .git/config; echo '[core] fsmonitor=./x' >> .git/config; mv .git/config .git/c2;"
              "git config core.fsmonitor ./x; mkdir n; mv n .git/hooks; umount .git/hooks; mount -o remount,rw .git/hooks;"
              "mount -o remount,rw,bind .git/config; true")

    def test_what_runs_on_the_host_cannot_be_written(self):
        before = (self.project / ".git/config").read_bytes()
        hooks = sorted(os.listdir(self.project / ".git/hooks"))
        self.sh(self.ATTACK)
        self.assertEqual((self.project / ".git/config").read_bytes(), before)
        self.assertEqual(sorted(os.listdir(self.project / ".git/hooks")), hooks)
        self.assertTrue((self.project / ".git/HEAD").exists())
        self.assertFalse((self.project / ".git2").exists())

    def test_the_attack_works_without_the_guard(self):
        """The same attack on a folder that is no git directory: it must succeed, or the test above shows nothing."""
        self.sh("cp -r .git plain; cd plain; echo x > hooks/post-commit; echo y >> config; mv hooks h2; mv config c2")
        self.assertTrue((self.project / "plain/h2/post-commit").exists())
        self.assertTrue((self.project / "plain/c2").read_text().endswith("y\n"))

    def test_a_writable_config_keeps_harmless_settings_and_undoes_others(self):
        config = self.project / ".git/config"
        with self.session("--git-config", "rw") as s:
            self.exec("git config user.name me && git checkout -q -b topic && git config branch.topic.merge refs/heads/topic")
            wait_for(lambda: "name = me" in config.read_text(), 60, "the harmless change did not arrive")
            good, took = config.read_bytes(), []
            for evil in ("git config core.fsmonitor ./x", "echo '[alias] a = !x' >> .git/config",
                         "mkfifo .git/fifo && mv -f .git/fifo .git/config", "ln .git/config .git/c2 && echo '[include] path = x' >> .git/c2"):
                # The guest's kernel believes a name for a second under QEMU, for five with libkrun.
                self.exec(f"sleep {6 if MONITOR == 'krun' else 1.5}; " + evil)
                # The guest has ended its write; a second is the bound on a machine that is not busy, as it should be for one of these.
                start = time.monotonic()
                wait_for(lambda: config.is_file() and config.read_bytes() == good, 60, evil)
                took.append(time.monotonic() - start)
            self.assertLess(min(took), 1, took)
            hooks = "echo x > .git/hooks/post-commit; mv .git .git2; rm -rf .git/hooks; echo ../e > .git/commondir; true"
            self.exec(hooks)
            self.assertFalse((self.project / ".git/hooks/post-commit").exists())
            self.assertFalse((self.project / ".git2").exists())
            self.assertEqual((self.project / ".git/commondir").read_text(), ".\n")
            s.send_signal(signal.SIGTSTP)  # nothing would be undone meanwhile
            self.exec("git config core.fsmonitor ./y")
            wait_for(lambda: config.read_bytes() == good, 60, "not undone by a launcher that was asked to stop")
            s.terminate()
            err = s.stderr.read().decode()
        self.assertIn("    guard     ro .git/hooks\n    guard     rw .git/config (watched: what could run something is undone)\n", err)
        for told in ("core.fsmonitor = ./x (new)", "alias.a = !x (new)", "is no plain file", "include.path = x (new)",
                     "core.fsmonitor = ./y (new)"):
            self.assertIn(f"==> undone in a git config: {config}: {told}\n", err)
        self.assertIn("==> not stopped: git configs are watched (--git-config rw)\n", err)
        self.assertNotIn("runs by itself", err)
        self.assertEqual(config.read_bytes(), good)

    def test_the_tenth_change_of_a_writable_config_ends_the_session(self):
        config = self.project / ".git/config"
        good = config.read_bytes()
        p = self.vm("shell", "--git-config", "rw", "--", "-c", "while :; do git config core.fsmonitor ./x; sleep 0.2; done",
                    check=1)
        err = p.stderr.decode()
        self.assertIn("agent-vm: git configs: changed 10 times in a way that could run something on this host, and put back each time "
                      f"(at last {config}: core.fsmonitor = ./x (new)); the session was ended; log: ", err)
        self.assertIn(f"==> undone in a git config: {config}: core.fsmonitor = ./x (new), 10 times\n", err)
        self.assertNotIn("runs by itself", err)
        self.assertEqual(config.read_bytes(), good)

    def test_a_config_that_cannot_be_watched_stops_the_launch(self):
        config = self.project / ".git/config"
        config.rename(self.project / "elsewhere")
        config.symlink_to("../elsewhere")
        p = self.vm("shell", "--git-config", "rw", "true", check=1)
        self.assertEqual(p.stderr.decode(), f"agent-vm: --git-config rw: {config}: cannot be watched, since it is no plain file, "
                                            "or holds what git would not read; repair it, or leave the option out\n")

    def test_git_in_clear_text_becomes_https(self):
        self.assertEqual(self.sh("git ls-remote --get-url git://example.org/x"), "https://example.org/x\n")

    def test_commit_works(self):
        self.sh(IDENTITY + "git status --porcelain; echo 2 >> f; git commit -qam two; git checkout -q -b topic; git gc -q;"
                "git log --oneline | wc -l; git fsck")
        out = subprocess.run(["git", "log", "--oneline", "topic"], cwd=self.project, stdout=subprocess.PIPE, check=True)
        self.assertEqual(out.stdout.count(b"\n"), 2)

    def test_linked_worktree(self):
        git("worktree", "add", "../wt", cwd=self.project)
        wt = self.top / "wt"
        out = self.sh(IDENTITY + "git status --porcelain; echo 3 > g; git add g; git commit -qm wt; git log --oneline | wc -l;"
                      f"echo x > {self.project}/.git/hooks/post-commit 2>/dev/null && echo HOLE; true", cwd=wt)
        self.assertEqual(out, "2\n")
        git("worktree", "list", cwd=self.project)
        self.assertFalse((self.project / ".git/hooks/post-commit").exists())

    def test_subfolder(self):
        sub = self.project / "sub"
        sub.mkdir()
        (sub / "s").write_text("s\n")
        git("add", ".", cwd=self.project)
        git("commit", "-m", "sub", cwd=self.project)
        out = self.sh("set -e; " + IDENTITY + "git status --porcelain; echo t > t; git add t; git commit -qm from-guest;"
                      "git status --porcelain; if echo x > ../f; then echo HOLE; fi 2>/dev/null; cat ../f", cwd=sub)
        self.assertEqual(out, "1\n")
        self.assertEqual((self.project / "f").read_text(), "1\n")
        log = subprocess.run(["git", "log", "-1", "--format=%s %an", "--name-only"], cwd=self.project, check=True,
                             stdout=subprocess.PIPE).stdout.decode()
        self.assertEqual(log.split(), ["from-guest", "g", "sub/t"])

    def test_submodule(self):
        lib = self.top / "lib"
        lib.mkdir()
        git("init", cwd=lib)
        (lib / "l").write_text("l\n")
        git("add", "l", cwd=lib)
        git("commit", "-m", "l", cwd=lib)
        git("submodule", "add", str(lib), "mod", cwd=self.project)
        out = self.sh(IDENTITY + "git status --porcelain; echo m > m; git add m; git commit -qm m; git log --oneline | wc -l",
                      cwd=self.project / "mod")
        self.assertEqual(out, "2\n")

    def status_runs_nothing(self, cwd):
        """git status as the user's prompt or editor runs it; what it started would leave a file."""
        out = subprocess.run(["git", "status", "--porcelain"], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertFalse((self.top / "owned").exists(), out.stdout)

    EVIL = ("cp -r {git} /root/evil; cp -r {git} {evil}; "
            "git config -f {evil}/config core.fsmonitor 'touch {top}/owned; false'; ")

    def test_git_is_not_led_elsewhere_by_a_commondir_made(self):
        attack = self.EVIL.format(git=".git", evil="evil", top=self.top) + "echo ../evil > .git/commondir; rm -f .git/commondir; "
        with self.session():
            self.exec(attack + "mv .git/commondir .git/c; echo ../evil > .git/commondir; git status > /dev/null && echo fine; true")
            self.status_runs_nothing(self.project)
            self.assertEqual((self.project / ".git/commondir").read_text(), ".\n")
        self.assertFalse((self.project / ".git/commondir").exists())
        # The same where nothing guards: it must work, or this shows nothing.
        shutil.copytree(self.project / ".git", self.project / "plain/.git")
        (self.project / "plain/.git/commondir").write_text("../../evil\n")
        subprocess.run(["git", "status"], cwd=self.project / "plain", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertTrue((self.top / "owned").exists())

    def test_the_pointer_of_a_submodule_stays(self):
        lib = self.top / "lib"
        lib.mkdir()
        git("init", cwd=lib)
        (lib / "l").write_text("l\n")
        git("add", "l", cwd=lib)
        git("commit", "-m", "l", cwd=lib)
        git("submodule", "add", str(lib), "sub/mod", cwd=self.project)
        git("commit", "-m", "m", cwd=self.project)
        pointer = (self.project / "sub/mod/.git").read_bytes()
        self.sh(self.EVIL.format(git=".git/modules/sub/mod", evil="evil", top=self.top) +
                "echo gitdir: $PWD/evil > sub/mod/.git; rm -f sub/mod/.git; mv sub/mod sub/m2; mv sub s2; mkdir -p sub/mod;"
                "echo gitdir: $PWD/evil > sub/mod/.git; echo ../../../evil > .git/modules/sub/mod/commondir; true")
        self.assertEqual((self.project / "sub/mod/.git").read_bytes(), pointer)
        self.status_runs_nothing(self.project)
        self.status_runs_nothing(self.project / "sub/mod")
        self.assertEqual(self.sh(IDENTITY + "set -e; cd sub/mod; echo x > x; git add x; git commit -qm x; git status --porcelain;"
                                 "cd ../..; git status --porcelain"), " M sub/mod\n?? evil/\n")

    def test_a_git_folder_made_of_links_is_guarded(self):
        """A guest turns what makes .git a git directory into links, or takes it away, and comes back in a second session."""
        evil = f"git config core.fsmonitor 'touch {self.top}/owned; false'"
        for before, after in (("mv .git/objects .git/o2; ln -s o2 .git/objects", "true"), ("mv .git/HEAD .git/h", "mv .git/h .git/HEAD")):
            with self.subTest(before=before):
                self.sh(before)
                p = self.vm("shell", "--", "-c", f"{after}; {evil} || echo refused", check=0)
                self.assertEqual(p.stdout, b"refused\n")
                self.assertIn(b"ro .git/hooks, .git/config", p.stderr)
                self.status_runs_nothing(self.project)

    def test_the_guard_of_two_sessions_lasts_until_both_have_ended(self):
        hooks = self.project / ".git/hooks"
        shutil.rmtree(hooks)
        with self.session() as first:
            with self.session() as second:
                first.terminate()
                first.wait(60)
                self.exec("mkdir -p .git/hooks; echo x > .git/hooks/post-commit; mv .git/hooks .git/h; true")
                self.assertEqual(list(hooks.iterdir()), [])
                second.kill()
            self.vm("ps", check=0)
        self.assertFalse(hooks.exists())
        self.assertFalse((self.project / ".git/commondir").exists())

    def test_what_a_session_left_is_told_at_its_end(self):
        p = self.vm("shell", "--", "-c", IDENTITY + "echo 2 >> f; git commit -qam two; mkdir src; echo x > src/a.c", check=0)
        self.assertNotIn(b"left in", p.stderr)
        script = ("mkdir .vscode new; echo {} > .vscode/tasks.json; echo all: > Makefile; cd new; git init -q .;"
                  "git config core.hooksPath h; mkdir h; echo x > h/pre-commit")
        p = self.vm("shell", "--", "-c", script, check=0)
        lines = p.stderr.decode().splitlines()
        at = lines.index(f"==> left in {self.project} by this session:")
        self.assertEqual(lines[at + 1], "    runs by itself    .vscode/tasks.json (new), new/.git/ (new), "
                                        "new/.git/config core.hookspath = h (new), new/h/pre-commit (new)")
        self.assertEqual(lines[at + 2], "    runs on build     Makefile (new)")
        with self.session("--quiet") as s:
            self.exec("echo '{ }' > .vscode/tasks.json; echo x >> Makefile")
            s.terminate()
            err = s.stderr.read().decode()
        self.assertIn("    runs by itself    .vscode/tasks.json (changed)\n", err)
        self.assertNotIn("runs on build", err)

    def test_a_pointer_that_leads_elsewhere_is_not_followed(self):
        evil = self.top / "evil"
        evil.mkdir()
        target = self.top / "private"
        target.mkdir()
        (target / "key").write_text("canary")
        (evil / ".git").write_text(f"gitdir: {target}\n")
        p = self.vm("shell", "--", "-c", f"cat {target}/key", cwd=evil)
        self.assertNotIn(b"canary", p.stdout)
        self.assertNotEqual(p.returncode, 0)


if __name__ == "__main__":
    unittest.main()
