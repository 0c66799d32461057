#!/usr/bin/env python3
"""The real gdb on a hypervisor in the guest: types what docs/vmx.md says, in its order, and wants the answers that stand
there; then what the walk-through leaves out. A line "..." there is any number of lines; the linker's addresses may differ.

Usage: vmx.py GUISE GUESTS SOURCE
"""
import os
import re
import shutil
import sys

from machine import Machine, Session, gdb
from tap import check, finish

guise, images, source = sys.argv[1:]
SYMBOLS = os.path.join(images, "hypervisor.elf64")
PROMPT = "    (gdb) "


def hypervisor(cpu="host,+vmx", name="hypervisor"):
    return Machine(guise, "soft", ["--serial=none", "--cpu", cpu, "-k", os.path.join(images, name + ".elf")])


def walk_through():
    """Commands of docs/vmx.md, each with the lines that are to follow."""
    steps, answer = [], None
    for line in open(os.path.join(source, "docs", "vmx.md")):
        if line.startswith(PROMPT):
            answer = []
            steps.append((line[len(PROMPT):].strip(), answer))
        elif line.startswith("    ") and answer is not None:
            answer.append(line[4:].rstrip())
        else:
            answer = None
    return steps


def pattern(lines):
    """What stands in the document as a regular expression; addresses of the image, which lies at 1 MiB, as numbers."""
    text = ""
    for line in lines:
        if line == "...":
            text += r"(?:.*\n)*?"
            continue
        text += re.sub(r"(0x0*|\b0*|\+)1[01][0-9a-f]{4}\b", lambda _: "@", line).join(["", "\n"])
    parts = text.split(r"(?:.*\n)*?")
    return r"(?:.*\n)*?".join(re.escape(part).replace("@", r"(?:0x)?[0-9a-f]+") for part in parts)


def test_walk_through():
    steps = walk_through()
    check(len(steps) > 20, "docs/vmx.md has a walk-through", steps)
    with hypervisor() as machine:
        session = Session(machine, SYMBOLS)
        for command, answer in steps:
            text = session.ask(command)[:-len(Session.END) - 1]
            text = "".join(line.rstrip() + "\n" for line in text.splitlines() if line.strip())
            check(re.fullmatch(pattern(answer), text), command, "docs/vmx.md:\n%s\ngdb:\n%s" % ("\n".join(answer), text))
        session.close()
        status = machine.end()
        check(status == 0 and "Hello,world\n" in machine.output() and "ok hypervisor " in machine.output(),
              "the hypervisor does not notice", "status %s\n%s" % (status, machine.output()))


def expect(what, text, *patterns):
    at = 0
    for wanted in patterns:
        found = re.compile(wanted, re.M).search(text, at)
        if not found:
            check(False, what, "no %r in\n%s" % (wanted, text[at:]))
            return
        at = found.end()
    check(True, what)


def test_guest():
    """Breakpoints of all kinds in non-root operation, and memory there."""
    with hypervisor() as machine:
        text = gdb(machine, [
            "monitor vmcs", "info threads", "hbreak *0", "continue", "info threads", "delete",
            "break *0x13", "continue", "x/s $rsi", "delete",  # a software one, in the guest's memory
            "watch *(char *)0x2f", "set *(char *)0x25 = 'J'", "x/s 0x25",
            "delete", "hbreak *0x16", "continue", "p/c $al", "set $al = 10", "monitor registers",
            "monitor physical on", "x/1xb 0x13", "monitor physical off", "x/1xb 0x13",
            "delete", "continue"], SYMBOLS)
        expect("before VMXON", text, r"^not in VMX operation$")
        expect("threads", text, r"vCPU 0 \[runnable\]", r"vCPU 0 \[runnable, VMX non-root\]")
        expect("a software breakpoint in the guest", text, r"^Breakpoint 2, 0x0+13 in", r"^0x25:\t\"Hello,world")
        expect("memory is the guest's", text, r"^0x25:\t\"Jello,world")
        expect("a hardware breakpoint, registers", text, r"^Breakpoint 4, 0x0+16 in", r"^\$\d+ = 74 'J'$",
               r"VMX non-root operation", r"^  rip 0+16 ")
        expect("physical addresses are the machine's", text, r"^0x13:\t0x(?!ac)", r"^0x13:\t0xac$")
        # AL became the character that ends the guest's loop.
        check(machine.end() != 0 and "\nok" not in machine.output() and "J" in machine.output(),
              "what gdb has written, the guest has done", machine.output())


def test_groups():
    with hypervisor() as machine:
        text = gdb(machine, ["hbreak run_guest", "continue"] +
                   ["monitor vmcs " + group for group in
                    ("guest", "host", "execution", "exit", "entry", "information", "controls", "nonsense")], SYMBOLS)
        parts = re.split(r"^  VMX root operation.*\n  current VMCS at physical \w+, clear\n", text, flags=re.M)
        headings = [re.findall(r"^\w.*$", part, re.M)[:1] for part in parts[1:]]
        check(headings == [["guest-state area"], ["host-state area"], ["VM-execution controls"], ["VM-exit controls"],
                           ["VM-entry controls"], ["VM-exit information"], ["VM-execution controls"]], "monitor vmcs GROUP", text)
        expect("no such group", text, r"^usage: monitor vmcs \[GROUP\]$")
        fields = re.findall(r"^  ([0-9a-f]{4}) \w+ ", "".join(parts[1:7]), re.M)
        listed = re.findall(r"^\tX\(\w+, +0x(\w+)\)", open(os.path.join(source, "engine/soft/vmx/fields.h")).read(), re.M)
        check(listed and sorted(fields) == sorted(listed), "each field is in one group", set(fields) ^ set(listed))


def test_unnoticed():
    """Guests that look at every exit's details. Steps hold interrupts back, which vmxevents waits for."""
    for name, steps in [("vmx", 3000), ("vmxexits", 3000), ("vmxept", 3000), ("vmxevents", 1)]:
        with hypervisor(name=name) as machine:
            text = gdb(machine, ["hbreak guest_main", "continue", "stepi %d" % steps, "watch *(long *)0x90000",
                                 "hbreak *0x90000", "continue"], os.path.join(images, name + ".elf64"))
            status = machine.end()
            check(status == 0 and "\nok %s " % name in machine.output(), "not noticed by " + name,
                  "status %s\n%s\n%s" % (status, machine.output(), text))


def test_without():
    with hypervisor("host") as machine:
        text = gdb(machine, ["monitor vmcs", "monitor vmcs guest", "kill"], SYMBOLS)
        lines = re.findall(r"^this machine shows no VMX: .*--cpu host,\+vmx$", text, re.M)
        check(len(lines) == 2, "a machine without VMX says so in a line", text)


if not shutil.which("gdb"):
    print("no gdb (Debian: gdb)")
    sys.exit(77)
for test in (test_walk_through, test_guest, test_groups, test_unnoticed, test_without):
    try:
        test()
    except Exception as error:  # the others are still worth running
        check(False, test.__name__, repr(error))
finish()
