"""What is compared, and how it is run: this machine itself, guise -e soft, QEMU's TCG."""
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(HERE, "..", "tools")

# In the order of tables. Those of GUESTS boot a kernel.
SIDES = ("native", "soft", "qemu")
GUESTS = SIDES[1:]

# The first thing that the guest's /init prints.
MARK = b"GUISE-INIT"
# The mapping that is the guest's memory (vm/), by its memfd's name.
GUEST_MAPPING = "memfd:guise-guest"
BOOT_LIMIT_S = 120
SAMPLE_S = 0.02


class Failure(Exception):
    """Something was not measured; the text says what and why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def qemu_program():
    return os.environ.get("QEMU") or "qemu-system-x86_64"


def available(side):
    return side != "qemu" or shutil.which(qemu_program()) is not None


def guest_command(side, build, initrd, append, memory=512, options=()):
    """Returns the command that boots build's guest kernel; memory in MiB, options are for guise run only."""
    kernel = os.path.join(build, "guest/vmlinuz")
    # A kernel that panics ends the run instead of holding it up.
    append = "console=ttyS0 quiet panic=-1 " + append
    if side == "soft":
        return [os.path.join(build, "guise"), "run", "-e", "soft", "-m", "%dM" % memory, "-k", kernel, "-i", initrd,
                "-a", append, "--no-reboot", *options]
    return [qemu_program(), "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-m", str(memory), "-nodefaults",
            "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
            "-append", append]


def make_initramfs(build, path, lines):
    """Makes the cpio archive `path`: the test guest's initramfs and the lines (as of mkcpio.py) besides."""
    listing = subprocess.run([os.path.join(TOOLS, "guest-list.sh"), os.path.join(build, "guest/busybox")],
                             check=True, stdout=subprocess.PIPE, text=True).stdout
    subprocess.run([os.path.join(TOOLS, "mkcpio.py"), path], check=True, text=True,
                   input=listing + "".join(line + "\n" for line in lines))


def run(command, limit_s):
    """Runs it to its end and returns its standard output."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise Failure("still running after %d s: %s" % (limit_s, " ".join(command))) from None
    except OSError as error:
        raise Failure("%s: %s" % (command[0], error.strerror)) from None
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip() or "no message").splitlines()[-1]
        raise Failure("status %d (%s): %s" % (done.returncode, last, " ".join(command)))
    return done.stdout.decode(errors="replace")


def interleaved(rounds):
    """Yields (round, side) in an order that changes each round; rounds is {side: how many}."""
    for n in range(max(rounds.values())):
        order = [side for side in SIDES if n < rounds.get(side, 0)]
        for side in order if n % 2 == 0 else order[::-1]:
            yield n, side


def beyond_guest(pid):
    """Returns the bytes of the process that are not guest memory.

    Shared memory that is mapped twice (the code cache) counts once, hence its proportional size.
    """
    total, name = 0, ""
    with open("/proc/%d/smaps" % pid) as smaps:
        for line in smaps:
            fields = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                name = " ".join(fields[5:])
            elif fields[0] == ("Pss:" if name.endswith("(deleted)") else "Rss:") and GUEST_MAPPING not in name:
                total += int(fields[1]) * 1024
    return total


def until_output(command, mark, sample=False):
    """Runs it until it has printed the mark. Returns (seconds, peak bytes beyond the guest's memory or 0)."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    seen, peak = b"", 0
    try:
        while mark not in seen:
            if time.monotonic() - begin > BOOT_LIMIT_S:
                raise Failure("no %s within %d s: %s" % (mark.decode(), BOOT_LIMIT_S, " ".join(command)))
            if sample:
                peak = max(peak, beyond_guest(process.pid))
            if select.select([process.stdout], [], [], SAMPLE_S if sample else 1)[0]:
                data = os.read(process.stdout.fileno(), 4096)
                if not data:
                    raise Failure("ended with status %s before %s: %s" %
                                  (process.wait(), mark.decode(), " ".join(command)))
                seen += data
        return time.monotonic() - begin, peak
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def median(values):
    return statistics.median(values)


def quartiles(values):
    """Returns the lower and the upper quartile; of fewer than three values the least and the greatest."""
    if len(values) < 3:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
