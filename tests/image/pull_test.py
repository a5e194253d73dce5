#!/usr/bin/env python3
"""`agent-vm pull` with both halves of agent-vm-image, against Debian's docker-registry: pull_test.py BUILD [unittest words].

No VM is started. What a hostile half could say is tests/proc/t-image-pull.c; what a hostile registry could, fetch_test.py;
a hostile layer, the unpacker's tests.
"""
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import unittest

if __name__ == "__main__":
    os.environ["AGENT_VM"] = str(pathlib.Path(sys.argv.pop(1)).resolve() / "agent-vm")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from pulllib import AGENT_VM, ARCH, MB, OTHER, SLOW, Case, Image, agent_layer, alive, base_layer, halves, layer, nobody, sparse_sum, wait_for  # noqa: E402
from tars import BLK, file, header, link, symlink, tar  # noqa: E402


def old():
    return Image(base_layer(), agent_layer("claude"), agent_layer("codex", seed=3))


def new():
    """The same with another codex."""
    return Image(base_layer(), agent_layer("claude"), agent_layer("codex", seed=4))


class Pull(Case):
    def test_a_first_pull_an_unchanged_one_and_one_of_one_layer(self):
        image = self.push(old())
        out, err = self.run_it("pull")
        self.assertRegex(out, rf"^{self.ref()} [0-9a-f]{{12}} \(new; 3 of 3 layers new, \d+\.\d MB in \d+\.\d s\)\n$")
        self.assertIn(f"==> {self.ref()}\n", err)
        self.assertNotIn("\x1b", err)
        self.assertLessEqual(set(image.layers), self.kept())
        first = self.usable()
        self.assertEqual((first["api_version"], first["layers"]), (1, 3))
        self.assertEqual(self.content("/etc/agent-vm-image-version"), b"1\n")

        self.relay.forget()
        out, _ = self.run_it("pull", "--quiet")
        self.assertRegex(out, r" [0-9a-f]{12} is up to date\n$")
        self.assertEqual(set(self.relay.blobs()) & set(image.layers), set())

        changed = self.push(new())
        self.relay.forget()
        out, err = self.run_it("pull", "--quiet")
        self.assertEqual(err, "")
        self.assertRegex(out, r" \(was [0-9a-f]{12}; 1 of 3 layers new, ")
        self.assertEqual(set(self.relay.blobs()) & set(changed.layers), {changed.layers[2]})
        second = self.usable()
        self.assertNotEqual((first["digest"], first["disk"]), (second["digest"], second["disk"]))
        # what only the old one had is gone
        self.assertNotIn(image.layers[2], self.kept())
        self.assertEqual(len(list((self.store / "disks").glob("*.ext4"))), 1)
        self.assertEqual(self.run_it("prune", "--dry-run")[0], "nothing to remove\n")

    def test_the_same_layers_give_the_same_disk(self):
        self.push(old())
        self.run_it("pull")
        first = self.usable()["disk"]
        one = sparse_sum(self.store / f"disks/{first}.ext4")
        shutil.rmtree(self.store / "disks")
        out, _ = self.run_it("pull", TZ="Asia/Tokyo")
        self.assertIn("its disk was made again", out)
        self.assertEqual(self.usable()["disk"], first)
        self.assertEqual(sparse_sum(self.store / f"disks/{first}.ext4"), one)

    def test_a_layout_and_an_archive(self):
        image = old()
        image.write(self.work / "layout")
        out, _ = self.run_it("pull", "--image", "oci:layout:x")
        self.assertRegex(out, rf"^oci:{self.work}/layout:x [0-9a-f]{{12}} \(new; 3 of 3 layers new")
        subprocess.run(["tar", "-C", self.work / "layout", "-cf", self.work / "a.tar", "."], check=True)
        out, _ = self.run_it("pull", "--image", f"oci-archive:{self.work}/a.tar")
        self.assertIn("(new; its disk was there)", out)
        self.assertEqual(len(self.images()), 2)

    def test_events(self):
        import json
        image = self.push(old())
        out, err = self.run_it("pull", "--json", "--quiet")
        self.assertEqual(err, "")
        events = [json.loads(line) for line in out.splitlines()]
        names = [e["event"] for e in events]
        self.assertEqual((names[0], names[1], names[-1]), ("start", "manifest", "done"))
        done = {e["digest"]: e for e in events if e["event"] == "layer" and e["got"] == e["size"]}
        self.assertEqual(set(done), set(image.layers))
        self.assertEqual(sum(e["size"] for e in done.values()), image.bytes)
        self.assertEqual(events[-1]["got"], image.bytes)
        self.assertEqual(len(events[-1]["digest"]), 64)


