#!/usr/bin/env python3
"""Takes the ELF kernel out of a bzImage whose payload is LZ4 in the kernel's ("legacy") format, as Debian's is.

Usage: vmlinux.py BZIMAGE OUTPUT
Ends with status 77 where the payload is something else or liblz4 is missing. This is on purpose not the
program's own loader. Formats: Documentation/x86/boot.rst; LZ4's lz4_Frame_format.md, "Legacy frame".
"""
import ctypes
import struct
import sys

LEGACY_MAGIC = b"\x02\x21\x4c\x18"
LEGACY_BLOCK = 8 << 20


def skip(why):
    print(why)
    sys.exit(77)


def payload(image):
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return image[start:start + length]


def main():
    with open(sys.argv[1], "rb") as file:
        data = payload(file.read())
    if data[:4] != LEGACY_MAGIC:
        skip("the kernel's payload is not LZ4 (it begins with %s)" % data[:4].hex())
    try:
        lz4 = ctypes.CDLL("liblz4.so.1")
    except OSError as error:
        skip("no liblz4: %s" % error)
    block = ctypes.create_string_buffer(LEGACY_BLOCK)
    position = 4
    with open(sys.argv[2], "wb") as out:
        # The last 4 bytes of the payload are the unpacked size, put there by the kernel's build.
        while position + 4 < len(data):
            size, = struct.unpack_from("<I", data, position)
            position += 4
            got = lz4.LZ4_decompress_safe(data[position:position + size], block, size, LEGACY_BLOCK)
            if got < 0:
                sys.exit("error: damaged LZ4 block at %d of the payload" % position)
            out.write(block.raw[:got])
            position += size


main()
