"""Real programs in the guest against real servers, through wire and vault, both families: curl, git, node, Python, ssh, dig, host,
nc, ping.

The small image has none of them, so the host's own are put into the project with what they load, and the guest's root is
changed to there.
"""
import hashlib
import os
import pathlib
import pwd
import re
import shlex
import shutil
import subprocess
import unittest

import world as w
from test_network import HERE, InWorld
from vmtest import BOOT_S, SLOW

ROOT = r"""
set -e
cd "$P/root"; mkdir -p etc dev proc tmp
cp /etc/resolv.conf /etc/hosts /etc/passwd etc/; echo 'hosts: files dns' > etc/nsswitch.conf
cp ../ca.pem ../other.pem ../key etc/; chmod 600 etc/key
mount --bind /dev dev; mount -t proc proc proc
set +e
run() { timeout 600 chroot . "$@" 2>&1; }
is() { printf '== %s\n' "$1"; local s=$(ms); "$2"; printf '\n== %s\n' $(( $(ms) - s )); }
sum() { sha256sum | cut -d' ' -f1; }
zeros() { head -c 3000000 /dev/zero; }
ssh() { run ssh -F /dev/null -i /etc/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR "$@"; }
export HOME=/tmp GIT_SSL_CAINFO=/etc/ca.pem NODE_EXTRA_CA_CERTS=/etc/ca.pem
"""
PROGRAMS = ["curl", "git", "node", "/usr/lib/git-core/git", "/usr/lib/git-core/git-remote-https", "ssh", "dig", "host", "nc", "ping",
            "/usr/bin/python3"]
PYTHON = f"""
import socket, ssl, urllib.request
context = ssl.create_default_context(cafile="/etc/ca.pem")
print(urllib.request.urlopen("https://www.test/", context=context).read().decode().strip())
for address in {w.PUBLIC!r}, {w.PUBLIC6!r}:
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(60)
    data = bytes(range(250)) * 240  # 60,000: fragments on the host's link
    s.connect((address, 7))
    s.send(data)
    print(s.recv(65536) == data)
"""