class Refused(Case):
    def setUp(self):
        super().setUp()
        self.push(old())
        self.run_it("pull")
        self.digest = self.usable()["digest"]

    def refused(self, *texts, check=1, words=(), **more):
        out, err = self.run_it("pull", *words, check=check, **more)
        self.assertEqual(out, "")
        last = err.splitlines()[-1]
        self.assertTrue(last.startswith("agent-vm: "), err)
        for text in texts:
            self.assertIn(text, last)
        self.usable(self.digest)
        self.nothing_under_way()

    def test_another_architecture(self):
        self.push(Image(base_layer(), arch=OTHER))
        self.refused(OTHER)

    def test_another_api_version(self):
        self.push(Image(base_layer("2\n")))
        self.refused("its API version is 2, this agent-vm supports 1 to 1", "update agent-vm")

    def test_no_image_of_ours(self):
        self.push(Image(agent_layer("claude")))
        self.refused("has no /etc/agent-vm-image-version", "--image")

    def test_a_garbled_api_version(self):
        self.push(Image(base_layer("one \x1b[1m\n")))
        self.refused("says 'one \\x1b[1m'")

    def test_a_layer_that_was_changed_on_the_way(self):
        image = self.push(new())
        file = self.registry.blob_file(image.layers[2])
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        try:
            self.refused(image.layers[2][:12])
            self.assertNotIn(image.layers[2], self.kept())
        finally:
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        self.run_it("pull")

    def test_hostile_layers(self):
        before = sorted(p.name for p in (self.store / "disks").iterdir())
        for entry, cause, layer in (
                ("a/../../../../etc/cron.d/x", "a name with '..'", file(b"a/../../../../etc/cron.d/x", b"* * * * * root sh")),
                ("/etc/cron.d/x", "an absolute name", file(b"/etc/cron.d/x")),
                ("x", "a hard link to what cannot be", link(b"x", b"/etc/shadow")),
                ("x", "a hard link to what is not there", symlink(b"up", b"../../../../etc") + link(b"x", b"up/shadow")),
                ("n4096", "more than 4096 devices", b"".join(header(b"n%d" % i, BLK, dev=(8, i)) for i in range(4097))),
                ("the entry behind ok", "a broken tar", file(b"ok") + header(b"x", checksum=7)),
                ("x", "a broken tar", header(b"x", size=1 << 30)),
                ("x", "more than 64 GiB", header(b"x", size=65 << 30)),
                ("etc/passwd/x", "lies below something that is not a folder", file(b"etc/passwd") + file(b"etc/passwd/x"))):
            with self.subTest(entry=entry, cause=cause):
                self.push(Image(base_layer(), tar(layer)))
                self.refused("layer 2 (", f"): {entry}: {cause}", "; this image cannot be used")
                self.assertEqual(sorted(p.name for p in (self.store / "disks").iterdir()), before)

    def test_a_link_to_the_root_stays_in_the_image(self):
        mark = pathlib.Path("/agent-vm-pull-test")
        self.push(Image(base_layer(), tar(symlink(b"a", b"/"), symlink(b"b", b"../../.."), file(b"a/agent-vm-pull-test", b"in"),
                                          file(b"b" + os.fsencode(self.work) + b"/x", b"in"))))
        self.run_it("pull")
        self.assertEqual((self.content(mark), self.content(f"{self.work}/x")), (b"in", b"in"))
        self.assertFalse(mark.exists() or (self.work / "x").exists())

    def test_a_stored_layer_that_was_damaged(self):
        # The right size, other bytes: found when a disk is made of it, and loaded again.
        image = self.push(old())
        file = self.store / "blobs/sha256" / image.layers[0]
        data = file.read_bytes()
        file.chmod(0o600)
        file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        shutil.rmtree(self.store / "disks")
        self.relay.forget()
        out, _ = self.run_it("pull")
        self.assertIn("its disk was made again", out)
        self.usable(self.digest)
        self.assertEqual(file.read_bytes(), data)
        self.assertLessEqual({d for d in self.relay.blobs() if d in image.layers}, {image.layers[0]})

    def test_no_such_tag(self):
        self.refused("nosuch", words=("--image", self.ref("nosuch")))

    def test_no_registry(self):
        self.refused("cannot be reached", "agent-vm build needs no registry",
                     words=("--image", f"127.0.0.1:{self.enterContext(nobody())}/x/y:z"))

    def test_words(self):
        self.refused("lower case", check=2, words=("--image", "example.org/Upper"))
        self.refused("127.0.0.1:99999/x/y:z: its port is not a number from 1 to 65535", check=2,
                     words=("--image", "127.0.0.1:99999/x/y:z"))
        self.refused("agent-vm build --tag full", check=2, words=("--image", "localhost/agent-vm:full"))

    def test_setup_without_a_registry(self):
        out, err = self.run_it("setup", "--image", f"127.0.0.1:{self.enterContext(nobody())}/x/y:z", check=1)
        self.assertRegex(out, r"^==> 127\.0\.0\.1:\d+: cannot be reached \(.*\); an equal image can be built here: agent-vm build\n$")
        self.assertNotIn("agent-vm: ", err)


