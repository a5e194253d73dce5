#!/usr/bin/env python3
"""The host's own TCP stack as wire's guest, through a TAP, with wire's sandbox on: every byte compared, half-closes, slow
readers, resets, many streams, libkrun's way of leaving sums undone, a small MTU, lost frames. test_wire.py BUILD [SCALE]"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import netlab  # noqa: E402

MB = 1000000


def case(lab, failed, want, *args):
    text = lab.traffic(*args)
    print(f"{'ok ' if text == want else 'BAD'} {' '.join(map(str, args))}: {text}", flush=True)
    if text != want:
        failed.append(args)


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
