#!/usr/bin/env python3
"""Tables and plots from the benchmark's JSON file.

Usage: bench/report.py RESULTS.json           the tables as text
       bench/report.py RESULTS.json --docs    rewrites the marked tables of README.md and docs/performance.md and
                                              draws docs/performance.svg and .png

The file: "kernels", "jobs": {row: {side: [value, one a round]}} (nanoseconds of an operation; seconds, or for
openssl what JOBS says), "boot": {side: [seconds]}, "memory": bytes, "tiny": [seconds], "exits": text or null,
"vmx": {instruction: {"with": [nanoseconds], "without": [nanoseconds]}},
"host", "programs", "settings", "failures". A part that was not measured is missing.

The ratio of a row is the median over the rounds of guest time divided by native time of the same round; its
spread are the quartiles over the rounds.
"""
import json
import os
import re
import statistics
import sys

import plot
from sides import HERE, median, quartiles

KERNEL_GOALS = {"int": 1.0, "branch": 1.05, "chase": 1.3, "memcpy": 1.1, "float": 1.05, "vec": 1.2, "fib": 2.0,
                "indirect": 2.0, "crc": 1.1, "syscall": 2.0, "pgfault": 2.5, "fork": 2.0, "pipe": 1.0}
KERNEL_WORDS = {
    "int": "32-bit rotates, adds, xors in registers", "branch": "unpredictable branches on an LCG",
    "chase": "dependent loads over 4 MiB", "memcpy": "1 MiB memcpy", "float": "double mul, add, sqrt",
    "vec": "64 floats, mul-add, auto-vectorized", "fib": "recursive fib(20): calls, returns, stack",
    "indirect": "calls through a table", "crc": "SSE4.2 crc32 over 32 KiB", "syscall": "getppid",
    "pgfault": "mmap 1 MiB, touch 256 pages, munmap", "fork": "fork, exit, wait",
    "pipe": "round trip between two processes"}
KERNEL_MEAN_GOAL = 1.4
# The unit of a value, and what the job does.
JOBS = {
    "sha256": ("ns/B", "openssl speed sha256, 16 KiB"), "aes-256-gcm": ("ns/B", "openssl speed aes-256-gcm, 16 KiB"),
    "rsa2048": ("ms", "openssl speed rsa2048, a signature"), "xz": ("s", "xz -6 of 2.4 MiB of text"),
    "zstd": ("s", "zstd -12 of 12 MiB of text"), "sqlite3": ("s", "sqlite3: a million rows, index, queries"),
    "python3": ("s", "pure-Python loops"), "gcc": ("s", "gcc -O2 of 3,000 lines of C")}
JOB_GOAL, JOB_MEAN_GOAL = 2.0, 1.5
BOOT_GOAL = 1 / 3
MEMORY_GOAL_MIB, TINY_GOAL_MS, EXIT_GOAL_NS = 48, 5, 150
VMX_GOAL_NS = 1000


def load(path):
    with open(path) as f:
        return json.load(f)


class Ratio:
    """Guest time divided by native time, over the rounds."""

    def __init__(self, row, side, other="native"):
        each = [a / b for a, b in zip(row[side], row[other])]
        self.value = median(each)
        self.low, self.high = quartiles(each)

    def verdict(self, goal):
        """met; even, when the goal is within the spread; short."""
        return "met" if self.value <= goal else "even" if self.low <= goal else "short"


def mean(ratios):
    return statistics.geometric_mean([r.value for r in ratios]) if ratios else None


def number(value):
    """Three digits, or as many as stand before the point, in groups of thousands."""
    return "{:,.0f}".format(value) if value >= 100 else "%.3g" % value if value < 10 else "%.1f" % value


class Table:
    """Rows against a goal each: kernels or jobs."""

    def __init__(self, rows, goals, mean_goal, units):
        self.rows, self.goals, self.mean_goal, self.units = rows, goals, mean_goal, units
        self.soft = {name: Ratio(row, "soft") for name, row in rows.items() if "soft" in row and "native" in row}
        self.qemu = {name: Ratio(row, "qemu") for name, row in rows.items() if "qemu" in row and "native" in row}

    def cells(self):
        """Yields name, native, soft, ratio, spread, goal, verdict, QEMU's ratio: strings."""
        for name, row in self.rows.items():
            soft, qemu, unit = self.soft.get(name), self.qemu.get(name), self.units(name)
            verdict = soft.verdict(self.goals[name]) if soft else ""
            if soft and qemu and soft.value > qemu.value:
                verdict += ", slower than QEMU"
            yield [name,
                   "%s %s" % (number(median(row["native"])), unit) if "native" in row else "",
                   "%s %s" % (number(median(row["soft"])), unit) if "soft" in row else "",
                   "%.2f" % soft.value if soft else "",
                   "%.2f to %.2f" % (soft.low, soft.high) if soft else "",
                   "%.2f" % self.goals[name], verdict, "%.2f" % qemu.value if qemu else ""]
        soft, qemu = mean(self.soft.values()), mean(self.qemu.values())
        yield ["geometric mean", "", "", "%.2f" % soft if soft else "", "", "%.2f" % self.mean_goal,
               ("met" if soft <= self.mean_goal else "short") if soft else "", "%.2f" % qemu if qemu else ""]