class Verbs(Case):
    """images and prune, and pull by what stands in variables."""

    def test_nothing_is_there_and_nothing_is_made(self):
        self.state.rmdir()
        self.assertEqual(self.run_it("images")[0].split(), "REFERENCE DIGEST API PULLED DISK LAYERS IN USE".split())
        self.assertEqual(self.run_it("images", "--json")[0], "[]\n")
        self.assertEqual(self.run_it("prune")[0], "nothing to remove\n")
        self.assertFalse(self.state.exists())
        self.state.mkdir()

    def test_the_table(self):
        self.push(old())
        self.run_it("pull")
        Image(base_layer(), agent_layer("codex")).write(self.work / "two")
        self.run_it("pull", "--image", "oci:two:x")
        head, one, two = self.run_it("images")[0].splitlines()
        self.assertRegex(one, rf"^{self.ref()}  +[0-9a-f]{{12}}  1    \d+[sm] ago  +\d+\.\d MB  \d+\.\d MB  -$")
        self.assertRegex(two, rf"^oci:{self.work}/two:x  +[0-9a-f]{{12}}  1 ")
        for column in ("DIGEST", "PULLED", "IN USE"):
            self.assertEqual(one[head.index(column) - 1], " ")
            self.assertNotEqual(one[head.index(column)], " ")
        got = self.images()[self.ref()]
        # blocks that are there, not the 16 GiB that the disk is long
        disk = self.store / f"disks/{got['disk']}.ext4"
        self.assertEqual(got["disk_bytes"], disk.stat().st_blocks * 512)
        self.assertLess(got["disk_bytes"], 64 * MB)
        self.assertGreater(got["layer_bytes"], old().bytes)

    def test_by_age(self):
        self.push(old())
        self.run_it("pull")
        Image(base_layer(), agent_layer("codex")).write(self.work / "two")
        self.run_it("pull", "--image", "oci:two:x")
        self.assertEqual(self.run_it("prune")[0], "nothing to remove\n")
        # the one of the variable is kept like the default
        out, _ = self.run_it("prune", "--older-than", "0m")
        self.assertRegex(out, rf"^removed reference  oci:{self.work}/two:x \(unused for \d+[sm]\)\nremoved disk       [0-9a-f]{{12}}  ")
        self.assertEqual(list(self.images()), [self.ref()])
        self.usable()

    def test_layers(self):
        image = self.push(old())
        self.run_it("pull")
        import json
        got = json.loads(self.run_it("prune", "--layers", "--json")[0])
        self.assertEqual({i["name"] for i in got["items"]}, set(image.layers))
        self.assertEqual(got["bytes"], sum(i["bytes"] for i in got["items"]))
        self.usable()
        self.assertRegex(self.run_it("pull")[0], "is up to date\n$")
        self.push(new())
        self.assertRegex(self.run_it("pull")[0], "3 of 3 layers new")

    def test_wrong_words(self):
        for word in ("30", "d", "-1d", "1y", "1.5d", "999999999999d"):
            _, err = self.run_it("prune", f"--older-than={word}", check=2)
            self.assertEqual(err, f"agent-vm: --older-than {word}: not a number with m, h, d or w; for thirty days write "
                                  "--older-than 30d\n")
        _, err = self.run_it("pull", check=2, AGENT_VM_IMAGE_TAG="Not/Right")
        self.assertRegex(err, "^agent-vm: AGENT_VM_IMAGE_TAG: image Not/Right: ")
        _, err = self.run_it("shell", "--", "true", check=2, AGENT_VM_IMAGE_TAG="Not/Right")
        self.assertIn("agent-vm: AGENT_VM_IMAGE_TAG: image Not/Right: ", err)


