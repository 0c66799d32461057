#!/usr/bin/env python3
"""Writes a raw disk that starts a Linux kernel by GRUB, without a file system, partitions or root.

Usage: disk.py GRUB OUTPUT KERNEL INITRD COMMAND-LINE
GRUB is the directory of GRUB's i386-pc files. Sector 0 is GRUB's boot.img, its core image follows, then kernel and
initrd, which the core image's own commands name by their sectors.
"""
import os
import subprocess
import sys
import tempfile

SECTOR = 512
CORE = 1  # where boot.img looks for the core image
FILES = 2048  # the first sector behind it: room for 1 MiB


def sectors(data):
    return -(-len(data) // SECTOR)


def core_image(grub, commands):
    with tempfile.TemporaryDirectory() as tmp:
        script, image = os.path.join(tmp, "script"), os.path.join(tmp, "image")
        with open(script, "w") as f:
            f.write(commands)
        subprocess.run(
            ["grub-mkimage", "-d", grub, "-O", "i386-pc", "-p", "(hd0)", "-c", script, "-o", image]
            + ["biosdisk", "linux", "boot"],
            check=True,
        )
        with open(image, "rb") as f:
            return f.read()


def main():
    if len(sys.argv) != 6:
        sys.exit("usage: disk.py GRUB OUTPUT KERNEL INITRD COMMAND-LINE")
    grub, output, kernel, initrd, command_line = sys.argv[1:]
    with open(os.path.join(grub, "boot.img"), "rb") as f:
        boot = f.read()
    with open(kernel, "rb") as f:
        kernel = f.read()
    with open(initrd, "rb") as f:
        initrd = f.read()
    first, second = FILES, FILES + sectors(kernel)
    core = core_image(
        grub,
        f"linux (hd0){first}+{sectors(kernel)} {command_line}\n"
        f"initrd (hd0){second}+{sectors(initrd)}\n"
        "boot\n",
    )
    if CORE + sectors(core) > FILES:
        sys.exit(f"disk.py: GRUB's core image has {len(core)} bytes, more than the room for it")
    with open(output, "wb") as out:
        out.write(boot)
        for sector, data in ((CORE, core), (first, kernel), (second, initrd)):
            out.seek(sector * SECTOR)
            out.write(data)
        # Whole cylinders, as the emulator wants its disks: 16 heads of 63 sectors.
        cylinder = 16 * 63 * SECTOR
        out.truncate(-(-(second + sectors(initrd)) * SECTOR // cylinder) * cylinder)


main()
