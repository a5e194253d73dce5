#!/usr/bin/env python3
"""The host's own TCP stack as wire's guest, through a TAP, with wire's sandbox on: every byte compared, half-closes, slow
readers, resets, many streams, both ways at once, libkrun's way of leaving sums undone, a small MTU, lost frames: rows 9 to 12
of the network page's acceptance checks (14). test_wire.py BUILD [SCALE]"""
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import netlab  # noqa: E402

MB = 1000000


def case(lab, failed, want, *args):
    text = lab.traffic(*args)
    print(f"{'ok ' if text == want else 'BAD'} {' '.join(map(str, args))}: {text}", flush=True)
    if text != want:
        failed.append(args)


def resident_kb(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s*(\d+)", f.read())[1])


def together(lab, failed, pid, scale):
    """A slow reader beside a stream at full speed: whole, and it takes no memory; both ways at once, without a standstill; a
    reader that stopped does not stop the other way."""
    seconds = max(4, int(20 * scale))
    slow = lab.start("G", [lab.tool("traffic"), "slow", netlab.SERVER4, str(netlab.PORT), str(seconds * MB), str(MB)], stdout=-1)
    most, end = 0, time.monotonic() + seconds - 1
    while time.monotonic() < end:
        text = lab.traffic("down", netlab.SERVER4, netlab.PORT, 100 * MB, 1)
        most = max(most, resident_kb(pid))
        if text != "ok":
            failed.append(("beside a slow reader", text))
    if slow.communicate(timeout=60 + seconds)[0].strip() != "ok":
        failed.append(("slow reader",))
    # Its ring, the other's ring, and what the process has of its own; not the pool of 64 MiB.
    print(f"beside a slow reader: {most} kB at most", flush=True)
    if most > 16384 and not sanitized(lab):
        failed.append(("memory", most))
    for how in range(3):
        for attempt in range(10):  # a busy machine makes standstills of its own
            text = lab.traffic("duplex", netlab.SERVER4, netlab.PORT, int(1000 * MB * scale), how)
            print("duplex", ("both read", "the client stopped", "the server stopped")[how], text, flush=True)
            m = re.fullmatch(r"ok (\d+) (\d+)", text)
            if not m or int(m[1]) < 200:
                break
        if not m or int(m[1]) >= 200:
            failed.append(("duplex", how, text))


def sanitized(lab):
    with open(f"{lab.build}/src/wire/agent-vm-wire", "rb") as f:
        return b"__asan_init" in f.read()


def run(build, scale, options, mtu, cases):
    lab = netlab.Lab(build)
    failed = []
    print(f"== {' '.join(options) or 'plain'}, MTU {mtu}", flush=True)
    try:
        lab.servers()
        vault, pid = lab.wire(*options, publish=7000, mtu=mtu)
        for mode, addr, *rest in cases:
            if mode in ("up", "down", "both", "halfclose"):
                rest[0] = int(rest[0] * scale)
            case(lab, failed, "ok", mode, addr, netlab.PORT, *rest)
        if not options and mtu == 65520:
            together(lab, failed, pid, scale)
        # A published port: a client in S reaches a server in the guest.
        lab.ready("G", [lab.tool("traffic"), "serve", "7000", "192.0.0.2"], "ready")
        for mode in "up", "down":
            text = lab.traffic(mode, "10.99.0.1", 7000, int(20 * MB * scale), 4, ns="S")
            print("published", mode, text, flush=True)
            if text != "ok":
                failed.append(("published", mode))
        # Nobody listens: the guest's connect is refused, as the upstream's was.
        text = lab.traffic("up", netlab.SERVER4, 5001, 1, 1)
        if text != "connect: Connection refused":
            failed.append(("refused", text))
        if vault.poll() is not None:
            failed.append(("wire ended",))
    finally:
        log = open(f"{lab.dir}/log").read()
        lab.close()
    if "ERROR" in log or "runtime error" in log:
        print(log)
        failed.append(("sanitizer",))
    return failed


def main():
    build, scale = str(pathlib.Path(sys.argv[1]).resolve()), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    why = netlab.missing()
    if why:
        print(f"skipped: {why}")
        sys.exit(77)
    netlab.enter(sys.argv)
    s4, s6 = netlab.SERVER4, netlab.SERVER6
    full = [("up", s4, 200 * MB, 1), ("down", s4, 200 * MB, 1), ("up", s6, 100 * MB, 1), ("down", s6, 100 * MB, 1),
            ("both", s4, 100 * MB, 2), ("up", s4, 2 * MB, 64), ("down", s4, 2 * MB, 64), ("halfclose", s4, 100 * MB),
            ("slow", s4, 3 * MB, MB), ("reset", s4), ("reset", s6), ("down", s4, 1, 1), ("up", s4, 0, 1)]
    short = [("up", s4, 20 * MB, 2), ("down", s6, 20 * MB, 2), ("both", s4, 10 * MB, 2)]
    failed = run(build, scale, [], 65520, full)
    failed += run(build, scale, ["partial"], 65520, short)
    failed += run(build, scale, [], 1500, short)
    failed += run(build, scale, ["loss", "10"], 65520, [c for c in short])
    if failed:
        print("failed:", failed)
        sys.exit(1)
    print("all of it holds")


main()
