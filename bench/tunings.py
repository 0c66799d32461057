#!/usr/bin/env python3
"""Measures what each tuning of the soft engine gives: kernels and a boot with it off, and with all on.

Usage: bench/tunings.py BUILD [--rounds N] [--ms MS] [--only a,b] [--docs]
Each tuning's runs are interleaved with runs that have everything on; the fastest of all rounds counts, which other
work on the machine disturbs least. A factor above 1 is time saved. --docs rewrites the table in docs/performance.md.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys

import measure
from report import rewrite
from sides import HERE, MARK, Failure, guest_command, until_output

SHOWN = 1.1  # a kernel's factor from which on it is named


def names(build):
    """Returns {name: what it does}, as the program lists them."""
    text = subprocess.run([os.path.join(build, "guise"), "run", "--help"], check=True, capture_output=True,
                          text=True).stdout
    part = text.split("What --tune switches in the soft engine\n")[1]
    return dict(re.findall(r"^  (\w+): (.*)$", part, re.M))


def measure_with(build, options, ms):
    """Returns ({kernel: nanoseconds}, seconds of a boot)."""
    rows = measure.kernels(build, {"soft": 1}, (), ms, options=options, fastest=True)
    boot = guest_command("soft", build, os.path.join(build, "guest/initramfs.cpio"), "guise.script=poweroff",
                         options=options)
    return {name: row["soft"][0] for name, row in rows.items()}, until_output(boot, MARK)[0]


def least(results):
    """The fastest of several measure_with()."""
    return ({name: min(r[0][name] for r in results) for name in results[0][0]}, min(r[1] for r in results))


def row(name, what, off, on):
    factors = {kernel: off[0][kernel] / on[0][kernel] for kernel in on[0]}
    most = sorted((f, k) for k, f in factors.items() if f >= SHOWN)[::-1][:4]
    return "| %s | %s | %.2f | %.2f | %s |" % (name, what, statistics.geometric_mean(factors.values()), off[1] / on[1],
                                               ", ".join("%s %.2f" % (k, f) for f, k in most) or "none")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ms", type=int, default=40)
    parser.add_argument("--only", default="", help="tunings, with commas")
    parser.add_argument("--docs", action="store_true", help="into docs/performance.md")
    args = parser.parse_args()
    tunings = names(args.build)
    only = [name for name in args.only.split(",") if name] or [*tunings, "all"]
    tunings["all"] = "everything off"
    lines = ["| tuning | what it does | kernels | boot | kernels that it matters to |", "|---|---|---:|---:|---|"]
    try:
        for name in only:
            runs = {"off": [], "on": []}
            for _ in range(args.rounds):
                runs["off"].append(measure_with(args.build, ["--tune", name + "=off"], args.ms))
                runs["on"].append(measure_with(args.build, [], args.ms))
            lines.append(row(name, tunings[name], least(runs["off"]), least(runs["on"])))
            print(lines[-1], flush=True)
    except Failure as failure:
        sys.exit("error: %s" % failure)
    if args.docs:
        rewrite(os.path.join(HERE, "../docs/performance.md"), {"tunings": "\n".join(lines)})


main()
