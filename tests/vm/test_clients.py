"""Real programs in the guest against a real https server, through wire and vault: curl, git, node.

The small image has none of them, so the host's own are put into the project with what they load, and the guest's root is
changed to there.
"""
import os
import pathlib
import re
import shutil
import subprocess
import unittest

from test_network import Network as World

ROOT = r"""
set -e
cd "$P/root"; mkdir -p etc dev proc tmp
cp /etc/resolv.conf /etc/hosts etc/; echo 'hosts: files dns' > etc/nsswitch.conf; cp ../ca.pem ../other.pem etc/
mount --bind /dev dev; mount -t proc proc proc
run() { chroot . "$@" 2>&1; }
export HOME=/tmp GIT_SSL_CAINFO=/etc/ca.pem NODE_EXTRA_CA_CERTS=/etc/ca.pem
"""
PROGRAMS = ["curl", "git", "node", "/usr/lib/git-core/git", "/usr/lib/git-core/git-remote-https"]


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


class Clients(World):
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
        git = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
               "GIT_COMMITTER_EMAIL": "a@b"}
        for words in (["init", "-q", "-b", "main", "work"], ["-C", "work", "commit", "-q", "--allow-empty", "-m", "a first commit"],
                      ["clone", "-q", "--bare", "work", "www/repo.git"], ["-C", "www/repo.git", "update-server-info"]):
            subprocess.run(["git", *words], check=True, cwd=self.top, env=git)

    def clients(self, script):
        return self.sh(f"P={self.project}\n" + ROOT + script)

    def test_curl_git_and_node(self):
        out = self.clients(
            "run curl -sS --cacert /etc/ca.pem https://www.test/\n"
            "run curl -sS --cacert /etc/ca.pem https://www.test/big | sha256sum\n"
            "run curl -sS --cacert /etc/other.pem https://www.test/ | head -n 1 | cut -c1-9\n"  # nobody vouches for the certificate
            "run git clone -q --template= https://www.test/repo.git /tmp/repo; run git -C /tmp/repo log --format=%s\n"
            "run node -e 'fetch(\"https://www.test/\").then(r => r.text()).then(t => process.stdout.write(t))'\n"
            "run curl -sS --max-time 20 http://192.168.77.20/ | tail -c 60\n")
        lines = out.split("\n")
        self.assertEqual(lines[0], "this is public, by https")
        want = subprocess.run(["sha256sum", self.top / "www/big"], stdout=subprocess.PIPE, check=True).stdout.split()[0].decode()
        self.assertEqual(lines[1].split()[0], want)
        self.assertEqual(lines[2], "curl: (60")
        self.assertEqual(lines[3], "a first commit")
        self.assertEqual(lines[4], "this is public, by https")
        self.assertRegex(lines[5], "refused|Couldn't connect")
        audit = self.world("logs", "--role", "audit")
        self.assertIn("www.test", audit)


del World  # its tests run where they stand

if __name__ == "__main__":
    unittest.main()