def put(program, root):
    """The program at its own path below root, with its interpreter and libraries."""
    path = pathlib.Path(shutil.which(program))
    files = re.findall(r"(/\S+)", subprocess.run(["ldd", path], stdout=subprocess.PIPE, text=True, check=True).stdout)
    files += [f"/lib/x86_64-linux-gnu/{lib}" for lib in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")]
    for name in [str(path), *files]:
        to = root / name[1:]
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.exists() and os.path.exists(name):
            shutil.copy(name, to)


class Clients(InWorld):
    def setUp(self):
        super().setUp()
        www = self.top / "www"
        www.mkdir()
        (www / "index.html").write_text("this is public, by https\n")
        (www / "big").write_bytes(b"0123456789abcdef" * (1 << 18))  # 4 MiB
        for name in "other", "ca":
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                            "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:www.test", "-keyout", self.top / "key.pem",
                            "-out", self.project / f"{name}.pem"], check=True, stderr=subprocess.DEVNULL)
        (self.top / "tls.pem").write_text((self.top / "key.pem").read_text() + (self.project / "ca.pem").read_text())
        for program in PROGRAMS:
            put(program, self.project / "root")
        python = next(pathlib.Path("/usr/lib").glob("python3.*"))
        shutil.copytree(python, self.project / "root" / str(python)[1:],
                        ignore=shutil.ignore_patterns("test", "__pycache__", "config-*", "idlelib", "tkinter", "lib2to3"))
        git = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
               "GIT_COMMITTER_EMAIL": "a@b"}
        for words in (["init", "-q", "-b", "main", "work"], ["-C", "work", "commit", "-q", "--allow-empty", "-m", "a first commit"],
                      ["clone", "-q", "--bare", "work", "www/repo.git"], ["-C", "www/repo.git", "update-server-info"]):
            subprocess.run(["git", *words], check=True, cwd=self.top, env=git)
        self.sshd()

    def sshd(self):
        """OpenSSH for port 22 of ssh.test. As root it would want a user of its own, so it runs as whoever runs the test."""
        own = HERE / "sshd"
        program = own / "usr/sbin/sshd" if own.exists() else "/usr/sbin/sshd"
        for key in self.top / "host", self.project / "key":
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        config = {"Port": 22, "ListenAddress": w.SSH, "HostKey": self.top / "host", "AuthorizedKeysFile": self.project / "key.pub",
                  "StrictModes": "no", "UsePAM": "no", "PidFile": "none"}
        (self.top / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in config.items()))
        (self.top / "sshd").write_text(f"LD_LIBRARY_PATH={own}/usr/lib/x86_64-linux-gnu exec unshare -U --map-user={os.getuid()} "
                                       f"--map-group={os.getgid()} {program} -r -D -E {self.top}/sshd.log -f {self.top}/sshd_config\n")

    def test_programs_that_people_use(self):
        user = pwd.getpwuid(os.getuid()).pw_name
        cases = {
            "curl": "run curl -sS --cacert /etc/ca.pem https://www.test/",
            "curl -6": "run curl -6 -sS --cacert /etc/ca.pem https://www.test/ -w '%{remote_ip}'",
            "curl big": "run curl -sS --cacert /etc/ca.pem https://www.test/big | sum",
            "curl other": "run curl -sS --cacert /etc/other.pem https://www.test/ | head -n 1 | cut -c1-9",  # nobody vouches for it
            "curl lan": "run curl -sS --max-time 20 http://192.168.77.20/",
            # A name whose IPv6 is dead, in the order of the resolver and in the worse one.
            "curl lame": "run curl -sS -o /dev/null -w '%{remote_ip} %{time_connect} ' http://lame.test/ "
                         f"--next -o /dev/null -w '%{{remote_ip}} %{{time_connect}}' --resolve 'l.test:80:[{w.LAME6}],{w.PUBLIC}' "
                         "http://l.test/",
            "git": "run git clone -q --template= https://www.test/repo.git /tmp/repo; run git -C /tmp/repo log --format=%s",
            "node": "run node -e 'fetch(\"https://www.test/\").then(r => r.text()).then(t => process.stdout.write(t))'",
            "python": "run /usr/bin/python3 /python.py",
            "ssh": f"ssh {user}@ssh.test 'head -c 3000000 /dev/zero' | sum",
            "ssh up": f"zeros | ssh {user}@ssh.test sha256sum | cut -d' ' -f1",
            "ssh elsewhere": "ssh git@www.test true",
            "ssh github.com": "ssh git@github.com true",
            "ssh github's address": f"ssh git@{w.GITHUB} true",
            "dig": "run dig +short www.test A www.test AAAA; run dig +tcp +short @fd6b:91d4:3e07::1 www.test",
            "dig short": "run dig +noedns +ignore big.test TXT | grep -o 'flags: qr[a-z ]*'",
            "dig by tcp": "run dig +noedns big.test TXT | grep -oE '(SERVER|MSG SIZE).*'",
            "dig edns": "run dig +bufsize=4096 big.test TXT | grep -oE '(EDNS|SERVER|MSG SIZE).*'",
            "dig nothing": "run dig nowhere.test -x 192.168.77.20 | grep -o 'NXDOMAIN'",
            "dig elsewhere": f"run dig +tries=1 +short @{w.PUBLIC} www.test; run dig +tcp +short +tries=1 @{w.PUBLIC6} www.test",
            "host": "run host www.test",
            "nc": "echo hello | run nc -N www.test 5000; echo hello | run nc -6 -N www.test 5000",
            "nc the other way": "zeros | run nc -N www.test 5001; zeros | run nc -6 -N www.test 5001",
            "nc -z": "for p in 80 81; do run nc -z www.test $p; echo $?; done",
            "nc -u": "echo hello | run nc -u -W 1 www.test 7; echo hello | run nc -6 -u -W 1 www.test 7",
            "ping": f"for a in {w.PUBLIC} {w.PUBLIC6} 192.0.0.1 fd6b:91d4:3e07::1; do run ping -n -c 1 -W 60 $a | grep -o '1 received'; done",
            "ping lan": f"for a in {w.LAN} {w.LAN6}; do run ping -n -c 1 -W 60 $a | grep -io 'port unreachable'; done",
        }
        (self.project / "root/python.py").write_text(PYTHON)
        script = "".join(f"c() {{\n{text}\n}}\nis {shlex.quote(name)} c\n" for name, text in cases.items())
        out = self.sh(f"P={self.project}\n" + ROOT + script, "--allow-ssh", "ssh.test", world={"WORLD_FAMILIES": "46"}, timeout=4 * BOOT_S)
        got = {name: (text.replace("\r", "").strip(), int(ms)) for name, text, ms in re.findall(r"^== ([^\n]+)\n(.*?)\n== (\d+)$", out, re.M | re.S)}

        def sha(data):
            return hashlib.sha256(data).hexdigest()
        page, denied = "this is public, by https", "ssh: connect to host {} port 22: Connection refused".format
        want = {
            "curl": page, "curl -6": f"{page}\n{w.PUBLIC6}", "curl big": sha((self.top / "www/big").read_bytes()), "curl other": "curl: (60",
            "curl lan": re.compile(r"curl: \(7\) .*"),
            "curl lame": re.compile(rf"{re.escape(w.PUBLIC)} [0-9.]+ {re.escape(w.PUBLIC)} [0-9.]+"),
            "git": "a first commit", "node": page, "python": f"{page}\nTrue\nTrue",
            "ssh": sha(bytes(3000000)), "ssh up": sha(bytes(3000000)), "ssh elsewhere": denied("www.test"),
            "ssh github.com": denied("github.com"), "ssh github's address": denied(w.GITHUB),
            "dig": f"{w.PUBLIC}\n{w.PUBLIC6}\n{w.PUBLIC}", "dig short": "flags: qr tc rd ra",
            "dig by tcp": re.compile(r"SERVER: .*\(TCP\)\nMSG SIZE  rcvd: 3\d\d\d"),
            "dig edns": re.compile(r"EDNS: version: 0, flags:; udp: 4096\n.*\(UDP\)\nMSG SIZE  rcvd: 3\d\d\d"),
            "dig nothing": "NXDOMAIN\nNXDOMAIN", "dig elsewhere": re.compile(r"(.* connection refused\.?\n;; no servers could be reached\n?){2}"),
            "host": f"www.test has address {w.PUBLIC}\nwww.test has IPv6 address {w.PUBLIC6}",
            "nc": "hello\nhello", "nc the other way": "goodbye\ngoodbye", "nc -z": "0\n1", "nc -u": "hello\nhello",
            "ping": "\n".join(["1 received"] * 4), "ping lan": "Port Unreachable\nPort unreachable"}
        self.assertEqual(list(got), list(cases), out)
        for name in cases:
            with self.subTest(program=name, ms=got[name][1]):
                if isinstance(want[name], str):
                    self.assertEqual(got[name][0], want[name])
                else:
                    self.assertRegex(got[name][0], re.compile(rf"\A{want[name].pattern}\Z"))
        for seconds in got["curl lame"][0].split()[1::2]:
            self.assertLess(float(seconds), 5 * SLOW)  # a connection that is given up takes 75
        seen = (self.top / "seen").read_text().split("\n")
        self.assertEqual(seen.count("after goodbye 3000000"), 2)
        self.assertEqual([s for s in seen if "github" in s or "lan" in s or s.endswith(":22")], [])
        self.assertRegex(self.world("logs", "--role", "audit"),
                         rf"tcp  {re.escape(w.PUBLIC)}:443 \(www\.test\)  (allow|inspect)  up \S+ k?B  down \S+ [kM]?B  \d+ ms  fin")


if __name__ == "__main__":
    unittest.main()
