#!/usr/bin/env python3
"""Every input that cannot be right: one clear line on standard error, status 1, nothing on standard output.

Usage: bad_input.py GUISE
"""
import os
import pathlib
import subprocess
import sys
import tempfile

import guests
from tap import check, finish, skip

# Generous: a monitor that hangs is what this finds.
LIMIT = 60


def run(command, user=None):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, user=user)
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(command, "still running", late.stdout or b"", late.stderr or b"")


def expect(guise, arguments, *words, what=None, user=None):
    """@arguments must be refused with a line that has each of @words."""
    done = run([guise] + [str(a) for a in arguments], user)
    text = done.stderr.decode(errors="replace")
    ok = (done.returncode == 1 and not done.stdout and text.startswith("guise: ") and text.count("\n") == 1
          and text.endswith("\n") and len(text) < 500 and all(word in text for word in words))
    check(ok, what or "guise " + " ".join(str(a) for a in arguments),
          "status %s\nstdout %r\nstderr %s\nwanted %s" % (done.returncode, done.stdout[:200], text, words))


def commands(guise):
    expect(guise, [], "--help", what="no command")
    expect(guise, ["boot"], "unknown command 'boot'")
    expect(guise, ["check", "now"], "'now'")
    expect(guise, ["bench"], "exits")
    expect(guise, ["bench", "boots"], "'boots'")
    expect(guise, ["bench", "exits", "now"], "'now'")
    expect(guise, ["version", "--long"], "'--long'")


def options(guise, tiny):
    flat = ["run", "--flat", tiny]
    expect(guise, ["run", "--bogus"], "'--bogus'", "--help")
    expect(guise, ["run", "-z"], "'-z'", "--help")
    expect(guise, ["run", "-zk", "x"], "'-z'", "--help")
    expect(guise, ["run", "-k"], "'-k'", "value")
    expect(guise, ["run", "--memory"], "'--memory'", "value")
    expect(guise, ["run", "--stats=yes"], "'--stats=yes'", "no value")
    expect(guise, ["run", "--help=me"], "'--help=me'", "no value")
    expect(guise, flat + ["-e", "warp"], "'warp'", "auto, kvm, soft")
    expect(guise, flat + ["-e", ""], "''", "auto, kvm, soft")
    expect(guise, flat + ["--trace", "ghosts"], "'ghosts'", "exit, irq")
    expect(guise, flat + ["--trace", "io=9"], "'9'")
    expect(guise, flat + ["--serial", "com1"], "'com1'", "stdio, file:PATH, none")
    expect(guise, flat + ["--serial", "file:"], "stdio, file:PATH, none")
    expect(guise, flat + ["--serial", "file:/nowhere/at/all"], "/nowhere/at/all", "No such file")
    expect(guise, flat + ["--gdb", "1234"], "'1234'", "tcp:[HOST:]PORT", "unix:PATH")
    expect(guise, flat + ["--gdb", "tcp:"], "''", "65535")
    expect(guise, flat + ["--gdb", "tcp:65536"], "'65536'", "65535")
    expect(guise, flat + ["--gdb", "tcp:256.1.1.1:1234"], "'tcp:256.1.1.1:1234'")
    expect(guise, flat + ["--gdb", "tcp:0,later"], "'later'", "nowait")
    expect(guise, flat + ["--gdb", "tcp:0,arch=arm"], "'arm'", "x86-64, i386, i8086")
    expect(guise, flat + ["--gdb", "unix:"], "path")
    expect(guise, flat + ["--gdb", "unix:/nowhere/at/all"], "/nowhere/at/all", "No such file")
    expect(guise, flat + ["--gdb", "unix:" + "/x" * 60], "path", "107")
    expect(guise, flat + ["--flat-mode", "virtual"], "'virtual'", "real, protected, long")
    expect(guise, flat + ["-k", "x"], "exclude")
    expect(guise, flat + ["-i", "x"], "initrd")
    expect(guise, flat + ["--", "quiet"], "command line")
    expect(guise, ["run", "--flat-mode", "long", "x"], "--flat")
    expect(guise, ["run", "a", "b"], "'a'", "'b'")
    expect(guise, ["run", "-k", "a", "b"], "'a'", "'b'")


