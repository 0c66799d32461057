#!/usr/bin/env python3
"""The benchmark works: few units natively and in a guest, checksums compared, values valid, tables and plots drawn.

Usage: bench.py SOURCE BUILD
"""
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

SOURCE, BUILD = sys.argv[1:]
sys.path[:0] = [os.path.join(SOURCE, "bench"), os.path.join(SOURCE, "tests/cli")]

import generate
import measure
import report
from sides import Failure, interleaved, quartiles
from tap import check, finish, skip


def test_programs():
    kernels, job = (os.path.join(BUILD, "bench", name) for name in ("kernels", "job"))
    for words in (["nosuch"], ["-n", "0"], ["-t", "x"]):
        done = subprocess.run([kernels] + words, capture_output=True)
        check(done.returncode == 1 and not done.stdout, "kernels %s is refused" % " ".join(words), done)
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "out")
        done = subprocess.run([job, "name", out, out, "printf", "a"], capture_output=True, text=True)
        # FNV-1a of "a", from its authors' test vectors.
        check(done.stdout.split()[:2] == ["GUISE-JOB", "name"] and done.stdout.endswith(" af63dc4c8601ec8c\n"),
              "job prints name, seconds and checksum", done)
        done = subprocess.run([job, "name", out, out, "false"], capture_output=True)
        check(done.returncode == 1 and not done.stdout, "job fails with its command", done)


def test_run():
    """A whole run of bench.py over the kernels, a unit of each."""
    if not os.path.exists(os.path.join(BUILD, "guest/vmlinuz")):
        return skip("a run natively and in a guest", "no guest/vmlinuz: tools/guest-files.sh makes it")
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "results.json")
        done = subprocess.run([os.path.join(SOURCE, "bench/bench.py"), BUILD, "--units", "1", "--rounds", "1",
                               "--no-qemu", "--parts", "kernels,tiny,exits,vmx", "--json", path],
                              capture_output=True, text=True)
        if not check_status(done):
            return
        results = report.load(path)
        kernels = results["kernels"]
        check(list(kernels) == list(measure.KERNELS), "all kernels ran", list(kernels))
        check(all(len(row[side]) == 1 and row[side][0] > 0 for row in kernels.values() for side in ("native", "soft")),
              "each has a positive time a side", kernels)
        check(set(results["vmx"]) == {"VMCALL", "CPUID", "port write", "EPT violation"} and
              all(0 < row["without"][0] < row["with"][0] for row in results["vmx"].values()),
              "ways to a hypervisor in the guest were timed", results["vmx"])
        check(len(results["tiny"]) == 4 and min(results["tiny"]) > 0, "the tiny guest was timed", results["tiny"])
        check("\033" not in done.stdout and "geometric mean" in done.stdout, "the table is plain text", done.stdout)
        root = xml.etree.ElementTree.parse(os.path.join(directory, "results.svg")).getroot()
        check(root.tag.endswith("svg"), "the plot is well-formed", root.tag)


def check_status(done):
    ok = done.returncode == 0
    check(ok, "bench.py measures the kernels natively and on soft", done.stdout + done.stderr)
    return ok


def sample():
    """Results with known ratios: int at 1.0, 1.1 and 1.2 times native, pipe at 3; qemu's pipe at 2."""
    return {
        "date": "2000-01-01", "host": {"processor": "P", "processors": 2, "kernel": "K"},
        "programs": {"guise": "guise 1", "commit": "", "qemu": None, "guest kernel": "vmlinuz-1"},
        "settings": {"quick": True, "rounds": 3, "job_rounds": 1, "qemu_job_rounds": 1, "kernel_ms": 1, "guise_options": []},
        "kernels": {"int": {"native": [10, 10, 10], "soft": [11, 10, 12], "qemu": [30, 30, 30]},
                    "pipe": {"native": [1, 1, 1], "soft": [3, 3, 3], "qemu": [2, 2, 2]}},
        "jobs": {"xz": {"native": [1], "soft": [1.5]}, "sha256": {"native": [1], "soft": [6]}},
        "boot": {"soft": [1, 1, 1], "qemu": [4, 4, 4]}, "memory": 50 << 20, "tiny": [0.004], "exits": None,
        "vmx": {"VMCALL": {"with": [500, 700, 900], "without": [100, 100, 100]},
                "CPUID": {"with": [2000], "without": [50]}},
        "failures": ["jobs: of a kind"],
    }


