#!/usr/bin/env python3
"""Writes a cpio archive ("newc", as the kernel's initramfs wants it) from a list on standard input.

Usage: tools/mkcpio.py OUTPUT < LIST
Lines of the list:
    dir PATH MODE
    file PATH MODE SOURCE
    link PATH TARGET
The same list and files give the same bytes: owner is root, times are 0, inodes are counted. Parent directories
must be listed first. Nothing here needs root. Format: Documentation/driver-api/early-userspace/buffer-format.rst.
"""
import stat
import sys


def entry(out, ino, path, mode, data=b""):
    name = path.encode() + b"\0"
    fields = (ino, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + name
    out.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: mkcpio.py OUTPUT < LIST")
    with open(sys.argv[1], "wb") as out:
        ino = 0
        for ino, line in enumerate((l for l in sys.stdin if l.strip()), 1):
            kind, path, *rest = line.split()
            path = path.lstrip("/")
            if kind == "dir":
                entry(out, ino, path, stat.S_IFDIR | int(rest[0], 8))
            elif kind == "file":
                with open(rest[1], "rb") as source:
                    entry(out, ino, path, stat.S_IFREG | int(rest[0], 8), source.read())
            elif kind == "link":
                entry(out, ino, path, stat.S_IFLNK | 0o777, rest[0].encode())
            else:
                sys.exit("mkcpio.py: line %d: unknown kind %r" % (ino, kind))
        entry(out, 0, "TRAILER!!!", 0)


main()