class Interrupted(Case):
    """Killed at ten places of what comes from the registry; the old image stays, the next pull goes on."""

    PLACES = 10

    def setUp(self):
        super().setUp()
        self.before = self.push(old())
        self.run_it("pull")
        self.digest = self.usable()["digest"]
        # everything is new, and larger
        self.after = self.push(Image(base_layer(size=6 * MB, seed=11), agent_layer("claude", 3 * MB, 12),
                                     agent_layer("codex", 3 * MB, 13)))

    def held(self, place):
        """A pull that waits for bytes after place/PLACES of them."""
        n = self.after.bytes * place // self.PLACES
        self.relay.hold_after(n + 1500)
        p = self.start("pull")
        # both are up and have taken what there is; heads of answers are no bytes of layers
        wait_for(lambda: self.arrived(self.after) >= n - 64 * 1024 and p.poll() is None and len(halves(p.pid)) == 2, 60, f"place {place}")
        return p, halves(p.pid)

    def again(self, place, least):
        self.usable(self.digest)
        self.relay.hold_after(None)
        self.relay.passed = 0
        self.run_it("pull")
        loaded = self.relay.passed
        self.assertNotEqual(self.usable()["digest"], self.digest)
        self.nothing_under_way()
        # what had come was not loaded again: up to what was on its way in buffers
        self.assertLess(loaded, self.after.bytes * (self.PLACES - place + least) // self.PLACES + MB, f"place {place}")
        # back to the start
        self.push(old())
        self.run_it("pull")
        self.run_it("prune")
        self.push(self.after)

    def test_kill_9_of_the_launcher(self):
        for place in range(1, self.PLACES):
            with self.subTest(place=place):
                p, pids = self.held(place)
                p.kill()
                self.end(p, -signal.SIGKILL)
                wait_for(lambda: not [k for k in pids.values() if alive(k)], 60, "a half outlived the launcher")
                self.again(place, 2)

    def test_kill_9_of_a_half(self):
        for place in range(1, self.PLACES, 2):
            for half in ("fetch", "unpack"):
                with self.subTest(place=place, half=half):
                    p, pids = self.held(place)
                    os.kill(pids[half], signal.SIGKILL)
                    out, err = self.end(p, 1)
                    self.assertEqual(out, "")
                    self.assertIn(f"agent-vm: agent-vm-image {half}: ended by signal 9", err)
                    self.assertFalse([k for k in pids.values() if alive(k)])
                    self.again(place, 2)

    def test_ctrl_c(self):
        took = []
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(sig=sig):
                p, pids = self.held(5)
                began = time.monotonic()
                p.send_signal(sig)
                _, err = self.end(p, -sig, 60)
                took.append(time.monotonic() - began)
                self.assertIn("stopped; what was loaded is kept", err)
                self.assertFalse([k for k in pids.values() if alive(k)])
                self.again(5, 2)
        # At once, unless the machine was busy each of the three times.
        self.assertLess(min(took), 5 * SLOW, took)


class Killed(Case):
    """kill -9 at each thing that a pull says: of the launcher, and of each half if it lives then. And of the registry."""

    def setUp(self):
        super().setUp()
        self.push(old(), "old")
        self.run_it("pull", "--image", self.ref("old"))
        self.push(Image(base_layer(size=3 * MB, seed=31), agent_layer("claude", 2 * MB, 32), agent_layer("codex", 2 * MB, 33)))

    def forgotten(self):
        """As before the first pull of this test's image, with the layers that it left."""
        self.run_it("prune", "--older-than", "0m", AGENT_VM_IMAGE_TAG=self.ref("old"))

    def at_event(self, n, victim):
        """Killed behind the nth event. False when the pull has no so many."""
        p = self.start("pull", "--json", "--quiet")
        for _ in range(n):
            if not p.stdout.readline():
                self.end(p, 0)
                return False
        kids = halves(p.pid)
        pid = p.pid if victim == "launcher" else kids.get(victim)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end(p)
        wait_for(lambda: not [k for k in kids.values() if alive(k)], 60, "a half outlived the launcher")
        return True

    def everywhere(self, victim):
        n = 1
        while self.at_event(n, victim):
            with self.subTest(n=n):
                stored = self.images()
                self.assertTrue(all(i["usable"] for i in stored.values()), stored)
                self.assertIn(self.ref("old"), stored)
                self.run_it("pull")
                self.usable()
                self.nothing_under_way()
                self.forgotten()
            n += 1
        # start, manifest, three layers, disk, done
        self.assertGreaterEqual(n, 7)

    def test_the_launcher(self):
        self.everywhere("launcher")

    def test_fetch(self):
        self.everywhere("fetch")

    def test_unpack(self):
        self.everywhere("unpack")

    def test_the_registry_is_restarted(self):
        # Large against what lies in socket buffers, so that something is missing when it dies.
        image = self.push(Image(base_layer(size=30 * MB, seed=41), agent_layer("claude", 30 * MB, 42)))
        for place in 1, 3, 5:
            with self.subTest(place=place):
                self.relay.hold_after(image.bytes * place // 10)
                p = self.start("pull")
                wait_for(lambda n=place: self.relay.passed >= image.bytes * n // 10, 60, "nothing came")
                self.relay.target, self.relay.refused = None, 0
                self.registry.p.kill()
                self.registry.p.wait()
                self.relay.hold_after(None)
                wait_for(lambda: self.relay.refused, 60, "it did not try again")
                self.assertIsNone(p.poll())
                self.registry.start()
                self.relay.target = self.registry.port
                self.end(p, 0)
                self.usable()
                # What had come was not loaded again, up to what was on its way in buffers.
                self.assertLess(self.relay.passed, image.bytes * (10 - place) // 10 + 16 * MB)
                self.forgotten()
                self.run_it("prune")
                shutil.rmtree(self.store / "blobs")


class AtOnce(Case):
    def held(self, name):
        """The lock of the store, exclusively, as another process has it."""
        import fcntl
        self.store.mkdir(mode=0o700, parents=True, exist_ok=True)
        f = open(self.store / name, "w")
        self.addCleanup(f.close)
        fcntl.flock(f, fcntl.LOCK_EX)
        return f

    def test_ctrl_c_while_waiting_for_a_lock(self):
        # Seen to fail with flock(2) that waits: the signal is a descriptor and interrupts nothing.
        self.push(old())
        waits = "    waiting for another pull, build or prune to let go of the image store\n"
        for name in "pulls", "lock":
            for words in ("pull",), ("build", "--base"), ("setup", "--no-verify"):
                with self.subTest(name=name, words=words):
                    if words[0] == "build" and name == "lock":
                        continue  # it comes to that only after minutes of work
                    f = self.held(name)
                    p = self.start(*words)
                    seen = ""
                    while waits not in seen:
                        line = p.stderr.readline()
                        self.assertNotEqual(line, "", seen)
                        seen += line
                    p.send_signal(signal.SIGINT)
                    _, err = self.end(p, -signal.SIGINT, 60)
                    self.assertIn("agent-vm: stopped", err)
                    f.close()
        # And it goes on when the lock is free.
        f = self.held("pulls")
        p = self.start("pull")
        while p.stderr.readline() != waits:
            self.assertIsNone(p.poll())
        f.close()
        self.end(p, 0)
        self.usable()

    def test_a_registry_that_is_slow_to_answer(self):
        self.push(old())
        self.relay.hold_after(0)
        p = self.start("pull")
        self.assertEqual(p.stderr.readline(), f"==> {self.ref()}\n")
        self.assertEqual(p.stderr.readline(), f"    waiting for 127.0.0.1:{self.relay.port} to answer\n")
        self.relay.hold_after(None)
        self.end(p, 0)

    def test_two_pulls_load_each_blob_once(self):
        image = self.push(old())
        self.relay.hold_after(image.bytes // 3)
        both = [self.start("pull") for _ in range(2)]
        wait_for(lambda: self.relay.passed >= image.bytes // 3 and all("fetch" in halves(p.pid) for p in both), 60, "nothing came")
        self.relay.hold_after(None)
        for p in both:
            self.end(p, 0)
        self.usable()
        self.assertEqual(sorted(d for d in self.relay.blobs() if d in image.layers), sorted(image.layers))
        self.assertEqual(len(list((self.store / "disks").glob("*"))), 2)
        self.nothing_under_way()

    def test_prune_during_a_pull(self):
        image = self.push(old())
        stop = threading.Event()
        seen = []

        def prune():
            while not stop.is_set():
                seen.append(self.run_it("prune"))

        self.relay.hold_after(image.bytes // 2)
        p = self.start("pull")
        wait_for(lambda: self.relay.passed >= image.bytes // 2, 60, "nothing came")
        t = threading.Thread(target=prune)
        t.start()
        wait_for(lambda: len(seen) >= 2, 60, "no prune")
        self.relay.hold_after(None)
        self.end(p, 0)
        stop.set()
        t.join()
        self.usable()
        self.assertLessEqual(set(image.layers), self.kept())
        self.assertTrue(any("a pull is under way" in err for _, err in seen), seen[:3])

    def test_prune_takes_what_was_given_up(self):
        image = self.push(old())
        self.relay.hold_after(image.bytes // 2)
        p = self.start("pull")
        wait_for(lambda: self.arrived(image) >= image.bytes // 2 - 64 * 1024 and len(halves(p.pid)) == 2, 60, "nothing came")
        roles = halves(p.pid)
        p.kill()
        self.end(p)
        # What has arrived is still written down by fetch, and would be newer than the time that is set below.
        wait_for(lambda: not any(alive(r) for r in roles.values()), 60, "its halves live on")
        wait_for(lambda: "temporary" in self.run_it("prune", "--dry-run")[0], 60, "the disk that was being made")
        for partial in (self.store / "partial").glob("[0-9a-f]*"):
            os.utime(partial, (time.time() - 8 * 86400,) * 2)
        dry, _ = self.run_it("prune", "--dry-run")
        wet, _ = self.run_it("prune")
        self.assertEqual(dry.replace("would remove", "removed").replace("would be free", "free now"), wet)
        self.assertIn("partial", wet)
        self.assertEqual(list((self.store / "tmp").glob("*")), [])
        self.assertEqual(self.run_it("prune")[0], "nothing to remove\n")


class Streams(Case):
    """pull --image -"""

    def archive(self, image, name):
        image.write(self.work / "layout")
        index = self.work / "layout/index.json"
        index.write_text(index.read_text().replace('"x"', f'"{name}"'))
        subprocess.run(["tar", "-C", self.work / "layout", "-cf", self.work / "a.tar", "."], check=True)
        shutil.rmtree(self.work / "layout")
        return self.work / "a.tar"

    def pipe(self, file, check=0, words=()):
        with subprocess.Popen(["cat", file], stdout=subprocess.PIPE) as cat:
            p = subprocess.Popen([AGENT_VM, "pull", "--image", "-", *words], env=self.env(), cwd=self.work, text=True,
                                 stdin=cat.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            cat.stdout.close()
            return self.end(p, check)

    def test_names_of_archives_replace_nothing(self):
        # Seen to fail with the archive's own name as the reference.
        self.push(old())
        self.run_it("pull")
        digest = self.usable()["digest"]
        for name in self.ref(), "localhost/agent-vm:default", "latest", "V1", "me/mine:1":
            out, _ = self.pipe(self.archive(Image(base_layer(seed=7)), name))
            self.assertRegex(out, rf"^stdin:{name} [0-9a-f]{{12}} \(new; ")
        self.usable(digest)
        self.assertEqual(set(self.images()), {self.ref()} | {"stdin:" + n for n in (
            self.ref(), "localhost/agent-vm:default", "latest", "V1", "me/mine:1")})
        _, err = self.pipe(self.archive(Image(base_layer(seed=7)), "a b"), check=2)
        self.assertIn("names no image", err)
        _, err = self.run_it("pull", "--image", "stdin:me/mine:1", check=2)
        self.assertIn("agent-vm pull --image -", err)
        _, err = self.run_it("shell", "--image", "stdin:other", "--", "true", check=1)
        self.assertIn("image stdin:other: not in the store; pipe it in with: agent-vm pull --image -", err)

    def test_a_huge_environment_is_refused_before_anything_is_loaded(self):
        self.push(old())
        self.run_it("pull")
        image = self.push(Image(base_layer(seed=9), env=[f"V{i}=" + "\x01" * 1000 for i in range(70)]))
        self.relay.forget()
        _, err = self.run_it("pull", check=1)
        self.assertIn("more than 64 KiB of environment (Env)", err.splitlines()[-1])
        self.assertFalse(set(self.relay.blobs()) & set(image.layers))
        # The most that is taken can be stored.
        self.push(Image(base_layer(seed=9), env=[f"V{i:02}=" + "\x01" * 1000 for i in range(64)]))
        self.run_it("pull")
        self.usable()


class InTmpfs(Case):
    """In a mount namespace of its own with a tmpfs under the state root."""

    def in_tmpfs(self, size, script):
        words = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
        p = subprocess.run([*words, "sh", "-ec", f"mount -t tmpfs -o size={size},mode=0700 none '{self.state}'\ncd /\n{script}"],
                           env=self.env(AGENT_VM=AGENT_VM, WORK=str(self.work)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, timeout=600 * SLOW)
        return p


class FullDisk(InTmpfs):
    """The tmpfs is a small one."""

    def test_too_little_room_is_said_before_anything_is_loaded(self):
        image = self.push(old())
        p = self.in_tmpfs("200m", "r=0; \"$AGENT_VM\" pull || r=$?; find \"$AGENT_VM_STATE_DIR\" -name '*.ext4' >&2; exit $r")
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertRegex(p.stderr, r"agent-vm: .*/images: \d+ MB are free and image .* needs \d+ MB \(\d+ to load, \d+ for its disk\); ")
        self.assertNotIn(".ext4\n", p.stderr)
        self.assertEqual(set(self.relay.blobs()) & set(image.layers), set())

    def test_standard_input_does_not_fill_the_disk(self):
        p = self.in_tmpfs("400m", """
r=0; head -c 300000000 /dev/urandom | "$AGENT_VM" pull --image - || r=$?
df -B1 --output=avail "$AGENT_VM_STATE_DIR" | tail -1
exit $r""")
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertRegex(p.stderr.splitlines()[-1], r"^agent-vm: image store: \d+ MB of standard input are here and \d+ MB are left")
        self.assertGreater(int(p.stdout), 390 << 20)

    def bomb(self, folder):
        """A layout with one small layer that holds much: 900 MB in some 30 KB."""
        blobs = folder / "blobs/sha256"
        blobs.mkdir(parents=True)
        raw, packed = hashlib.sha256(), folder / "packed"
        with open(packed, "wb") as out, subprocess.Popen(["zstd", "-q", "-1", "-c"], stdin=subprocess.PIPE, stdout=out) as zstd:
            def write(data):
                raw.update(data)
                zstd.stdin.write(data)
            base = base_layer(size=1000).rstrip(b"\0")
            write(base.ljust(-(-len(base) // 512) * 512, b"\0"))  # without the end of the archive
            info = tarfile.TarInfo("ones")
            info.size = 900 << 20
            write(info.tobuf())
            for _ in range(900):
                write(b"\1" * MB)
            write(bytes(1024))
            zstd.stdin.close()

        def put(data, kind):
            digest = hashlib.sha256(data).hexdigest()
            (blobs / digest).write_bytes(data)
            return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest, "size": len(data)}

        layer = put(packed.read_bytes(), "layer.v1.tar+zstd")
        self.assertLess(layer["size"], 200_000)
        config = put(json.dumps({"architecture": ARCH, "os": "linux", "config": {}, "rootfs": {
            "type": "layers", "diff_ids": ["sha256:" + raw.hexdigest()]}}).encode(), "config.v1+json")
        entry = put(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(), "manifest.v1+json")
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def test_a_layer_does_not_fill_the_disk(self):
        # What it expands to is known when it is there. Seen to fail without the look at each tick: nothing was left.
        self.bomb(self.work / "bomb")
        for _ in range(3):  # a launcher that a busy machine lets stand does not look meanwhile
            (self.work / "over").unlink(missing_ok=True)
            p = self.in_tmpfs("600m", f"""
/usr/bin/python3 -c '
import os, time
least = 1 << 60
while not os.path.exists("{self.work}/over"):
    v = os.statvfs("{self.state}")
    least = min(least, v.f_bavail * v.f_frsize)
    time.sleep(0.002)
print(least)' &
r=0; "$AGENT_VM" pull --image oci:{self.work}/bomb || r=$?
touch {self.work}/over; wait
df -B1 --output=avail "$AGENT_VM_STATE_DIR" | tail -1
exit $r""")
            if int(p.stdout.split()[0]) > 32 << 20:
                break
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertRegex(p.stderr.splitlines()[-1], r"^agent-vm: .*/images: \d+ MB are left on this disk, no room for the disk of image oci:.*; "
                                                    r"make room \(agent-vm prune --dry-run lists what can go\)")
        least, after = map(int, p.stdout.split())
        self.assertGreater(least, 32 << 20)
        self.assertGreater(after, 560 << 20)

    def test_prune_says_what_df_says(self):
        # A disk with its record, layers, documents, a reference, a partial download, a dead session with its overlay.
        image = self.push(old())
        p = self.in_tmpfs("900m", """
cd "$AGENT_VM_STATE_DIR"
# what was recorded of the dead session is new, and no room that was wasted
free() { echo $(( $(df -B1 --output=avail . | tail -1) + $(du -sB1 run/logs | cut -f1) )); }
"$AGENT_VM" pull --quiet >&2
export AGENT_VM_IMAGE_TAG=x.example/other:1
head -c 100000 /dev/urandom > images/partial/""" + "0" * 64 + """
touch -d '9 days ago' images/partial/*
mkdir -p -m 700 run/sessions/agent-vm-0123456789ab-1/sub
head -c 3000000 /dev/urandom > run/sessions/agent-vm-0123456789ab-1/sub/overlay
"$AGENT_VM" prune --dry-run --older-than 0m --json > "$WORK/dry"
before=$(free)
"$AGENT_VM" prune --older-than 0m --json > "$WORK/wet"
echo $(( $(free) - before ))
cat "$WORK/dry" "$WORK/wet"
""")
        self.assertEqual(p.returncode, 0, p.stderr)
        import json
        freed, rest = p.stdout.split("\n", 1)
        dry, at = json.JSONDecoder().raw_decode(rest)
        wet, _ = json.JSONDecoder().raw_decode(rest[at:].lstrip())
        self.assertEqual(dry["bytes"], wet["bytes"])
        self.assertEqual([i["bytes"] for i in dry["items"]], [i["bytes"] for i in wet["items"]])
        self.assertEqual({i["kind"] for i in wet["items"]}, {"reference", "disk", "layer", "partial"})
        self.assertEqual(len(wet["sessions"]), 1, p.stdout)
        self.assertEqual(wet["bytes"], int(freed))
        self.assertGreater(wet["bytes"], image.bytes * 2)

    def test_the_disk_fills_up_at_ten_places(self):
        # The filler takes the last byte while the registry holds, so that either half can be the first to meet it.
        self.push(old(), "old")
        image = self.push(Image(base_layer(size=20 * MB, seed=51), agent_layer("claude", 10 * MB, 52)))
        for place in range(10):
            with self.subTest(place=place):
                held, full = self.work / f"held{place}", self.work / f"full{place}"
                limit = image.bytes * place // 10 + 3000

                def steer(limit=limit, held=held, full=full):
                    # the old one first: its bytes do not count
                    wait_for(lambda: (self.work / held.name.replace("held", "old")).exists(), 60, "no old image")
                    self.relay.hold_after(limit)
                    (self.work / held.name.replace("held", "go")).touch()
                    wait_for(lambda: self.relay.passed >= limit, 60, "nothing came")
                    held.touch()
                    wait_for(full.exists, 60, "not filled")
                    self.relay.hold_after(None)
                t = threading.Thread(target=steer)
                t.start()
                p = self.in_tmpfs("600m", f"""
until_there() {{ until test -e "$1"; do sleep 0.05; done; }}
"$AGENT_VM" pull --quiet --image {self.ref("old")} >&2
touch {self.work}/old{place}
until_there {self.work}/go{place}
(until_there {held}; cat /dev/zero > "$AGENT_VM_STATE_DIR/filler" 2>/dev/null || :; touch {full}) &
r=0; "$AGENT_VM" pull --quiet || r=$?
echo "first: $r" >&2
wait
"$AGENT_VM" images --json
rm "$AGENT_VM_STATE_DIR/filler"
"$AGENT_VM" pull --quiet >&2
""")
                t.join()
                self.assertEqual(p.returncode, 0, p.stderr)
                self.assertIn("first: 1\n", p.stderr)
                line = p.stderr.split("first: 1\n")[0].splitlines()[-1]
                self.assertRegex(line, r"(?i)^agent-vm: .*(no space left|no room|full)", p.stderr)
                self.assertIn(self.ref("old"), p.stdout)
                self.assertIn('"usable": true', p.stdout)
                self.assertNotIn(self.ref() + '"', p.stdout)

    def test_the_disk_of_the_image_fills_it(self):
        # A layer of 1 MB that unpacks to more than there is: the estimate is passed, the unpacker meets the end.
        self.push(Image(base_layer(), layer({"big": b"0123456789abcdef" * (21 << 20)})))
        p = self.in_tmpfs("330m", """
r=0; "$AGENT_VM" pull --quiet || r=$?
"$AGENT_VM" images --json
"$AGENT_VM" prune --json
exit $r""")
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertRegex(p.stderr.splitlines()[-1], r"(?i)^agent-vm: .*(no space left|no room|full)", p.stderr)
        self.assertTrue(p.stdout.startswith("[]"), p.stdout)

    def test_the_disk_fills_up_in_mid_pull(self):
        # Another program takes the room when the check is over; then there is room again.
        image = self.push(Image(base_layer(size=30 * MB, seed=21), agent_layer("claude", 30 * MB, 22)))
        self.relay.hold_after(image.bytes // 8)
        full = self.work / "full"

        def steer():
            wait_for(full.exists, 120, "not filled")
            self.relay.hold_after(None)
        t = threading.Thread(target=steer)
        t.start()
        p = self.in_tmpfs("700m", f"""
(until ls "$AGENT_VM_STATE_DIR"/images/partial/[0-9a-f]* >/dev/null 2>&1; do sleep 0.1; done
 cat /dev/zero > "$AGENT_VM_STATE_DIR/filler" 2>/dev/null || :; touch {full}) &
r=0; "$AGENT_VM" pull || r=$?
echo "first: $r" >&2
wait
rm "$AGENT_VM_STATE_DIR/filler"
"$AGENT_VM" pull --quiet
""")
        t.join()
        self.assertIn("first: 1\n", p.stderr)
        first = p.stderr.split("first: 1\n")[0].splitlines()[-1]
        self.assertRegex(first, r"(?i)^agent-vm: .*(no space left|no room|full)", p.stderr)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("(new; ", p.stdout)


class Large(InTmpfs):
    """Content that only shows its size when it is unpacked. Slow: each byte of it is decompressed and hashed. On a tmpfs,
    since a host's disk takes minutes to free so many pieces."""
    PIECE = (b"\1" + bytes(65535)) * 1024  # takes all of its blocks on the disk, but a sixteenth of them on the host

    def image(self, piece, n):
        """One large file."""
        image = Image(base_layer(), agent_layer("claude"))
        info = tarfile.TarInfo("large")
        info.size = len(piece) * n
        total, blob = hashlib.sha256(), b""
        for part, times in (info.tobuf(tarfile.GNU_FORMAT), 1), (piece, n), (bytes(1024), 1):
            blob += subprocess.run(["zstd", "-qc"], input=part, stdout=subprocess.PIPE, check=True).stdout * times
            for _ in range(times):
                total.update(part)
        config = json.loads(image.config)
        config["rootfs"]["diff_ids"].append("sha256:" + total.hexdigest())
        image.config = json.dumps(config).encode()
        image.packed.append(blob)
        self.assertLess(len(blob), 10 * MB)
        return self.push(image)

    def pulled(self, image):
        """Twice; (size of the disk, KiB that it takes, what the second pull said)"""
        self.image(*image)
        p = self.in_tmpfs("3g", """
"$AGENT_VM" pull --quiet >/dev/null
cd "$AGENT_VM_STATE_DIR/images"
stat -c '%s' disks/*.ext4; du -k disks/*.ext4 | cut -f1; ls tmp >&2
"$AGENT_VM" pull --quiet
""")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(p.stderr, "")
        size, kib, again = p.stdout.splitlines()
        return int(size), int(kib), again

    def test_ten_gigabytes_of_zeros_take_no_room(self):
        size, kib, again = self.pulled((bytes(64 * MB), 160))
        self.assertEqual(size, 16 << 30)
        self.assertLess(kib, 20 << 10)
        self.assertRegex(again, "is up to date")

    def test_more_than_a_disk_holds_gets_a_larger_one(self):
        size, _, again = self.pulled((self.PIECE, 272))
        self.assertEqual(size, 32 << 30)
        self.assertRegex(again, "is up to date", "the second pull finds the larger disk")


if __name__ == "__main__":
    for tool in ("docker-registry", "skopeo", "e2fsck", "debugfs"):
        if not shutil.which(tool) and not os.access(f"/sbin/{tool}", os.X_OK):
            sys.exit(f"{tool}: not found; install what is needed with: tools/deps check")
    os.environ["PATH"] += ":/sbin:/usr/sbin"
    # What the relay's threads hold at the end of a test is closed with them.
    unittest.main(verbosity=2, warnings="ignore")
