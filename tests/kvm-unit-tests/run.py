#!/usr/bin/env python3
"""kvm-unit-tests' VMX tests (or others of them) on the soft engine, unmodified, from a built tree.

Usage: KVM_UNIT_TESTS=TREE run.py GUISE [quick|slow|ENTRY...]

TREE is a directory in which ./configure and make have run. An entry is one of x86/unittests.cfg with file = vmx.flat,
or named on the command line; it gets its own arguments and memory size. The result is TAP, a line an entry. Without
TREE the test is skipped.
"""
import os
import re
import shlex
import subprocess
import sys
import tempfile

from known import EXTRA, KNOWN, LONG, MAY

FILE = "vmx.flat"
LIMIT = 600  # seconds for an entry that hangs
STATUS = re.compile(r"debug-exit port with code (\d+)")
FAILED, SKIPPED, ABORTED = 1, 38, 63
# How lines begin that known.py has to have, and the code that the guest then ends with.
NOTEWORTHY = {"FAIL: ": FAILED, "XPASS: ": FAILED, "VM-Exit failure": ABORTED, "SKIP: ": 0, "Host skipping test: ": 0,
              "Guest skipping test: ": 0, "Feature required for ": 0}
SUMMARY = re.compile(r"^SUMMARY: (\d+) tests(?:, (\d+) unexpected failures)?(.*)$", re.M)

# What the guest cannot find out by itself.
ENVIRONMENT = "NR_CPUS=1\nMEMSIZE=%d\n"
# Where there is a test device, these take the monitor for KVM, with its hypercalls.
WITHOUT_DEVICE = {"apic.flat"}


def skip_all(why):
    print(why)
    sys.exit(77)


def read_entries(path):
    """The entries of unittests.cfg: {name: {key: value}}."""
    entries, entry = {}, {}
    with open(path) as lines:
        for line in lines:
            section = re.match(r"\[(.*)\]", line)
            value = re.match(r"(\w+)\s*=\s*(.*\S)", line)
            if section:
                entry = entries.setdefault(section.group(1), {})
            elif value:
                entry[value.group(1)] = value.group(2)
    return entries


def memory_of(entry):
    size = re.search(r"-m (\d+)(g?)", entry.get("qemu_params", ""))
    return int(size.group(1)) * (1024 if size.group(2) else 1) if size else 512


def check_fails(entry):
    """Some entries are for a host whose kvm module has a certain option: why it is not this one, or None."""
    check = entry.get("check")
    if not check:
        return None
    path, _, want = check.partition("=")
    try:
        with open(path) as file:
            have = file.read().strip()
    except OSError:
        have = "nothing"
    return None if have == want else "for hosts with %s" % check


def run(guise, tree, entry):
    """Runs an entry. Returns its output and the code that it ended with, or None and what became of it."""
    memory = memory_of(entry)
    with tempfile.NamedTemporaryFile("w") as environment:
        environment.write(ENVIRONMENT % memory)
        if entry["file"] in WITHOUT_DEVICE:
            environment.write("TEST_DEVICE=0\n")
        environment.flush()
        command = [guise, "run", "-e", "soft", "--cpu", "host,+vmx", "--test-device", "--no-reboot", "-m",
                   "%dM" % memory, "-k", os.path.join(tree, "x86", entry["file"]), "-i", environment.name,
                   "-a", " ".join(shlex.split(entry.get("test_args", "")))]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=LIMIT)
        except subprocess.TimeoutExpired as late:
            return (late.output or b"").decode(errors="replace"), "still running after %d s" % LIMIT
    output = done.stdout.decode(errors="replace").replace("\r", "")
    code = STATUS.search(output)
    if code:
        return output, int(code.group(1))
    return output, 0 if done.returncode == 0 else "guise ended with status %d" % done.returncode


def compare(output, known, may):
    """Lines that are not known, and rows of @known that fit none."""
    lines = {line.strip() for line in output.splitlines() if line.strip().startswith(tuple(NOTEWORTHY))}
    strange = [line for line in lines if not line.startswith((*known, *may))]
    return sorted(strange), [row for row in known if not any(line.startswith(row) for line in lines)]


def judge(name, output, code):
    """Returns (passed, what to say, details, reason of the skip)."""
    known = KNOWN.get(name, {})
    strange, stale = compare(output, known, MAY.get(name, {}))
    found = SUMMARY.findall(output)
    tests, failures, rest = found[-1] if found else ("no", "0", "")
    skips = re.search(r"(\d+) skipped", rest)
    counts = "%s checks, %s failed, %s skipped" % (tests, failures or 0, skips.group(1) if skips else 0)
    details = ["%s [%s]" % (row, reason) for row, reason in known.items()]
    details += ["not known: " + line for line in strange[:20]] + ["fits no line: " + row for row in stale]
    expected = max([code for row in known for start, code in NOTEWORTHY.items() if row.startswith(start)], default=0)
    good = not strange and not stale and (code == expected or (code == SKIPPED and expected == 0))
    if not good:
        details.append("ended with code %s" % code if isinstance(code, int) else code)
    if not good:
        return False, counts, details + output.splitlines()[-5:], None
    return True, counts, details, "; ".join(sorted(set(known.values()))) if code == SKIPPED else None


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    guise, wanted = sys.argv[1], sys.argv[2:]
    tree = os.environ.get("KVM_UNIT_TESTS")
    if not tree:
        skip_all("KVM_UNIT_TESTS does not name a built tree of kvm-unit-tests")
    if not os.path.exists(os.path.join(tree, "x86", FILE)):
        skip_all("%s: no x86/%s, has kvm-unit-tests been built there?" % (tree, FILE))
    entries = read_entries(os.path.join(tree, "x86", "unittests.cfg"))
    for name, arguments in EXTRA.items():
        entries[name] = {"file": FILE, "test_args": arguments}
    if wanted in ([], ["quick"], ["slow"]):
        which = wanted[0] if wanted else "all"
        wanted = [name for name, entry in entries.items()
                  if entry["file"] == FILE and (which == "all" or (name in LONG) == (which == "slow"))]
    unknown = [name for name in wanted if name not in entries]
    if unknown:
        sys.exit("%s: no entry of unittests.cfg" % unknown[0])

    print("1..%d" % len(wanted), flush=True)
    failed = False
    for number, name in enumerate(wanted, 1):
        why = check_fails(entries[name])
        if why:
            print("ok %d - %s # SKIP %s" % (number, name, why), flush=True)
            continue
        passed, counts, details, reason = judge(name, *run(guise, tree, entries[name]))
        failed |= not passed
        print("%s %d - %s: %s%s" % ("ok" if passed else "not ok", number, name, counts,
                                    " # SKIP " + reason if reason else ""))
        for line in details:
            print("# " + line)
        sys.stdout.flush()
    sys.exit(1 if failed else 0)


main()