HEADINGS = ["", "native", "soft", "soft/native", "quartiles", "goal", "verdict", "QEMU/native"]


def kernel_table(results):
    return Table(results["kernels"], KERNEL_GOALS, KERNEL_MEAN_GOAL, lambda name: "ns")


def job_table(results):
    rows = results["jobs"]
    return Table(rows, {name: JOB_GOAL for name in rows}, JOB_MEAN_GOAL, lambda name: JOBS[name][0])


def single_lines(results):
    """Returns [(what, measured, goal, verdict)] of what is not a table."""
    out = []
    boot = results.get("boot", {})
    for side in boot:
        low, high = quartiles(boot[side])
        out.append(("process start to init, %s" % side, "%.2f s (%.2f to %.2f)" % (median(boot[side]), low, high), "",
                    ""))
    if "soft" in boot and "qemu" in boot:
        ratio = Ratio(boot, "soft", "qemu")
        out.append(("process start to init, soft/QEMU", "%.2f (%.2f to %.2f)" % (ratio.value, ratio.low, ratio.high),
                    "%.2f" % BOOT_GOAL, ratio.verdict(BOOT_GOAL)))
    if "memory" in results:
        mib = results["memory"] / 2**20
        out.append(("memory beyond the guest's own, its peak while booting", "%.1f MiB" % mib,
                    "%d MiB" % MEMORY_GOAL_MIB, "met" if mib < MEMORY_GOAL_MIB else "short"))
    if "tiny" in results:
        ms = [s * 1000 for s in results["tiny"]]
        low, high = quartiles(ms)
        out.append(("process start to the tiny guest's first output",
                    "%.1f ms (%.1f to %.1f)" % (median(ms), low, high), "%d ms" % TINY_GOAL_MS,
                    "met" if median(ms) < TINY_GOAL_MS else "even" if low < TINY_GOAL_MS else "short"))
    port = port_write(results.get("exits") or "")
    if port is not None:
        out.append(("a port write that reaches the monitor and comes back", "%.0f ns" % port, "%d ns" % EXIT_GOAL_NS,
                    "met" if port < EXIT_GOAL_NS else "short"))
    return out


VMX_HEADINGS = ["", "to a hypervisor and back", "without one", "added", "quartiles", "goal", "verdict"]


def vmx_cells(results):
    """Yields a row of strings for each instruction that a guest's guest leaves by."""
    for name, row in results["vmx"].items():
        added = [a - b for a, b in zip(row["with"], row["without"])]
        low, high = quartiles(added)
        yield [name, "%s ns" % number(median(row["with"])), "%s ns" % number(median(row["without"])),
               "%s ns" % number(median(added)), "%s to %s" % (number(low), number(high)), "%s ns" % number(VMX_GOAL_NS),
               "met" if median(added) < VMX_GOAL_NS else "even" if low < VMX_GOAL_NS else "short"]


def port_write(exits):
    """Returns soft's nanoseconds from the table of guise bench exits, or None."""
    lines = [line for line in exits.splitlines() if line.strip()]
    columns = lines[0].split() if lines else []
    for line in lines[1:]:
        if line.startswith("port write") and "soft" in columns:
            try:
                return float(line.split()[columns.index("soft") - len(columns)])
            except ValueError:
                return None
    return None


def where(results):
    """Returns a sentence: on what machine, when, how often."""
    host, programs, settings = results["host"], results["programs"], results["settings"]
    rounds = settings["rounds"]
    text = "%d x %s, Linux %s; %s" % (host["processors"], host["processor"], host["kernel"], programs["guise"])
    if programs["commit"]:
        text += " (%s)" % programs["commit"]
    if programs["qemu"]:
        text += "; " + re.sub(r" \(.*", "", programs["qemu"])
    text += "; guest Linux %s; %s" % (programs["guest kernel"].replace("vmlinuz-", ""), results["date"])
    text += "; rounds: %d" % rounds
    text += ", of the jobs %d, in QEMU %d" % (settings["job_rounds"], settings["qemu_job_rounds"])
    return text + ("; make bench QUICK=1" if settings["quick"] else "")