def sizes(guise, tiny):
    flat = ["run", "--flat", tiny]
    for memory in ("0", "0G", "-1G", "+1G", "1X", "1GG", "", " ", "M", "1.5G"):
        expect(guise, flat + ["-m", memory], "memory size")
    for memory in ("1", "1K", "1048575"):
        expect(guise, flat + ["-m", memory], "too little", "1M")
    expect(guise, flat + ["-m", "1048577"], "multiple of 4K")
    for memory in ("1000T", "16777215T"):
        expect(guise, flat + ["-m", memory], "host has", "ask for less")
    for memory in ("16777216T", "18446744073709551616", "99999999999999999999G"):
        expect(guise, flat + ["-m", memory], "more than any host has")
    for cache in ("1023K", "2G", "0", "x"):
        expect(guise, flat + ["-e", "soft", "--code-cache", cache], "" if cache in ("0", "x") else "between")
    for cpu in ("", "vmx", "host,vmx", "host,+svm"):
        expect(guise, flat + ["-e", "soft", "--cpu", cpu], "'%s'" % cpu, "known: host, host,+vmx")
    expect(guise, flat + ["-e", "soft", "--perf", "hints"], "'hints'", "map, jitdump")
    expect(guise, flat + ["-c", "0"], "1 CPU")
    for cpus in ("-1", "x", "1x", ""):
        expect(guise, flat + ["-c", cpus], "not a number")
    for cpus in ("1000", "4294967295", "4294967297", "99999999999999999999"):
        expect(guise, flat + ["-c", cpus], "CPUs")


def files(guise, directory):
    def make(name, data):
        path = pathlib.Path(directory, name)
        path.write_bytes(data)
        return path

    empty = make("empty", b"")
    text = make("text", b"not a kernel at all\n" * 1000)
    zeroes = make("zeroes", bytes(1 << 20))
    short_elf = make("short_elf", b"\x7fELF\x02\x01\x01" + bytes(9))
    # a boot sector and the setup header's magic, and nothing after that
    short_linux = make("short_linux", bytes(510) + b"\x55\xaa\xeb\x66HdrS\x0f\x02" + bytes(100))
    large = pathlib.Path(directory, "large")
    with open(large, "wb") as file:
        file.truncate(1 << 32)

    for kernel in (empty, text, zeroes, short_elf, short_linux):
        expect(guise, ["run", kernel], str(kernel))
    expect(guise, ["run", "/nowhere/vmlinuz"], "/nowhere/vmlinuz", "No such file")
    expect(guise, ["run", directory], directory, "directory", what="guise run DIRECTORY")
    expect(guise, ["run", "/dev/null"], "/dev/null")
    expect(guise, ["run", "--flat", "/nowhere/image"], "/nowhere/image", "No such file")
    expect(guise, ["run", "--flat", empty], str(empty))
    expect(guise, ["run", "--flat", large, "-m", "64M"], str(large))

    secret = make("secret", b"x")
    secret.chmod(0)
    os.chmod(directory, 0o755)
    if os.geteuid() == 0:
        expect(guise, ["run", secret], str(secret), "Permission denied", user="nobody")
    else:
        expect(guise, ["run", secret], str(secret), "Permission denied")


def default_kernel(guise, directory):
    """Without a KERNEL and with none to be found."""
    if os.access("/boot/vmlinuz-" + os.uname().release, os.R_OK):
        skip("no kernel named and none found", "this host has a kernel in /boot")
        return
    done = subprocess.run([guise, "run"], env={"HOME": directory}, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=LIMIT)
    text = done.stderr.decode()
    wanted = ["make run", "/boot/vmlinuz-" + os.uname().release, directory + "/.cache/guise/vmlinuz"]
    check(done.returncode == 1 and text.count("\n") == 1 and all(word in text for word in wanted),
          "no kernel named and none found", text)
    # One that is none shows by its complaint which was taken.
    for variable, where in (("XDG_CACHE_HOME", "cache"), ("HOME", "home/.cache")):
        kernel = pathlib.Path(directory, where, "guise", "vmlinuz")
        kernel.parent.mkdir(parents=True)
        kernel.write_text("no kernel\n")
        done = subprocess.run([guise, "run"], env={"HOME": directory, variable: directory + "/" + where.split("/")[0]},
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
        text = done.stderr.decode()
        check(done.returncode == 1 and text.count("\n") == 1 and str(kernel) in text,
              "no kernel named: the fetched one, by " + variable, text)


def kvm_without_permission(guise, tiny):
    if not os.path.exists("/dev/kvm"):
        expect(guise, ["run", "-e", "kvm", "--flat", tiny], "/dev/kvm")
    elif os.geteuid() != 0 or os.stat("/dev/kvm").st_mode & 0o006:
        skip("/dev/kvm without permission", "needs root, and a /dev/kvm that not everyone may open")
    else:
        expect(guise, ["run", "-e", "kvm", "--flat", tiny], "/dev/kvm", "permission", "kvm", user="nobody")


def main():
    guise = sys.argv[1]
    with tempfile.TemporaryDirectory() as directory:
        tiny = guests.assemble("hello", directory)
        commands(guise)
        options(guise, tiny)
        sizes(guise, tiny)
        files(guise, directory)
        default_kernel(guise, directory)
        kvm_without_permission(guise, tiny)
    finish()


main()
