"""The guest's network in a small world (world.py): the public internet, a LAN, a metadata service, and this host."""
import os
import pathlib
import signal
import subprocess
import time

import world as w
from vmtest import AGENT_VM, BOOT_S, SLOW, Case, alive, children, comm, environment, wait_for

HERE = pathlib.Path(__file__).resolve().parent

# get NAME PORT: the page, or why not, and that it took no time
HELPERS = r"""
ms() { echo $(( ${EPOCHREALTIME/./} / 1000 )); }
get() { (exec 3<>/dev/tcp/$1/$2 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && tail -n 1 <&3) 2>&1 | sed 's/.*: //' | tail -n 1; }
"""


class InWorld(Case):
    def world(self, *words, check=0, world=None, program=AGENT_VM, **kw):
        p = subprocess.run(["/usr/bin/python3", HERE / "world.py", self.top, "--", program, *map(str, words)], cwd=self.project,
                           env=environment(AGENT_VM_IMAGE_TAG=os.environ["AGENT_VM_IMAGE_TAG"], **(world or {})), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, **{"timeout": BOOT_S, **kw})
        self.assertEqual(p.returncode, check, p.stderr.decode(errors="replace"))
        self.stderr = p.stderr.decode()
        return p.stdout.decode()

    def sh(self, script, *options, **kw):
        return self.world("shell", *options, "--", "-c", HELPERS + script, **kw)

    def seen(self):
        return sorted(set((self.top / "seen").read_text().split("\n")) - {""})


