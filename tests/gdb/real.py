#!/usr/bin/env python3
"""The real gdb on tiny guests: breakpoints, watchpoints, steps, registers, memory, ^C, and a guest that does not notice.

Usage: real.py GUISE ENGINE_USABLE ENGINE GUESTS
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

from machine import Machine, gdb, interrupt_when, start_gdb
import guests
from tap import check, finish, skip

guise, usable, engine, images = sys.argv[1:]
emulated = False  # by a /dev/kvm that knows no INT3, no data breakpoints and no vectors, and takes long

scratch = tempfile.TemporaryDirectory()

# A counter at 0x2000 that goes up; in long mode a read of 0x2008 before it and a write of 0x2010 behind.
guests.SOURCES["work"] = """
    .byte 0x48, 0x8b, 0x04, 0x25, 0x08, 0x20, 0, 0 /* 00: mov 0x2008, %rax */
    .byte 0x48, 0xff, 0x04, 0x25, 0x00, 0x20, 0, 0 /* 08: incq 0x2000 */
    .byte 0x48, 0x89, 0x04, 0x25, 0x10, 0x20, 0, 0 /* 10: mov %rax, 0x2010 */
    .byte 0xeb, 0xe6                               /* 18: jmp 0 */
"""
guests.SOURCES["work16"] = ".code16; 1: incw 0x2000; jmp 1b"
guests.SOURCES["work32"] = ".code32; 1: incl 0x2000; jmp 1b"


def skip_all(why):
    print(why)
    sys.exit(77)


def tiny(name, **more):
    return Machine(guise, engine, ["--serial=none", "-k", os.path.join(images, name + ".elf")], **more)


def symbols(name):
    return os.path.join(images, name + ".elf64")


def flat(name, mode, **more):
    return Machine(guise, engine, ["--serial=none", "--flat", guests.assemble(name, scratch.name), "--flat-mode", mode], **more)


def expect(what, text, *patterns):
    """Every pattern, one behind the other."""
    at = 0
    for pattern in patterns:
        found = re.compile(pattern, re.M).search(text, at)
        if not found:
            check(False, what, "no %r in\n%s" % (pattern, text[at:]))
            return
        at = found.end()
    check(True, what)


def went_on(what, machine, name):
    if emulated:
        skip(what, "this host's %s emulates kernel-mode code, and not all of this guest" % engine)
        return
    status = machine.end()
    check(status == 0 and "ok %s " % name in machine.output(), what, "status %s\n%s" % (status, machine.output()))


def test_breakpoints():
    with tiny("basic") as machine:
        text = gdb(machine, [
            "info registers rip",
            "hbreak guest_main", "continue", "info registers rip cs cr0 efer",
            "break arithmetic", "continue", "x/i $pc", "x/1xb arithmetic",
            "break shifts", "delete 2", "continue", "info threads", "detach"], symbols("basic"))
        expect("waits at the first instruction", text, r"^rip .*<start>")
        expect("hardware breakpoint at a symbol", text, r"^Breakpoint 1, .* in guest_main",
               r"^rip .*<guest_main>", r"^cs +0x8 ", r"^cr0 .*\[ PE .*PG \]", r"^efer .*LMA")
        expect("software breakpoints", text, r"^Breakpoint 2, .* in arithmetic", r"^Breakpoint 3, .* in shifts")
        expect("memory does not show them", text, r"=> .*<arithmetic>:\tmov ", r"<arithmetic>:\t0xb8")
        expect("a vCPU is a thread", text, r"^\* 1 .*vCPU 0 \[runnable\].* in shifts")
        went_on("detach lets the guest go on", machine, "basic")


def test_registers():
    values = [
        ("$rax = 0x1122334455667788", "$rax", "0x1122334455667788"),
        ("$r15 = -2", "$r15", "0xfffffffffffffffe"),
        ("$eflags = 0x847", "$eflags", r"\[ CF PF ZF OF IOPL=0 \]"),
        ("$xmm5.v4_int32[2] = 0x55aa", "$xmm5.v4_int32[2]", "0x55aa"),
        ("$mxcsr = 0x1f00", "$mxcsr", r"\[ DM ZM OM UM PM RC=0 \]"),
        ("$st3 = 0.5", "$st3", r"0\.5"),
        ("$fctrl = 0x27f", "$fctrl", "0x27f"),
        ("$ds = 0x2b", "$ds", "0x2b"),
        ("$fs_base = 0x123000", "$fs_base", "0x123000"),
        ("$gs_base = 0xffff888000000000", "$gs_base", "0xffff888000000000"),
        ("$k_gs_base = 0x77", "$k_gs_base", "0x77"),
        ("$cr2 = 0x1234567", "$cr2", "0x1234567"),
        ("$cr8 = 3", "$cr8", "0x3"),
    ]
    with tiny("basic") as machine:
        commands = ["hbreak guest_main", "continue", "set $old = $ds", "set $oldflags = $eflags", "info registers"]
        for assignment, name, value in values:
            commands += ["set " + assignment, "maintenance flush register-cache",
                         ("p/x " if value.startswith("0x") else "p ") + name]
        commands += ["set $ds = $old", "set $eflags = $oldflags", "set $cr8 = 0", "set $mxcsr = 0x1f80",
                     "set $ds = 0x7770", "continue"]
        text = gdb(machine, commands, symbols("basic"))
        expect("general, segment and control registers", text, r"^rax ", r"^r15 ", r"^rip ", r"^eflags ", r"^gs ",
               r"^fs_base ", r"^gs_base ", r"^cr0 ", r"^cr2 ", r"^cr3 ", r"^cr4 ", r"^cr8 ", r"^efer ", r"^k_gs_base ")
        for number, (assignment, name, value) in enumerate(values, 1):
            expect("set " + assignment, text, r"^\$%d = (%s)$" % (number, value))
        expect("a selector without a descriptor is refused", text, r"Could not write register \"ds\"")
        went_on("the guest with what is set back", machine, "basic")
    if emulated:
        return
    if "avx " in open("/proc/cpuinfo").read():
        with tiny("basic") as machine:
            text = gdb(machine, ["set $ymm9.v8_int32[6] = 4711", "maintenance flush register-cache",
                                 "p $ymm9.v8_int32", "detach"])
            expect("set $ymm9", text, r"= \{0, 0, 0, 0, 0, 0, 4711, 0\}")
    if "avx512f" in open("/proc/cpuinfo").read():
        with tiny("basic") as machine:
            text = gdb(machine, ["set $zmm21.v16_int32[13] = 42", "set $k5 = 0x81", "maintenance flush register-cache",
                                 "p $zmm21.v16_int32", "p/x $k5", "detach"])
            expect("set $zmm21, $k5", text, r"= \{0 <repeats 13 times>, 42, 0, 0\}", r"= 0x81")


def test_memory():
    with tiny("basic") as machine:
        text = gdb(machine, [
            "hbreak guest_main", "continue",
            "set *(long *)0x3ffffc = 0x1122334455667788", "x/1xg 0x3ffffc",  # across two pages
            "x/1xg 0x7ffffffffffff000", "set *(int *)0x8000000000000000 = 1",
            "maintenance packet Qqemu.PhyMemMode:1", "maintenance flush dcache", "x/1xw 0x400000",
            "maintenance packet qqemu.PhyMemMode",
            "maintenance packet Qqemu.PhyMemMode:0",
            "monitor xp 3ffff8 2", "monitor physical", "monitor walk 100000", "monitor walk 7fffffff0000",
            "restore %s binary 0x300000" % symbols("basic"), "x/1xw 0x300000", "detach"], symbols("basic"))
        expect("memory written and read, across pages", text, r"^0x3ffffc:\t0x1122334455667788")
        expect("what is not mapped", text, r"Cannot access memory at address 0x7ffffffffffff000",
               r"Cannot access memory at address 0x8000000000000000")
        expect("physical addresses", text, r"^0x400000:\t0x11223344", r'received: "1"')
        expect("monitor xp", text, r"^0000003ffff8: 5566778800000000 0000000011223344")
        expect("monitor walk", text, r"addresses of memory are those of the vCPU", r"PML4 \[", r"PT +\[.* P W",
               r"physical 100000", r"page walk of 7fffffff0000", r"not present", r"not mapped")
        expect("a file into memory", text, r"^0x300000:\t0x464c457f")
        went_on("the guest with memory written", machine, "basic")


def test_code_written():
    """Code that the guest has translated already is written by the debugger."""
    with flat("work", "long", options=",nowait") as machine:
        text = gdb(machine, ["hbreak *0x18", "continue", "continue", "set *(long *)0x2000 = 0", "continue",
                             "p *(long *)0x2000",
                             # incq becomes decq: /1
                             "set *(unsigned char *)0xa = 0x0c", "continue", "p *(long *)0x2000", "kill"])
        expect("code written", text, r"^\$1 = 1$", r"^\$2 = 0$")
        check(machine.end() == 0, "kill ends the machine")


def test_watchpoints():
    with flat("work", "long") as machine:
        text = gdb(machine, [
            "watch *(long *)0x2000", "continue", "continue", "info registers rip", "delete",
            "awatch *(long *)0x2008", "continue", "info registers rip", "delete",
            "watch *(long *)0x2008", "tbreak *0x18", "continue", "delete",
            "rwatch *(int *)0x200c", "continue", "info registers rip", "delete",
            "set $before = *(long *)0x2000", "watch *(char *)0x2001", "continue",
            "p *(long *)0x2000 - $before < 256", "p/x *(unsigned char *)0x2000",
            "watch *(long (*)[6])0x2000", "continue", "kill"])
        expect("watch: each change, right behind the write", text,
               r"^Hardware watchpoint 1", r"^Old value = 0\nNew value = 1$", r"^Old value = 1\nNew value = 2$",
               r"^rip +0x10 ")
        expect("awatch: a read", text, r"^Hardware access \(read/write\) watchpoint 2", r"^Value = 0", r"^rip +0x8 ")
        expect("watch: a read is none", text, r"^Hardware watchpoint 3", r"^Temporary breakpoint 4, ")
        expect("rwatch: a part of what is read", text, r"^Hardware read watchpoint 5", r"^Value = 0", r"^rip +0x8 ")
        expect("watch: one byte of a counter", text, r"^Hardware watchpoint 6", r"^Old value = 0 .*\nNew value = 1 ",
               r"= 1$", r"= 0x0$")
        expect("too much for four registers", text, r"Could not insert hardware (watchpoint|breakpoints)")


def test_unnoticed():
    """The guest uses debug registers, TF and INT3 itself, and the debugger does."""
    with tiny("debug") as machine:
        text = gdb(machine, ["hbreak guest_main", "continue", "watch *(long *)0x90000", "hbreak *0x90000",
                             "break *0x101000", "stepi 1500", "continue"], symbols("debug"))
        expect("debugged to its end", text, r"^Breakpoint 1, ", r"exited normally")
        went_on("a guest that debugs itself does not notice", machine, "debug")
    with tiny("exceptions") as machine:
        gdb(machine, ["break *0x90000", "hbreak guest_main", "continue", "break *(char *)&guest_main + 5",
                      "hbreak *0x90001", "continue", "continue"], symbols("exceptions"))
        went_on("nor does one with INT3 of its own", machine, "exceptions")


def test_mode_transitions():
    with tiny("basic") as machine:
        commands = ["hbreak build_tables", "continue", "hbreak *(*(unsigned *)$rsp)", "continue"]
        for _ in range(13):
            commands += ["stepi", "info registers rip cs cr0 efer"]
        text = gdb(machine, commands + ["detach"], symbols("basic"))
        steps = re.findall(r"^rip +(\w+) .*\ncs +(\w+) .*\ncr0 .*\[ (.*)\]\nefer .*\[(.*)\]", text, re.M)
        ok = len(steps) == 13
        modes = [("L" if "LMA" in e else "-", "P" if "PG" in c else "-", cs) for _, cs, c, e in steps]
        ok = ok and modes[:11] == [("-", "-", "0x18")] * 11 and modes[11:] == [("L", "P", "0x18"), ("L", "P", "0x8")]
        check(ok, "stepi into paging, and into 64-bit code", text)
        expect("at the right address", text, r"<long_mode>[^$]*Remote target\) detached")
        went_on("the guest goes on in long mode", machine, "basic")
    for name in ["modes"] if emulated else ["modes", "v86"]:
        with tiny(name, options=",arch=i386") as machine:
            text = gdb(machine, ["hbreak *&guest_main", "continue", "stepi 3000", "continue"])
            went_on("stepped through: " + name, machine, name)


def test_small_modes():
    for name, mode, arch, insn, behind in [("work16", "real", "i8086", "incw", "0x4"),
                                           ("work32", "protected", "i386", "incl", "0x6")]:
        with flat(name, mode) as machine:
            text = gdb(machine, ["show architecture", "x/i $pc", "watch *(short *)0x2000", "continue",
                                 "info registers eip", "delete", "break *" + behind, "continue", "continue",
                                 "p/x *(short *)0x2000", "set $eax = 0x89abcdef", "stepi", "p/x $eax", "detach"])
            expect("%s: %s" % (mode, arch), text, r"currently \"%s\"" % arch, r"=> 0x0:\t%s " % insn,
                   r"New value = 1$", r"^eip +%s " % behind, r"^Breakpoint 2, ", r"= 0x3$", r"= 0x89abcdef$")


def test_interrupt():
    with flat("work", "long", options=",nowait", address="tcp") as machine:
        first = gdb(machine, ["p *(long *)0x2000", "detach"])
        process = start_gdb(machine, ["echo going\\n", "continue", "info threads", "p *(long *)0x2000", "stepi",
                                      "info registers rip", "detach"])
        asked = open("/proc/uptime").read()
        interrupt_when(process, lambda: float(open("/proc/uptime").read().split()[0]) >
                       float(asked.split()[0]) + 1.5)
        second = process.communicate(timeout=60)[0]
        third = gdb(machine, ["p *(long *)0x2000", "kill"])
        expect("nowait, and a connection stops it", first, r"^\$1 = \d{3,}$")
        expect("^C of a busy guest", second, r"SIGINT", r"^\* 1 .*vCPU 0", r"^\$1 = \d+", r"^rip +0x")
        counts = [int(re.search(r"^\$1 = (\d+)", text, re.M).group(1)) for text in (first, second, third)
                  if re.search(r"^\$1 = (\d+)", text, re.M)]
        check(len(counts) == 3 and counts[0] < counts[1] < counts[2], "it runs in between and behind detach", counts)
        check(machine.end() == 0, "kill ends the machine", machine.output())


def test_threads():
    """A thread a vCPU, each with its own registers."""
    if engine == "soft":
        skip("two vCPUs", "soft runs one processor")
        return
    with Machine(guise, engine, ["--serial=none", "-c", "2", "-k", os.path.join(images, "timers.elf")]) as machine:
        text = gdb(machine, ["hbreak guest_main", "continue", "info threads", "thread 2", "info registers rip cs",
                             "monitor lapic", "thread 1", "info registers rip", "stepi", "info threads", "kill"],
                   symbols("timers"))
        expect("threads are vCPUs", text, r"^\* 1 .*vCPU 0 \[runnable\].* in guest_main", r"^  2 .*vCPU 1 \[waits for SIPI\]")
        expect("each with its registers", text, r"^rip +0xfff0 ", r"^cs +0xf000 ", r"^  id 01000000", r"^rip .*<guest_main>")
        expect("one is stepped", text, r"^\* 1 .*vCPU 0", r"^  2 .*0x0+fff0 ")


def test_chips():
    with tiny("interrupts") as machine:
        text = gdb(machine, ["hbreak guest_main", "continue", "monitor help", "monitor lapic", "monitor ioapic",
                             "monitor pic", "monitor pit", "monitor registers", "monitor msr c0000080",
                             "monitor msr 12345678", "monitor walk", "monitor nonsense", "detach"],
                   symbols("interrupts"))
        expect("monitor help", text, r"^monitor walk ADDRESS ", r"^monitor lapic ")
        expect("monitor lapic", text, r"spurious 000000ff", r"lint0 .*ExtINT", r"in service: none")
        expect("monitor ioapic", text, r"pin  0 .*masked", r"pin 23 ")
        expect("monitor pic, pit", text, r"master  vectors from", r"slave   vectors from", r"channel 0 ", r"channel 2 ")
        expect("monitor registers", text, r"rip 0", r"cs  0008  base", r"dr7 400", r"xcr0", r"kernel_gs_base")
        expect("monitor msr", text, r"msr c0000080  0000000000000d01", r"there is no MSR 12345678")
        expect("wrong words", text, r"usage: monitor walk ADDRESS", r"unknown command; \"monitor help\"")
        went_on("the guest that was looked at", machine, "interrupts")


def test_ends():
    with flat("triple_fault", "protected") as machine:
        text = gdb(machine, ["continue", "info registers eip", "continue"])
        expect("a guest that fails is shown first", text, r"The guest failed: triple fault", r"SIGABRT", r"^eip +0x7 ",
               r"exited with code 02")
        check(machine.end() == 2, "and has failed then")
    with flat("reset", "real") as machine:
        text = gdb(machine, ["stepi", "continue", "info registers eip", "kill"])
        expect("a reset stops at the first instruction", text, r"SIGTRAP", r"^eip +0x0 ")
    with flat("exit_7", "real") as machine:
        text = gdb(machine, ["continue"])
        expect("exit", text, r"exited with code 02")
    with flat("exit_0", "real", options=",nowait") as machine:
        check(machine.end() == 0, "nowait and nobody comes", machine.output())


def main():
    if not shutil.which("gdb"):
        skip_all("no gdb (Debian: gdb)")
    probe = subprocess.run([usable, engine], stdout=subprocess.PIPE, text=True)
    if probe.returncode == 77:
        skip_all(probe.stdout.strip())
    if probe.returncode not in (0, 3):
        sys.exit("engine_usable failed")
    global emulated
    emulated = probe.returncode == 3
    tests = [test_registers, test_memory, test_mode_transitions, test_interrupt, test_threads, test_chips, test_ends]
    if not emulated:
        tests += [test_breakpoints, test_code_written, test_watchpoints, test_unnoticed, test_small_modes]
    for test in tests:
        try:
            test()
        except Exception as error:  # a guest that never comes up, say: the others are still worth running
            check(False, test.__name__, repr(error))
    finish()


main()