def test_report():
    results = sample()
    kernels, jobs = report.kernel_table(results), report.job_table(results)
    cells = {row[0]: row for row in list(kernels.cells()) + list(jobs.cells())}
    check(abs(kernels.soft["int"].value - 1.1) < 1e-9 and abs(kernels.soft["int"].low - 1.05) < 1e-9,
          "the ratio is the median of the rounds', its spread their quartiles", vars(kernels.soft["int"]))
    check(cells["int"][6] == "short" and cells["xz"][6] == "met" and cells["sha256"][6] == "short",
          "verdicts against the goals", cells)
    check(cells["pipe"][6] == "short, slower than QEMU", "a row slower than QEMU is named", cells["pipe"])
    check(report.Ratio(results["kernels"]["int"], "soft").verdict(1.07) == "even", "a goal within the spread", "")
    check(cells["geometric mean"][3] == "3.00", "the geometric mean", cells["geometric mean"])
    singles = {row[0]: row[3] for row in report.single_lines(results)}
    check(sorted(v for v in singles.values() if v) == ["met", "met", "short"], "boot and tiny met, memory short",
          singles)
    check([row[3:7] for row in report.vmx_cells(results)] ==
          [["600 ns", "500 to 700", "1,000 ns", "met"], ["1,950 ns", "1,950 to 1,950", "1,000 ns", "short"]],
          "what a hypervisor adds", list(report.vmx_cells(results)))
    text = report.as_text(results)
    check("\033" not in text and "NOT MEASURED: jobs: of a kind" in text, "failures are shown", text)
    check("\033[32mmet" in report.as_text(results, True), "colours when asked for", "")
    json.dumps(results)

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "document.md")
        with open(path, "w") as f:
            f.write("a\n<!-- bench:summary -->\nold\n<!-- bench:end -->\nb\n"
                    "<!-- bench:exits -->\nkept\n<!-- bench:end -->\n")
        parts = report.markdown_parts(results)
        report.rewrite(path, parts)
        with open(path) as f:
            first = f.read()
        report.rewrite(path, parts)
        with open(path) as f:
            second = f.read()
        check("old" not in first and "kept" in first and parts["summary"] in first and first.endswith("end -->\n"),
              "marked tables are rewritten, others kept", first)
        check(first == second, "rewriting again changes nothing", second)


def test_small():
    check(list(interleaved({"native": 2, "soft": 2, "qemu": 1})) ==
          [(0, "native"), (0, "soft"), (0, "qemu"), (1, "soft"), (1, "native")], "sides alternate", "")
    check(quartiles([3, 1]) == (1, 3) and quartiles([1, 2, 3, 4, 5]) == (2, 4), "quartiles", "")
    check(measure.speed(["sha256", "+F:25:sha256:2e9"]) == 0.5, "openssl's bytes a second", "")
    check(measure.speed(["rsa", "+F2:2:2048:500.0:9"]) == 2 and measure.speed(["rsa", "+F2:2:2048:0.002:9"]) == 2,
          "openssl's signatures, either way", "")
    table = "ns, median     kvm   soft\nCPUID        1    2\nport write   900    120\n"
    check(report.port_write(table) == 120 and report.port_write("") is None, "soft's port write is found", "")
    collected = measure.Collected()
    collected.add("row", "native", 1.0, "aa")
    try:
        collected.add("row", "soft", 1.0, "ab")
        check(False, "another checksum is refused", "")
    except Failure as failure:
        check("row" in str(failure) and "soft" in str(failure), "another checksum is refused", failure)
    text = generate.text(5000)
    check(len(text) == 5000 and text == generate.text(5000), "generated text is the same again", "")
    source = generate.c_source(6)
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-x", "c", "-c", "-", "-o", directory + "/out.o"],
                              input=source, capture_output=True)
        check(done.returncode == 0, "generated C compiles", done.stderr.decode())


test_programs()
test_small()
test_report()
test_run()
finish()
