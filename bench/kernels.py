#!/usr/bin/env python3
"""Times the thirteen kernels natively, in guise -e soft and, with --qemu, in QEMU's TCG, and prints the ratios.

Usage: bench/kernels.py BUILD [--only a,b] [--rounds N] [--ms MS] [--qemu] [--guise OPTION]...
A quick look while working on the engine; make bench measures everything.
"""
import argparse
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_S = 600


def make_initramfs(build):
    """Makes BUILD/bench/kernels.cpio: the guest's initramfs and the program."""
    tools = os.path.join(HERE, "..", "tools")
    listing = subprocess.run([os.path.join(tools, "guest-list.sh"), os.path.join(build, "guest/busybox")],
                             check=True, stdout=subprocess.PIPE, text=True).stdout
    listing += "dir /bench 755\nfile /bench/kernels 755 %s\nfile /guise/kernels 755 %s\n" % (
        os.path.join(build, "bench/kernels"), os.path.join(HERE, "guest/kernels"))
    path = os.path.join(build, "bench/kernels.cpio")
    subprocess.run([os.path.join(tools, "mkcpio.py"), path], check=True, input=listing, text=True)
    return path


def commands(args, initrd):
    words = ["-t", str(args.ms)] + [w for w in args.only.split(",") if w]
    kernel = os.path.join(args.build, "guest/vmlinuz")
    append = "console=ttyS0 quiet guise.script=kernels guise.kernels=" + ",".join(words)
    sides = {
        "native": [os.path.join(args.build, "bench/kernels")] + words,
        "soft": [os.path.join(args.build, "guise"), "run", "-e", "soft", "-m", "512M", "-k", kernel, "-i", initrd,
                 "-a", append] + args.guise,
    }
    if args.qemu:
        sides["qemu"] = [os.environ.get("QEMU") or "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg",
                         "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none", "-serial", "stdio",
                         "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", append]
    return sides


def run(command):
    """Returns {kernel: (nanoseconds of one operation, checksum)}."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("GUISE-KERNEL ")]
    if not lines:
        sys.exit("error: status %d and no result: %s" % (done.returncode, " ".join(command)))
    return {f[1]: (float(f[2]), f[5]) for f in lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--only", default="", help="kernels, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ms", type=int, default=100, help="time of a kernel in a round")
    parser.add_argument("--qemu", action="store_true", help="QEMU's TCG too; QEMU= names the program")
    parser.add_argument("--guise", action="append", default=[], metavar="OPTION", help="for guise run, repeatable")
    args = parser.parse_args()
    sides = commands(args, make_initramfs(args.build))
    results = {side: [] for side in sides}
    for n in range(args.rounds):
        for side in list(sides) if n % 2 == 0 else list(sides)[::-1]:
            print("round %d/%d %s" % (n + 1, args.rounds, side), file=sys.stderr, flush=True)
            results[side].append(run(sides[side]))

    def median(side, name):
        return statistics.median(r[name][0] for r in results[side])

    print("%-9s %14s" % ("kernel", "native ns") + "".join(" %14s %7s" % (s, "ratio") for s in sides if s != "native"))
    ratios = {side: [] for side in sides}
    for name in results["native"][0]:
        native = median("native", name)
        line = "%-9s %14.2f" % (name, native)
        for side in sides:
            if any(name not in r or r[name][1] != results["native"][0][name][1] for r in results[side]):
                sys.exit("error: %s: another checksum, or none, on %s" % (name, side))
            if side != "native":
                ratios[side].append(median(side, name) / native)
                line += " %14.2f %7.2f" % (median(side, name), ratios[side][-1])
        print(line)
    print("%-9s %14s" % ("geomean", "") + "".join(
        " %14s %7.2f" % ("", statistics.geometric_mean(r)) for s, r in ratios.items() if s != "native"))


main()
