#!/usr/bin/env python3
"""Connections of every kind against wire and vault, then 10,000 at once, and afterwards nothing may be left.

    tests/net/run BUILD test_soak.py [SECONDS]

SECONDS of churn; with 300 or more also datagrams from ever new ports, whose flows live for five minutes, and the 10,000 are
held for five minutes instead of twenty seconds. Prints what was done and what it cost."""
import os
import re
import resource
import subprocess
import sys
import time

import pair
import vaulttest as w
from vaulttest import Resolver, addr_rr

PORT, WORKERS, FLOWS = 5000, 24, 10000
ADDRS = [w.PUBLIC, w.PUBLIC2, w.PUBLIC6, "1.1.1.1", "8.8.8.8", "45.0.0.12"]
IDLE_KB, HELD_KB = 2048, 8192  # network page 10.1
OWN_KB = 4096  # slots of the tables that were used for the first time are no leak; they are bounded (16,384 of 256 bytes)
UDP_LIVES_S = 300
BUILD = os.environ["AGENT_VM_BUILD"]
SANITIZED = b"__asan_init" in open(f"{BUILD}/src/wire/agent-vm-wire", "rb").read()
failed = []


def check(good, text):
    print(("" if good else "BAD: ") + text, flush=True)
    if not good:
        failed.append(text)


def status(pid, key):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"^{key}:\s*(\d+)", f.read(), re.M)[1])


def now(p):
    """(descriptors, resident kB, kB of its own) of wire and of vault."""
    return {n: (len(os.listdir(f"/proc/{pid}/fd")), status(pid, "VmRSS"), status(pid, "RssAnon"))
            for n, pid in (("wire", p.wire), ("vault", p.vault.pid))}


def cpu(pid):
    with open(f"/proc/{pid}/schedstat") as f:
        return int(f.read().split()[0]) / 1e9


def settled(p, base, seconds):
    """What is there once no more descriptors are open than at the base, or when the time is over; chunks go back after 5 s."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(now(p)[n][0] > base[n][0] for n in base):
        time.sleep(0.5)
    time.sleep(6)
    return now(p)


def churn(*args, timeout):
    with pair.G:
        r = subprocess.run([f"{BUILD}/tests/net/churn", *map(str, args)], capture_output=True, text=True, timeout=timeout)
    return r.stdout.strip()


def run(p, seconds):
    fixed = ["fixed"] if seconds < UDP_LIVES_S else []
    warm = churn("run", PORT, 5, WORKERS, "fixed", *ADDRS, timeout=120)
    check(warm.startswith("ok"), f"warm-up: {warm}")
    base = settled(p, {"wire": (0,), "vault": (0,)}, 1)
    t = [cpu(x) for x in (p.wire, p.vault.pid)]
    text = churn("run", PORT, seconds, WORKERS, *fixed, *ADDRS, timeout=seconds + 180)
    check(text.startswith("ok"), f"{seconds} s of churn: {text}")
    print("CPU: wire %.1f s, vault %.1f s" % tuple(cpu(x) - y for x, y in zip((p.wire, p.vault.pid), t)), flush=True)
    after, end = settled(p, base, 30 if fixed else UDP_LIVES_S + 30), time.monotonic() + 30
    while not SANITIZED and time.monotonic() < end and any(after[n][2] > base[n][2] + OWN_KB for n in base):
        time.sleep(0.5)
        after = now(p)
    for n in base:
        check(after[n][0] <= base[n][0], f"{n}: {after[n][0]} descriptors, {base[n][0]} before")
        check(SANITIZED or after[n][2] <= base[n][2] + OWN_KB, f"{n}: {after[n][2]} kB of its own, {base[n][2]} before")
    for line in p.vault.audit():
        if line["k"] == "tcp" and line.get("end") == "evicted":
            check(False, f"evicted: {line}")
            break
    return after


def hold(p, base):
    seconds = 300 if SECONDS >= UDP_LIVES_S else 20
    with pair.G:
        c = subprocess.Popen([f"{BUILD}/tests/net/churn", "hold", str(PORT), str(FLOWS), str(seconds), "10", *ADDRS],
                             stdout=subprocess.PIPE, text=True)
    first = c.stdout.readline().strip()
    check(first == "open", f"{FLOWS} connections: {first}")
    t, begin = cpu(p.wire), time.monotonic()
    time.sleep(seconds / 2)
    there = now(p)
    check(there["wire"][0] >= base["wire"][0] + FLOWS, f"wire: {there['wire'][0]} descriptors")
    check(SANITIZED or there["wire"][1] <= HELD_KB, f"wire: {there['wire'][1]} kB resident, {there['wire'][2]} kB of its own")
    print("CPU: wire %.2f s of %.0f s" % (cpu(p.wire) - t, time.monotonic() - begin), flush=True)
    text = c.communicate(timeout=seconds + 180)[0].strip()
    check(text.startswith("ok"), text)
    after = settled(p, base, 60)
    for n in base:
        check(after[n][0] <= base[n][0], f"{n}: {after[n][0]} descriptors, {base[n][0]} before")


def main():
    # The limit of most systems; above it wire says that its table is smaller.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not os.access("/dev/net/tun", os.W_OK):
        print("skipped: /dev/net/tun is not open to this user")
        return 77
    w.make_world()
    pair.make_guest_namespace()
    # A connection that was closed keeps its port for a minute, else; the world and the guest share this one kernel.
    for ns in (w.V, pair.G, w.S):
        with ns:
            w.sh("sysctl -qw net.ipv4.tcp_tw_reuse=1 net.ipv4.ip_local_port_range='1024 65000'")
    resolver = Resolver(w.RESOLVER, lambda name, qtype: (0, [addr_rr(name, w.PUBLIC)], [], []))
    with w.S:
        server = subprocess.Popen([f"{BUILD}/tests/net/traffic", "serve", str(PORT), w.PUBLIC], stdout=subprocess.PIPE, text=True)
    server.stdout.readline()
    p = pair.Pair(BUILD)
    first = now(p)
    check(SANITIZED or first["wire"][1] <= IDLE_KB,
          f"wire at the start: {first['wire'][1]} kB resident, {first['wire'][2]} kB of its own")
    try:
        base = run(p, SECONDS)
        if hard > FLOWS + 1000:
            hold(p, base)
        else:
            print(f"{FLOWS} connections: skipped, this user may have {hard} descriptors")
        check(p.wire_ended(0) is None and os.waitpid(p.vault.pid, os.WNOHANG) == (0, 0), "both live")
        p.close()
    finally:
        log = p.log()
        server.kill()
        server.wait()
    check("ERROR" not in log and "runtime error" not in log, "no report of a sanitizer")
    for line in log.splitlines():
        print(line)
    return bool(failed)


SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
sys.exit(main())
