#!/usr/bin/env python3
"""Times a Linux boot, from process start to the guest's init: guise -e soft against QEMU's TCG.

Usage: bench/boot.py BUILD [--rounds N] [--memory MIB] [--append TEXT] [--machine NAME] [--only NAME]

Kernel, initramfs, memory and command line are the same for both. Rounds are interleaved, so that what else
the machine does falls on both. The memory that guise uses beyond the guest's own is sampled in a round
of its own, which is not timed.
"""
import argparse
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import time

# The first thing that the guest's /init prints.
MARK = b"GUISE-INIT"
# The mapping that is the guest's memory (vm/), by its memfd's name.
GUEST_MAPPING = "memfd:guise-guest"
LIMIT_S = 120
SAMPLE_S = 0.02


def commands(args):
    guest = os.path.join(args.build, "guest")
    kernel, initrd = os.path.join(guest, "vmlinuz"), os.path.join(guest, "initramfs.cpio")
    return {
        "guise -e soft":
            [os.path.join(args.build, "guise"), "run", "-e", "soft", "-m", "%dM" % args.memory,
             "-k", kernel, "-i", initrd, "-a", args.append],
        "qemu -accel tcg -cpu max":
            ["qemu-system-x86_64", "-machine", args.machine, "-accel", "tcg", "-cpu", "max",
             "-m", "%d" % args.memory, "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
             "-kernel", kernel, "-initrd", initrd, "-append", args.append],
    }


def beyond_guest(pid):
    """Returns the bytes of the process that are not guest memory.

    A memfd that is mapped twice (the code cache) counts once, hence its proportional size.
    """
    total, name = 0, ""
    with open("/proc/%d/smaps" % pid) as smaps:
        for line in smaps:
            fields = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                name = " ".join(fields[5:])
            elif fields[0] == ("Pss:" if "memfd:" in name else "Rss:") and GUEST_MAPPING not in name:
                total += int(fields[1]) * 1024
    return total


def boot(command, sample=False):
    """Boots until the mark. Returns (seconds, peak bytes beyond the guest's memory or 0)."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    seen, peak = b"", 0
    try:
        while MARK not in seen:
            if time.monotonic() - begin > LIMIT_S:
                sys.exit("error: no %s within %d s: %s" % (MARK.decode(), LIMIT_S, " ".join(command)))
            if sample:
                peak = max(peak, beyond_guest(process.pid))
            if select.select([process.stdout], [], [], SAMPLE_S if sample else 1)[0]:
                data = os.read(process.stdout.fileno(), 4096)
                if not data:
                    sys.exit("error: ended with status %s before %s: %s" %
                             (process.wait(), MARK.decode(), " ".join(command)))
                seen += data
        return time.monotonic() - begin, peak
    finally:
        process.kill()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=512, help="MiB")
    parser.add_argument("--append", default="console=ttyS0 quiet guise.script=poweroff")
    parser.add_argument("--machine", default="pc", help="QEMU's")
    parser.add_argument("--only", default="", help="measure only what has this in its name")
    args = parser.parse_args()

    contestants = {name: c for name, c in commands(args).items() if args.only in name}
    for command in contestants.values():
        if not shutil.which(command[0]):
            sys.exit("error: no %s" % command[0])
    times = {name: [] for name in contestants}
    for n in range(args.rounds):
        order = list(contestants.items())
        for name, command in order if n % 2 == 0 else reversed(order):
            times[name].append(boot(command)[0])
            print("round %d/%d  %-26s %6.2f s" % (n + 1, args.rounds, name, times[name][-1]),
                  file=sys.stderr, flush=True)

    print("Linux to init, %d MiB, \"%s\"" % (args.memory, args.append))
    print("%-26s %8s %8s %8s" % ("seconds", "median", "min", "max"))
    for name, t in times.items():
        print("%-26s %8.2f %8.2f %8.2f" % (name, statistics.median(t), min(t), max(t)))
    if len(times) == 2:
        guise, qemu = (statistics.median(t) for t in times.values())
        print("guise takes %.2f of QEMU's time" % (guise / qemu))
    for name, command in contestants.items():
        if name.startswith("guise"):
            print("memory beyond the guest's own, at its peak: %.1f MiB" % (boot(command, True)[1] / 2**20))


main()
