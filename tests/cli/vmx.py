#!/usr/bin/env python3
"""What is seen of a hypervisor in the guest: --trace vmx, --stats, and the dump when an entry failed and it dies of that.

Usage: vmx.py GUISE HYPERVISOR-IMAGE
"""
import os
import re
import struct
import subprocess
import sys
import tempfile

from tap import check, finish

guise, image = sys.argv[1:]
scratch = tempfile.TemporaryDirectory()
NOWHERE = 0x7ff000000000


def run(options, path=image):
    done = subprocess.run([guise, "run", "-e", "soft", "--cpu", "host,+vmx", "-m", "64M", "--serial", "none", *options,
                           "-k", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def changed(name, **fields):
    """The image with other values in its table of VMCS fields (number, value), by name or number."""
    numbers = {"host_rip": 0x6c16, "host_idtr_base": 0x6c0e, "guest_cs_access": 0x4816, "host_cs_selector": 0x0c02,
               "cr3_target_count": 0x400a}
    data = open(image, "rb").read()
    for field, value in fields.items():
        at = [m.start() for m in re.finditer(re.escape(struct.pack("<Q", numbers[field])), data) if m.start() % 8 == 0]
        if len(at) != 1:
            sys.exit("the table has %s at %s" % (field, at))
        data = data[:at[0] + 8] + struct.pack("<Q", value) + data[at[0] + 16:]
    path = os.path.join(scratch.name, name)
    open(path, "wb").write(data)
    return path


def trace_lines(text):
    return [line[len("vmx: vcpu 0: "):] for line in text.splitlines() if line.startswith("vmx: vcpu 0: ")]


def test_trace():
    status, out, err = run(["--trace", "vmx"])
    lines = trace_lines(err)
    prints = [line for letter in b"Hello,world\n"
              for line in ("exit, rip 0x14: I/O instruction: out 0xf1, al %#x" % letter, "enter, rip 0x16")]
    wanted = ["VMX operation on", "enter, rip 0 (launch)",
              "exit, rip 0x5: CPUID: leaf 0x40000000, subleaf 0", "enter, rip 0x7",
              "exit, rip 0x7: EPT violation: write of gpa 0x1000 (linear 0x1000), which is not present",
              "enter, rip 0x7"] + prints + [
              "exit, rip 0x21: VMCALL: rax 0x4000000a", "enter, rip 0x24", "exit, rip 0x24: HLT", "VMX operation off"]
    check(status == 0 and out.startswith("Hello,world\n"), "the hypervisor's guest prints", (status, out, err))
    check(lines == wanted, "--trace vmx: every entry and exit", "\n".join(lines))
    lines = trace_lines(run(["--trace", "vmx=2"])[2])
    check(len(lines) > len(wanted) and any(line.startswith("  qualification 0xf10040 length 2 ") for line in lines),
          "--trace vmx=2: registers and fields", "\n".join(lines))
    status, _, err = run([])
    check(status == 0 and not err, "without it nothing", err)


def test_stats():
    err = run(["--stats"])[2]
    rows = {found.group(2): (int(found.group(1)), float(found.group(3)))
            for found in re.finditer(r"^ *(\d+)  (\S.*?) +(\d+\.\d+) +\d+$", err, re.M)}
    counts = {reason: count for reason, (count, _) in rows.items()}
    check(counts == {"CPUID": 1, "HLT": 1, "VMCALL": 1, "I/O instruction": 12, "EPT violation": 1},
          "--stats: exits by reason", err)
    check(re.search(r"^ *16  VM entries of", err, re.M) and re.search(r"^ *16  VM exits to it", err, re.M),
          "--stats: entries and exits", err)
    check(all(rows[reason][1] > 0 for reason in ("CPUID", "I/O instruction", "EPT violation")),
          "--stats: time by reason", err)
    check(re.search(r"^ *0\.\d*[1-9]\d*  seconds in its guests$", err, re.M), "--stats: time in non-root operation", err)


def test_failures():
    dies = {"host_rip": NOWHERE, "host_idtr_base": NOWHERE}
    status, _, err = run(["--trace", "vmx=3"], changed("late", guest_cs_access=0x9c, **dies))
    text = "guest state: GUEST_CS_ACCESS = 0x9c: "
    check(("VM entry fails at rip 0x" in err) and text in err, "trace: the check and the field", err)
    check("exit, rip 0x" in err and "entry failure, invalid guest state" in err, "trace: and the exit", err)
    check("  GUEST_TR_ACCESS (0x4822) = 0x8b  system, type 11, DPL 0" in err, "trace=3: the VMCS", err)
    check(status == 2 and "  VMX root operation\n  a VM entry failed: " + text in err and "(0 succeeded since)" in err,
          "the dump of a hypervisor that dies of it", err)
    for name, fields, wanted in [
            ("host", {"host_cs_selector": 0}, ("host state: HOST_CS_SELECTOR = 0: ", "VMfail 8 ",
                                               "VM entry with invalid host state")),
            ("control", {"cr3_target_count": 5}, ("controls: CR3_TARGET_COUNT = 0x5: ", "VMfail 7 ",
                                                  "VM entry with invalid controls"))]:
        status, _, err = run(["--trace", "vmx"], changed(name, **fields))
        check(status != 0 and all(word in err for word in wanted), "an early failure: " + name, err)


test_trace()
test_stats()
test_failures()
finish()
