#!/usr/bin/env python3
"""Times the thirteen kernels in a guest of the soft engine, and in a guest of that guest's KVM (kvm-intel on emulated VMX).

Usage: bench/nested.py BUILD [--only a,b] [--rounds N] [--ms MS] [--guise OPTION]... [--docs]
All of it in one outer guest, in turn: its own program, a guest with EPT, a guest with KVM's shadow paging. Shows the
fastest batch of all rounds and, of the nested ones, the ratio to the outer guest's. --docs rewrites the table in
docs/performance.md.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys

from measure import KERNELS, KERNELS_LIMIT_S, last_line
from report import rewrite
from sides import HERE, Failure, guest_command, make_initramfs, run, say

SIDES = ("guest", "ept=1", "ept=0")
MEMORY_MIB = 1024


def libraries(program):
    listing = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", listing)


def make_outer(build):
    """Makes the outer guest's initramfs and returns its path: guise, KVM's modules, the kernels, the inner guest."""
    inner, outer = (os.path.join(build, "bench", name) for name in ("kernels.cpio", "nested.cpio"))
    kernels = ["dir /bench 755", "file /bench/kernels 755 " + os.path.join(build, "bench/kernels"),
               "file /guise/kernels 755 " + os.path.join(HERE, "guest/kernels")]
    make_initramfs(build, inner, kernels)
    linux = os.path.realpath(os.path.join(build, "guest/vmlinuz"))
    release = os.path.basename(linux).replace("vmlinuz-", "")
    modules = os.path.join(os.path.realpath(os.path.join(build, "guest/modules")), release, "kernel")
    guise = os.path.join(build, "guise")
    lines = kernels + ["dir /%s 755" % name for name in ("guest", "kvm", "lib", "lib64", "lib/x86_64-linux-gnu", "usr",
                                                         "usr/lib", "usr/lib/x86_64-linux-gnu")]
    lines += ["file %s 755 %s" % (path, path) for path in libraries(guise)]
    lines += ["file /bin/guise 755 " + guise, "file /guise/nested 755 " + os.path.join(HERE, "guest/nested"),
              "file /guest/vmlinuz 644 " + linux, "file /guest/kernels.cpio 644 " + inner]
    for module in ("virt/lib/irqbypass", "arch/x86/kvm/kvm", "arch/x86/kvm/kvm-intel"):
        lines.append("file /kvm/%s.ko 644 %s/%s.ko" % (os.path.basename(module), modules, module))
    make_initramfs(build, outer, lines)
    return outer


def parse(output):
    """Returns {side: {kernel: least nanoseconds}} of the outer guest's output."""
    results, side, sums = {}, None, {}
    for line in output.splitlines():
        fields = line.split()
        if fields[:1] == ["GUISE-SIDE"]:
            side = fields[1]
        elif fields[:1] == ["GUISE-KERNEL"]:
            name, _, least, _, checksum = fields[1:]
            if sums.setdefault(name, checksum) != checksum:
                raise Failure("%s: checksum %s on %s, %s before" % (name, checksum, side, sums[name]))
            row = results.setdefault(side, {})
            row[name] = min(float(least), row.get(name, float("inf")))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--only", default="", help="kernels, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ms", type=int, default=100, help="time of a kernel in a round")
    parser.add_argument("--guise", action="append", default=[], metavar="OPTION", help="for guise run, repeatable")
    parser.add_argument("--docs", action="store_true", help="into docs/performance.md")
    args = parser.parse_args()
    only = [name for name in args.only.split(",") if name]
    words = ",".join(["-t", str(args.ms)] + only)
    say("the kernels in a guest and in its guests, %d rounds" % args.rounds)
    try:
        output = run(guest_command("soft", args.build, make_outer(args.build),
                                   "guise.script=nested guise.rounds=%d guise.kernels=%s" % (args.rounds, words),
                                   MEMORY_MIB, ["--cpu", "host,+vmx", *args.guise]), KERNELS_LIMIT_S)
        results = parse(output)
        for side in SIDES:
            missing = set(only or KERNELS) - set(results.get(side, ()))
            if missing:
                raise Failure("no result of %s: %s; the last line: %s" %
                              (side, ", ".join(sorted(missing)), last_line(output)))
    except Failure as failure:
        sys.exit("error: %s" % failure)

    base, nested = results["guest"], SIDES[1:]
    table = ["|  | in a guest | %s |" % " | ".join("in its guest, " + side for side in nested),
             "|---|---:|%s" % ("---:|" * len(nested))]
    for name in only or KERNELS:
        table.append("| %s | %.3g ns | %s |" % (name, base[name], " | ".join(
            "%.2f" % (results[side][name] / base[name]) for side in nested)))
    table.append("| geometric mean |  | %s |" % " | ".join("%.2f" % statistics.geometric_mean(
        results[side][name] / base[name] for name in only or KERNELS) for side in nested))
    text = "\n".join(table)
    print(text)
    if args.docs:
        rewrite(os.path.join(HERE, "..", "docs/performance.md"), {"nested": text})


main()
