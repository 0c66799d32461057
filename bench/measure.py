"""The parts of the benchmark. Each returns plain values for the JSON file (see report.py for its form)."""
import os
import re
import subprocess

import jobfiles
from sides import (GUESTS, HERE, MARK, Failure, available, guest_command, interleaved, make_initramfs, run, say,
                   until_output)

KERNELS = ("int", "branch", "chase", "memcpy", "float", "vec", "fib", "indirect", "crc", "syscall", "pgfault", "fork",
           "pipe")
KERNELS_LIMIT_S = 900
JOBS_LIMIT_S = 3600
JOBS_MEMORY_MIB = 1024
ROUND_TRIPS = 1000  # in a batch of guests/vmxcost.S


class Collected:
    """Values by row and side, and the checksums that must be the same wherever a row ran."""

    def __init__(self):
        self.rows, self.checksums = {}, {}

    def add(self, row, side, value, checksum=None):
        first = self.checksums.setdefault(row, (side, checksum))
        if first[1] != checksum:
            raise Failure("%s: checksum %s on %s, %s on %s" % (row, checksum, side, first[1], first[0]))
        self.rows.setdefault(row, {}).setdefault(side, []).append(value)


def lines_of(output, word):
    """Returns the fields of each line of a run's output that begins with the word, without it."""
    return [line.split()[1:] for line in output.splitlines() if line.startswith(word + " ")]


def last_line(output):
    return (output.strip().splitlines() or ["(none)"])[-1]


def kernels(build, rounds, only=(), ms=200, units=None, options=(), fastest=False):
    """Returns {kernel: {side: [nanoseconds of an operation, a round each]}}; rounds is {side: how many}.

    The median batch of a round, or its fastest.
    """
    words = (["-n", str(units)] if units else ["-t", str(ms)]) + list(only)
    initrd = os.path.join(build, "bench/kernels.cpio")
    program = os.path.join(build, "bench/kernels")
    make_initramfs(build, initrd, ["dir /bench 755", "file /bench/kernels 755 " + program,
                                   "file /guise/kernels 755 " + os.path.join(HERE, "guest/kernels")])
    append = "guise.script=kernels guise.kernels=" + ",".join(words)
    collected = Collected()
    for n, side in interleaved(rounds):
        say("kernels, round %d: %s" % (n + 1, side))
        command = [program] + words if side == "native" else \
            guest_command(side, build, initrd, append, options=options)
        output = run(command, KERNELS_LIMIT_S)
        results = lines_of(output, "GUISE-KERNEL")
        missing = set(only or KERNELS) - {fields[0] for fields in results}
        if missing:
            raise Failure("no result on %s: %s; its last line: %s" %
                          (side, ", ".join(sorted(missing)), last_line(output)))
        for name, median, least, _, checksum in results:
            collected.add(name, side, float(least if fastest else median), checksum)
    return collected.rows


def speed(fields):
    """Returns nanoseconds of a byte, or milliseconds of a signature, from a line of openssl speed -mr."""
    kind, *values = fields[1].split(":")
    if kind == "+F":
        return 1e9 / float(values[-1])
    # Operations in a second; before OpenSSL 3, seconds of an operation.
    sign = float(values[2])
    return 1e3 * sign if sign < 1 else 1e3 / sign


def kept(build, name, output):
    """Puts what a failed run printed into a file and returns its path."""
    path = os.path.join(build, "bench", name)
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(output)
    return path