class Network(InWorld):
    def test_the_public_internet_and_nothing_else(self):
        out = self.sh("get www.test 80; get 45.0.0.10 5000; get 192.168.77.20 80; get 192.168.77.10 8080; get 10.99.0.1 8080;"
                      "get 169.254.169.254 80; get 127.0.0.1 8080; get host.agent-vm.internal 8080; get 45.0.0.10 22;"
                      "getent ahostsv4 rebind.test || echo none; getent ahostsv4 both.test | cut -d' ' -f1 | sort -u;"
                      "get 2002:c0a8:4d14::1 80; get ::ffff:192.168.77.20 80;"
                      "for n in agent-vm microsandbox; do getent ahostsv4 host.$n.internal | cut -d' ' -f1 | sort -u; done")
        refused = "Connection refused"
        self.assertEqual(out.split("\n")[:9], ["this is public", "this is public", *[refused] * 7])
        self.assertEqual(out.split("\n")[9:11], ["none", "45.0.0.10"])
        self.assertNotIn("this is", "".join(out.split("\n")[11:]))
        self.assertEqual(out.split("\n")[-3:], ["192.0.0.1", "192.0.0.1", ""])
        self.assertEqual(self.seen(), ["public 45.0.0.10:5000", "public 45.0.0.10:80"])
        self.assertIn("    network   public internet only\n", self.stderr)
        denied = self.world("logs", "--denied")
        self.assertIn("192.168.77.20:80", denied)
        self.assertIn("--allow-egress 192.168.77.20:80", denied)
        self.assertIn("169.254.169.254:80", denied)

    def test_ipv6_is_public_only_too(self):
        """Each address answers this host; the guest reaches the public ones, and is told of the others at once that it may not."""
        both = {"WORLD_FAMILIES": "46"}
        host = [f"{a} 8080" for a in (w.HOST6, w.HOST_LAN6, "host.agent-vm.internal")]
        refused = [f"{a} 80" for a in (*w.REFUSED6, f"::ffff:{w.LAN}", f"::ffff:{w.META}")] + host
        direct = [t for t in refused if "host." not in t]
        out = self.world("-c", HELPERS + "".join(f"get {t};" for t in direct), program="bash", world=both)
        pages = set(out.split("\n")) - {""}
        self.assertEqual(pages, {"this is refused", "this is lan", "this is metadata", "this is host"}, out)
        self.assertEqual(out.count("this is"), len(direct))
        (self.top / "seen").write_text("")

        out = self.sh("grep eth0 /proc/net/if_inet6; grep -c '^0\\{32\\} 00 .* eth0$' /proc/net/ipv6_route;"
                      f"get www.test 80; get {w.PUBLIC6} 5000; get {w.NAT64} 80; get six.test 80;"
                      "getent ahosts www.test | cut -d' ' -f1 | uniq;"
                      "getent ahosts both.test | cut -d' ' -f1 | sort -u; getent ahosts rebind.test || echo none;"
                      "s=$(ms); get lame.test 80; echo lame $(( $(ms) - s )) ms;"
                      f"for p in 22 25 53; do get {w.PUBLIC6} $p; done; get ::1 8080; get fe80::1%eth0 80; echo refused; s=$(ms);"
                      + "".join(f"get {t};" for t in refused) + "echo took $(( $(ms) - s )) ms", world=both)
        lines = out.split("\n")
        address, route, *pages = lines[:6]
        addr, _, *rest = address.split()
        self.assertEqual([addr, *rest], ["fd6b91d43e0700000000000000000002", "40", "00", "82", "eth0"])  # permanent, no DAD
        self.assertEqual(route, "1")
        self.assertEqual(pages, ["this is public"] * 4)
        self.assertEqual(lines[6:11], [w.PUBLIC, w.PUBLIC6, w.PUBLIC6, w.PUBLIC, "none"])
        self.assertEqual(lines[11], "this is public")
        self.assertLess(int(lines[12].split()[1]), 5000 * SLOW)
        self.assertEqual(lines[13:17], ["Connection refused"] * 4)
        self.assertNotIn("this is", lines[17])
        self.assertEqual(lines[18], "refused")
        self.assertEqual(lines[19:-2], ["Connection refused"] * len(refused), out)
        self.assertLess(int(lines[-2].split()[1]), 60000 * SLOW)  # one that is not answered would take more than a minute
        self.assertEqual(self.seen(), [f"public {w.PUBLIC}:80", f"public [{w.PUBLIC6}]:5000", f"public [{w.PUBLIC6}]:80",
                                       f"public [{w.NAT64}]:80"])
        denied = self.world("logs", "--denied", world=both)
        self.assertIn(f"tcp [{w.LAN6}]:80  private network  --allow-egress [{w.LAN6}]:80\n", denied)

    def test_a_host_with_ipv6_alone(self):
        six = {"WORLD_FAMILIES": "6"}
        out = self.sh("getent ahosts www.test | cut -d' ' -f1 | uniq; get www.test 80; s=$(ms); get 45.0.0.10 80; get 192.168.77.20 80;"
                      f"echo $(( $(ms) - s < 30000 )); get {w.LAN6} 80; get host.agent-vm.internal 8080; get lame.test 22",
                      "--allow-host", world=six)
        lines = out.split("\n")
        self.assertEqual(lines, [w.PUBLIC6, "this is public", "Network is unreachable", "Connection refused", "1",
                                 "Connection refused", "this is host", "Connection refused", ""])
        self.assertEqual(self.seen(), ["host 127.0.0.1:8080", f"public [{w.PUBLIC6}]:80"])

    def test_flags_open_what_they_say(self):
        out = self.sh("get 192.168.77.20 80; get 192.168.77.10 8080; get 169.254.169.254 80", "--allow-lan")
        self.assertEqual(out, "this is lan\nConnection refused\nConnection refused\n")
        self.assertIn("    network   public internet, LAN\n", self.stderr)
        out = self.sh("get host.agent-vm.internal 8080; get 192.168.77.10 8080; get 192.168.77.20 80", "--allow-host")
        self.assertEqual(out, "this is host\nthis is host\nConnection refused\n")
        out = self.sh("get 192.168.77.20 80; get 192.168.77.20 81; get 45.0.0.10 22", "--allow-egress", "192.168.77.20:80",
                      "--allow-ssh", "www.test")
        self.assertEqual(out.split("\n")[0], "this is lan")
        self.assertEqual(out.split("\n")[1], "Connection refused")

    def test_names_in_rules(self):
        """A name that only this host's files know opens its address, for that name; one that nobody knows stops the launch."""
        out = self.sh("get hosts-only.test 80; get 192.168.77.20 81", "--allow-egress", "hosts-only.test:80")
        self.assertEqual(out, "this is lan\nConnection refused\n")
        self.assertIn("    network   public internet, hosts-only.test port 80\n", self.stderr)
        start = time.monotonic()
        self.world("shell", "--allow-egress", "nowhere.test:80", "--allow-ssh", "neither.test", "--allow-egress", "www.test", "--",
                   "true", check=1)
        self.assertLess(time.monotonic() - start, 30 * SLOW)
        self.assertEqual(self.stderr.split("\n")[:3], [
            "agent-vm: --allow-egress nowhere.test:80: nowhere.test does not resolve on this host; check the spelling, or write "
            "its address",
            "agent-vm: --allow-ssh neither.test: neither.test does not resolve on this host; check the spelling, or write its "
            "address",
            "agent-vm: 2 problems, nothing was started"])

    def test_mistakes_are_told_together_and_nothing_boots(self):
        """Bad addresses, ports out of range, a name that is not, publishes that clash, an address of somebody else: one line each,
        in the order typed, with what to do."""
        options = ["publish 0:80", "publish 80:99999", "publish 3000:3000", "publish 127.0.0.1:3000:3001", "allow-egress 300.1.1.1",
                   "allow-egress 10.0.0.1:70000", "allow-egress 127.0.0.1", "allow-egress nowhere.test:80", "publish 192.0.2.7:4:4",
                   "allow-egress www.test:80"]
        words = [word for o in options for word in f"--{o}".split()]
        begin = time.monotonic()
        self.world("shell", *words, "true", check=2)
        self.assertLess(time.monotonic() - begin, 30 * SLOW)
        self.assertEqual(self.stderr.splitlines(), ["agent-vm: " + l for l in (
            "--publish 0:80: 0 is no port; ports are 1 to 65535",
            "--publish 80:99999: 99999 is no port; ports are 1 to 65535",
            "--publish 127.0.0.1:3000:3001: port 3000 of this host is published by --publish 3000:3000 already; choose another one",
            "--allow-egress 300.1.1.1: not IP, CIDR or NAME with an optional :PORT; write it as 192.168.1.10:5432, 10.0.0.0/8, "
            "db.example or [fd12::1]:5432",
            "--allow-egress 10.0.0.1:70000: 70000 is no port; ports are 1 to 65535",
            "--allow-egress 127.0.0.1: nothing can open this address; leave the option out",
            "--allow-egress nowhere.test:80: nowhere.test does not resolve on this host; check the spelling, or write its address",
            "--publish 192.0.2.7:4:4: 192.0.2.7 is no address of this host; choose one that 'ip address' shows, or leave it out",
            "8 problems, nothing was started")])
        many = [word for i in range(65) for word in ("--publish", f"{20000 + i}:80")]
        many += [word for i in range(257) for word in ("--allow-egress", f"10.0.0.1:{1 + i}")]
        self.world("shell", *many, "true", check=2)
        self.assertEqual(self.stderr.splitlines(), ["agent-vm: " + l for l in (
            "--publish: more than 64 of them; leave some out", "--allow-egress and --allow-ssh: 257 of them; at most 256 are possible",
            "2 problems, nothing was started")])
        self.assertEqual(self.seen(), [])

    def test_names_when_no_resolver_answers(self):
        out = self.sh("echo up", "--allow-egress", "slow.test:80", world={"WORLD_RESOLVER": "192.168.77.99"})
        self.assertEqual(out, "up\n")
        self.assertIn("agent-vm: warning: --allow-egress slow.test:80: no resolver of this host answered for slow.test; it opens what "
                      "the session's names give later\n", self.stderr)

    def test_without_ipv6_and_quic_past_a_proxy_fail_at_once(self):
        """A host without IPv6 gives the guest none; UDP 443 to public addresses would go past the proxy."""
        at_once = ("t() { (exec 3<>/dev/$1 && s=${EPOCHREALTIME/./} && echo x >&3; read -t 30 -u 3; e=${EPOCHREALTIME/./}; "
                   "echo $((e - s < 20000000))) 2>&1 | tail -n 1; };")
        out = self.sh("grep -c eth0 /proc/net/if_inet6; getent ahosts www.test | cut -d' ' -f1 | sort -u; "
                      "get 2a0e:b107::10 80;" + at_once + "t udp/45.0.0.10/443; t udp/45.0.0.10/444",
                      world={"WORLD_ENV": "https_proxy=127.0.0.1:3128"})
        self.assertEqual(out.split("\n"), ["0", "45.0.0.10", "Network is unreachable", "1", "1", ""])
        denied = self.world("logs", "--denied")
        self.assertIn("udp 45.0.0.10:443", denied)
        self.assertNotIn("udp 45.0.0.10:444", denied)  # refused by the far end, which has nobody there

    def test_the_hosts_proxy(self):
        """Public TCP goes by it, with the address that was judged; its password is in no table, log, command line or guest."""
        secret = {"WORLD_ENV": "https_proxy=http://alice:pa%20ss@proxy.test:3128 no_proxy=45.0.0.10:5000"}
        out = self.sh("get www.test 80; get 45.0.0.10 5000; get 192.168.77.20 80; get inside.corp.test 80; env | grep -ci proxy; "
                      "getent ahostsv4 inside.corp.test | cut -d. -f1,2 | sort -u", world=secret)
        self.assertEqual(out.split("\n"), ["this is public", "this is public", "Connection refused", "this is public", "0",
                                           "198.19", ""])
        self.assertIn("    network   public internet, by proxy http://proxy.test:3128, which resolves names this host cannot\n",
                      self.stderr)
        self.assertEqual([s for s in self.seen() if s.startswith("proxy")],
                         ["proxy 45.0.0.10:80 alice", "proxy inside.corp.test:80 alice"])
        audit = self.world("logs", "--role", "audit")
        self.assertRegex(audit, r"tcp  45\.0\.0\.10:80 \(www\.test\)  allow  up \d+ B  down \d+ B  \d+ ms  fin")
        for text in (self.stderr, audit, self.world("logs"), self.world("logs", "--json")):
            for bad in ("pa ss", "pa%20ss", "YWxpY2U"):
                self.assertNotIn(bad, text)
        self.world("shell", "--", "true", check=1, world={"WORLD_ENV": "https_proxy=http://proxy.nowhere.test"})
        self.assertIn("agent-vm: https_proxy: proxy.nowhere.test does not resolve on this host; correct or unset it, or use "
                      "--no-network\n", self.stderr)
        self.sh("true", world={"WORLD_ENV": "all_proxy=socks5://127.0.0.1:1080"})
        self.assertIn("all_proxy: a proxy of kind socks5 is not supported; going direct", self.stderr)

    def test_the_self_probe_leaves_nothing_in_denied(self):
        self.sh("get 192.168.77.20 80")
        self.assertEqual([l.split("  ")[2] for l in self.world("logs", "--denied").splitlines()], ["tcp 192.168.77.20:80"])
        self.assertIn("self-probe", self.world("logs", "--role", "audit"))

    def test_no_network_is_none(self):
        out = self.sh("get 45.0.0.10 80; get www.test 80; cat /sys/class/net/eth0/operstate;"
                      "getent hosts host.agent-vm.internal host.microsandbox.internal | tr -s ' ' '\\n'", "--no-network")
        self.assertNotIn("this is", out)
        names, found = ["host.agent-vm.internal", "host.microsandbox.internal"], out.split("down\n")[1].split()
        self.assertEqual((found[1:3], found[4:]), (names, names))
        self.assertLessEqual({found[0], found[3]}, {"192.0.0.1", "fd6b:91d4:3e07::1"})
        self.assertEqual(self.seen(), [])
        for row in ("login     none", "github    none; there is no network", "network   none"):
            self.assertIn(f"    {row}\n", self.stderr)

    def test_bytes_both_ways_and_half_closes(self):
        out = self.sh("exec 3<>/dev/tcp/www.test/80; printf 'GET /big HTTP/1.0\\r\\n\\r\\n' >&3; tail -c 8388608 <&3 | tr -d x | wc -c;"
                      "for i in 1 2 3 4; do (exec 3<>/dev/tcp/www.test/5000; (head -c 2000000 /dev/zero | tr '\\0' y >&3) &"
                      " head -c 2000000 <&3 | tr -d y | wc -c) & done; wait")
        self.assertEqual(out.split(), ["0"] * 5)

    def test_a_network_process_that_dies_ends_the_session(self):
        for role in ("wire", "vault"):
            with self.subTest(role=role):
                p = subprocess.Popen([AGENT_VM, "shell", "--", "-c", "echo up; exec sleep 600"], cwd=self.project,
                                     env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                self.assertEqual(p.stdout.readline(), b"up\n")
                kids = children(p.pid)
                victim = [k for k in kids if comm(k) == f"agent-vm-{role}"]
                self.assertEqual(len(victim), 1)
                start = time.monotonic()
                os.kill(victim[0], signal.SIGKILL)
                err = p.communicate(timeout=60 * SLOW)[1].decode()
                self.assertLess(time.monotonic() - start, 5 * SLOW)
                self.assertEqual(p.returncode, 1, err)
                self.assertIn("network process (", err)
                wait_for(lambda: not any(alive(k) for k in kids), 60, "left behind")
