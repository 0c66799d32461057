#!/usr/bin/env python3
"""A just-in-time compiler in a guest that makes code for ever, on the soft engine with a small code cache: its results
are right, translations make room for others, memory stays bounded.

Usage: jit.py GUISE GUEST [SECONDS]
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

CACHE_MIB = 4
# Code, metadata for as much code again, libraries, and what a process needs anyway.
MEMORY_MAX_KIB = (2 * CACHE_MIB + 16) * 1024
LIMIT = 100
NEEDED = ["luajit", "ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libgcc_s.so.1"]


def skip(why):
    print(why)
    sys.exit(77)


def fail(why):
    sys.exit("FAIL: " + why)


def make_initramfs(here, guest, path):
    tools = here.parent.parent / "tools"
    found = {}
    for file in sorted((guest / "luajit").resolve().rglob("*")):
        if file.name in NEEDED and file.is_file():
            found[file.name] = file.resolve()
    missing = [name for name in NEEDED if name not in found]
    if missing:
        skip("no %s in %s/luajit: tools/guest-files.sh BUILD test fetches it" % (", ".join(missing), guest))
    lines = subprocess.run([tools / "guest-list.sh", guest / "busybox"], check=True, capture_output=True,
                           text=True).stdout
    lines += "dir /jit 755\n"
    lines += "".join("file /jit/%s 755 %s\n" % item for item in found.items())
    lines += "file /jit/jit.lua 644 %s\nfile /guise/jit 755 %s\n" % (here / "jit.lua", here / "jit")
    subprocess.run([tools / "mkcpio.py", path], check=True, input=lines, text=True)


def memory_beside_guest(pid):
    """KiB in memory, without the guest's; the code cache is mapped twice and counted once."""
    total = 0
    name = mode = ""
    try:
        with open("/proc/%d/smaps" % pid) as lines:
            for line in lines:
                head = re.match(r"[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \S+ *(.*)$", line)
                if head:
                    mode, name = head.groups()
                elif line.startswith("Rss:") and "guise-guest" not in name and mode != "r-xs":
                    total += int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return total


def run(command, log):
    """Returns (exit status, most memory beside the guest's in KiB)."""
    most, begin = 0, time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT) as guest:
        while guest.poll() is None:
            most = max(most, memory_beside_guest(guest.pid))
            if time.monotonic() - begin > LIMIT:
                guest.kill()
                fail("still running after %d s" % LIMIT)
            time.sleep(0.25)
        return guest.returncode, most


def main():
    guise, guest = sys.argv[1], pathlib.Path(sys.argv[2])
    seconds = sys.argv[3] if len(sys.argv) > 3 else "5"
    here = pathlib.Path(__file__).resolve().parent
    if not (guest / "vmlinuz").exists():
        skip("no %s/vmlinuz: tools/guest-files.sh makes it (make test runs it)" % guest)
    with tempfile.TemporaryDirectory() as directory:
        initramfs = os.path.join(directory, "initramfs.cpio")
        make_initramfs(here, guest, initramfs)
        with open(os.path.join(directory, "log"), "w+b") as log:
            status, most = run([guise, "run", "-e", "soft", "--code-cache=%dM" % CACHE_MIB, "--stats", "-m", "256M",
                                "-k", guest / "vmlinuz", "-i", initramfs, "-a",
                                "console=ttyS0 quiet guise.script=jit guise.seconds=" + seconds], log)
            log.seek(0)
            text = log.read().decode(errors="replace")
    print(text)
    print("%d KiB beside the guest's memory at most" % most)
    if status != 0:
        fail("the monitor ended with status %d" % status)
    made = re.search(r"GUISE-JIT ok (\d+) functions", text)
    if not made or int(made.group(1)) < 100:
        fail("the guest did not make enough functions, or a wrong one")
    evicted = re.search(r"([\d,]+)  blocks thrown away \(to make room\)", text)
    if not evicted:
        fail("no translation made room for another")
    if most > MEMORY_MAX_KIB:
        fail("%d KiB beside the guest's memory are more than %d" % (most, MEMORY_MAX_KIB))


main()