def text_table(headings, rows, paint=lambda cell: ""):
    rows = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in [headings] + rows) for i in range(len(headings))]
    out = []
    for row in [headings] + rows:
        cells = []
        for i, cell in enumerate(row):
            padded = cell.ljust(widths[i]) if i == 0 or headings[i] == "verdict" else cell.rjust(widths[i])
            colour = paint(cell)
            cells.append("%s%s\033[0m" % (colour, padded) if colour else padded)
        out.append("  ".join(cells).rstrip())
    return "\n".join(out)


def colours(cell):
    for word, code in (("met", "\033[32m"), ("even", "\033[33m"), ("short", "\033[31m")):
        if cell == word or cell.startswith(word + ","):
            return code
    return ""


def as_text(results, colour=False):
    """Returns everything as text for a terminal."""
    paint = colours if colour else lambda cell: ""
    parts = [where(results)]
    if results.get("kernels"):
        parts.append("Kernels, time of one operation\n" + text_table(HEADINGS, kernel_table(results).cells(), paint))
    if results.get("jobs"):
        parts.append("Whole jobs\n" + text_table(HEADINGS, job_table(results).cells(), paint))
    singles = single_lines(results)
    if singles:
        parts.append(text_table(["", "measured", "goal", "verdict"], singles, paint))
    if results.get("vmx"):
        parts.append("A guest's guest leaves\n" + text_table(VMX_HEADINGS, vmx_cells(results), paint))
    if results.get("exits"):
        parts.append("guise bench exits\n" + results["exits"])
    for failure in results.get("failures", []):
        parts.append("NOT MEASURED: " + failure)
    return "\n\n".join(parts)


def markdown(headings, rows):
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def markdown_parts(results):
    """Returns {mark: text} for the documents."""
    parts = {"where": where(results) + "."}
    summary = []
    for key, title, table in (("kernels", "thirteen kernels", kernel_table), ("jobs", "whole jobs", job_table)):
        if not results.get(key):
            continue
        made = table(results)
        words = KERNEL_WORDS if key == "kernels" else {name: JOBS[name][1] for name in JOBS}
        parts[key] = markdown(["", "what it does"] + HEADINGS[1:],
                              [[row[0], words.get(row[0], "")] + row[1:] for row in made.cells()])
        last = list(made.cells())[-1]
        summary.append(["%s, geometric mean of time / native" % title, last[3], last[7]])
    boot = results.get("boot", {})
    if "soft" in boot:
        summary.append(["Debian's kernel, process start to init"] +
                       ["%.2f s" % median(boot[s]) if s in boot else "" for s in ("soft", "qemu")])
    singles = single_lines(results)
    if singles:
        parts["single"] = markdown(["", "measured", "goal", "verdict"], singles)
    if results.get("vmx"):
        parts["vmx"] = markdown(VMX_HEADINGS, vmx_cells(results))
    if results.get("exits"):
        parts["exits"] = "    " + results["exits"].replace("\n", "\n    ")
    if summary:
        parts["summary"] = markdown(["", "Guise `soft`", "QEMU TCG"], summary)
    return parts


def rewrite(path, parts):
    """Replaces what stands between <!-- bench:MARK --> and <!-- bench:end --> in a document."""
    with open(path) as f:
        text = f.read()

    def replace(match):
        mark = match.group(1)
        return "<!-- bench:%s -->\n%s\n<!-- bench:end -->" % (mark, parts.get(mark, match.group(2).strip("\n")))

    new = re.sub(r"<!-- bench:(\w+) -->\n(.*?)<!-- bench:end -->", replace, text, flags=re.S)
    if new != text:
        with open(path, "w") as f:
            f.write(new)


def draw(results, base):
    """Draws BASE.svg, and BASE.png if there is a program for it."""
    groups = []
    for key, title, table in (("kernels", "kernels", kernel_table), ("jobs", "whole jobs", job_table)):
        if not results.get(key):
            continue
        made = table(results)
        rows = [(name, made.soft.get(name), made.qemu.get(name), made.goals[name]) for name in made.rows]
        groups.append((title, rows))
    if not groups:
        return
    plot.write_svg(base + ".svg", groups)
    plot.write_png(base + ".svg", base + ".png")


def main():
    args = sys.argv[1:]
    docs = "--docs" in args
    args = [a for a in args if a != "--docs"]
    if len(args) != 1:
        sys.exit("usage: bench/report.py RESULTS.json [--docs]")
    try:
        results = load(args[0])
    except (OSError, ValueError) as error:
        sys.exit("error: %s: %s" % (args[0], error))
    if not docs:
        print(as_text(results, sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
        return
    top = os.path.join(HERE, "..")
    parts = markdown_parts(results)
    for name in ("README.md", "docs/performance.md"):
        rewrite(os.path.join(top, name), parts)
    draw(results, os.path.join(top, "docs/performance"))


if __name__ == "__main__":
    main()
