#!/usr/bin/env python3
"""gdb on Debian's kernel, soft engine: its first instructions, ^C, a breakpoint on the system call entry, a watchpoint on
a user's page, and its self-check right in all parts nevertheless.

Usage: linux.py GUISE GUEST
"""
import os
import re
import shutil
import sys

from machine import Machine, Session, interrupt_when
from tap import check, finish

guise, guest = sys.argv[1:]


def skip_all(why):
    print(why)
    sys.exit(77)


def number(text, pattern):
    found = re.search(pattern, text, re.M)
    return int(found.group(1), 16) if found else -1


def main():
    for name in ["vmlinuz", "initramfs.cpio"]:
        if not os.access(os.path.join(guest, name), os.R_OK):
            skip_all("no %s/%s: tools/guest-files.sh makes it (make test runs it)" % (guest, name))
    if not shutil.which("gdb"):
        skip_all("no gdb (Debian: gdb)")
    release = os.path.basename(os.path.realpath(os.path.join(guest, "vmlinuz")))[len("vmlinuz-"):]
    with Machine(guise, "soft", [
            "-m", "512M", "-k", os.path.join(guest, "vmlinuz"), "-i", os.path.join(guest, "initramfs.cpio"), "-a",
            "console=ttyS0 quiet guise.script=check guise.release=%s guise.cpus=1 guise.memory=512" % release]) as machine:
        session = Session(machine)
        text = session.ask("p/x $pc", "stepi 10", "stepi 3000", "p/x $pc")
        check(number(text, r"^\$1 = 0x(\w+)") < 0x100000000, "waits at the first instruction", text)
        check(number(text, r"^\$2 = 0x(\w+)") >= 0xffffffff80000000, "steps into the kernel's own mapping", text)

        text = session.ask("continue", meanwhile=lambda: interrupt_when(
            session.process, lambda: "GUISE-CHECK uname" in machine.output()))
        registers = session.ask("monitor registers", "monitor lapic", "x/2i $pc")
        entry = number(registers, r"msr c0000082 +(\w+) +lstar")
        check("SIGINT" in text and entry > 0xffffffff80000000, "^C of a running Linux, and its MSRs", text + registers)

        # write(): one that returns
        text = session.ask("break *0x%x if $rax == 1" % entry, "continue", "info registers cs rcx", "x/i $pc",
                           "p/x $gs_base", "stepi", "p/x $gs_base")
        check(re.search(r"^Breakpoint 1, 0x%016x" % entry, text, re.M), "a breakpoint on system calls", text)
        check(number(text, r"^cs +0x(\w+)") == 0x10 and 0 < number(text, r"^rcx +0x(\w+)") < 0x800000000000,
              "from user mode into the kernel's", text)
        check("swapgs" in text and number(text, r"^\$3 = 0x(\w+)") < 0x800000000000 and
              number(text, r"^\$4 = 0x(\w+)") > 0xffff000000000000, "a step over swapgs", text)

        text = session.ask("delete", "hbreak *$rcx", "continue", "info registers cs")
        check("Breakpoint 2, " in text and number(text, r"^cs +0x(\w+)") == 0x33, "a hardware breakpoint in user mode",
              text)
        text = session.ask("delete", "awatch -location *(long *)$rsp", "continue")
        check(re.search(r"^Hardware access \(read/write\) watchpoint 3.*\n\n(Old v|V)alue = ", text, re.M),
              "a watchpoint on a user's stack", text)
        session.ask("delete", "detach")
        session.close()
        status = machine.end()
        check(status == 0 and "GUISE-CHECK all ok" in machine.output(), "the guest does not mind",
              "status %s\n%s" % (status, machine.output()))
    finish()


main()