def jobs(build, rounds, size, only=(), options=()):
    """Returns {job: {side: [seconds (openssl: see speed()), a round each]}}; size is full or quick."""
    say("jobs: making their files")
    root, initrd = jobfiles.make(build)
    words = [size] + list(only)
    collected = Collected()
    for n, side in interleaved(rounds):
        say("jobs, round %d: %s" % (n + 1, side))
        command = jobfiles.native_command(root, words) if side == "native" else \
            guest_command(side, build, initrd, "guise.script=jobs guise.jobs=" + ",".join(words), JOBS_MEMORY_MIB,
                          options)
        output = run(command, JOBS_LIMIT_S)
        if not lines_of(output, "GUISE-JOBS"):
            raise Failure("the jobs did not come to their end on %s; its last line: %s; all of them: %s" %
                          (side, last_line(output), kept(build, "jobs-%s.log" % side, output)))
        for fields in lines_of(output, "GUISE-RATE"):
            collected.add(fields[0], side, speed(fields))
        for name, seconds, checksum in lines_of(output, "GUISE-JOB"):
            collected.add(name, side, float(seconds), checksum)
    return collected.rows


def boot(build, rounds, options=()):
    """Returns {side: [seconds from process start to the guest's init]} and soft's peak memory beyond the guest's."""
    initrd = os.path.join(build, "guest/initramfs.cpio")
    commands = {side: guest_command(side, build, initrd, "guise.script=poweroff", options=options) for side in GUESTS}
    times = {}
    for n, side in interleaved(rounds):
        times.setdefault(side, []).append(until_output(commands[side], MARK)[0])
        say("boot, round %d: %s %.2f s" % (n + 1, side, times[side][-1]))
    say("boot: memory, in a round that is not timed")
    return times, until_output(commands["soft"], MARK, sample=True)[1]


def tiny(build, rounds, options=()):
    """Returns [seconds from process start to the tiny guest's first output]."""
    command = [os.path.join(build, "guise"), "run", "-e", "soft", *options,
               "--flat", os.path.join(build, "guests/tiny.bin")]
    say("tiny guest: %d times" % rounds)
    return [until_output(command, b"H")[0] for _ in range(rounds)]


def round_trips(build, rounds, options=()):
    """Returns {instruction: {"with": [nanoseconds of it and its way to a hypervisor in the guest and back, a round
    each], "without": [of it alone]}}, from the tiny guest vmxcost."""
    command = [os.path.join(build, "guise"), "run", "-e", "soft", "--cpu", "host,+vmx", *options,
               "--kernel", os.path.join(build, "guests/vmxcost.elf")]
    say("round trips to a hypervisor in the guest: %d times" % rounds)
    rows = {}
    for _ in range(rounds):
        output = run(command, 60)
        clock, costs = lines_of(output, "tsc"), lines_of(output, "cost")
        hz = int(clock[0][0], 16) if clock else 0
        if not hz or not costs:
            raise Failure("no times from vmxcost; its last line: " + last_line(output))
        for name, *cycles in costs:
            row = rows.setdefault(name.replace("-", " "), {"with": [], "without": []})
            for side, value in zip(row, cycles):
                row[side].append(int(value, 16) / ROUND_TRIPS * 1e9 / hz)
    return rows


def exits(build):
    """Returns what guise bench exits prints, or None where the program has no such command."""
    guise = os.path.join(build, "guise")
    if not re.search(r"^\s+bench\b", run([guise, "--help"], 10), re.M):
        return None
    say("exits")
    return run([guise, "bench", "exits"], 120).strip()


def first_line(command):
    try:
        out = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True).stdout
    except OSError:
        return ""
    return out.splitlines()[0] if out else ""


def host():
    """Returns what a reader of the results wants to know of the machine."""
    with open("/proc/cpuinfo") as f:
        models = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return {"processor": models[0] if models else "", "processors": os.cpu_count(), "kernel": os.uname().release}


def programs(build, qemu):
    """Returns the versions of what was measured."""
    kernel = os.path.basename(os.path.realpath(os.path.join(build, "guest/vmlinuz")))
    return {
        "guise": first_line([os.path.join(build, "guise"), "version"]),
        "commit": first_line(["git", "-C", HERE, "describe", "--always", "--dirty"]),
        "qemu": first_line([qemu, "--version"]) if available("qemu") else None,
        "guest kernel": kernel,
    }
