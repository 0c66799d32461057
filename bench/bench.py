#!/usr/bin/env python3
"""Measures guise -e soft against this machine itself and against QEMU's TCG, interleaved in one run.

Usage: bench/bench.py BUILD [OPTION...]       (make bench FLAGS='OPTION...')
QEMU= in the environment names another qemu-system-x86_64. Progress goes to standard error, the tables to standard
output; results.json, results.svg and results.png to BUILD/bench. What is measured and how: bench/README.md.
"""
import argparse
import json
import os
import sys
import time

import measure
import report
from sides import Failure, available, qemu_program, say

PARTS = ("kernels", "boot", "tiny", "exits", "vmx", "jobs")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller jobs: two minutes")
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ",".join(PARTS))
    parser.add_argument("--only", default="", help="these kernels, with commas")
    parser.add_argument("--jobs", default="", help="these jobs, with commas")
    parser.add_argument("--rounds", type=int, help="7, quick 2")
    parser.add_argument("--job-rounds", type=int, help="of the jobs: 3, quick 1, but not more than of the rest")
    parser.add_argument("--qemu-job-rounds", type=int, help="of the jobs in QEMU: 2, quick 1")
    parser.add_argument("--ms", type=int, help="time of a kernel in a round: 100, quick 50")
    parser.add_argument("--units", type=int, help="that many units of each kernel instead")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--no-qemu-jobs", action="store_true")
    parser.add_argument("--guise", action="append", default=[], metavar="OPTION", help="for guise run, repeatable")
    parser.add_argument("--json", metavar="FILE", help="default BUILD/bench/results.json")
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 7)
    args.ms = args.ms or (50 if args.quick else 100)
    args.job_rounds = args.job_rounds or min(args.rounds, 1 if args.quick else 3)
    if args.qemu_job_rounds is None:
        args.qemu_job_rounds = min(args.job_rounds, 1 if args.quick else 2)
    unknown = set(args.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error("no part " + ", ".join(sorted(unknown)))
    if not args.no_qemu and not available("qemu"):
        say("no %s: measuring without QEMU" % qemu_program())
        args.no_qemu = True
    if args.no_qemu or args.no_qemu_jobs:
        args.qemu_job_rounds = 0
    return args


def names(text):
    return [name for name in text.split(",") if name]


def measure_part(part, args, results):
    guests = {"soft": args.rounds, "qemu": 0 if args.no_qemu else args.rounds}
    if part == "kernels":
        results["kernels"] = measure.kernels(args.build, {"native": args.rounds, **guests}, names(args.only), args.ms,
                                             args.units, args.guise)
    elif part == "jobs":
        rounds = {"native": args.job_rounds, "soft": args.job_rounds, "qemu": args.qemu_job_rounds}
        results["jobs"] = measure.jobs(args.build, rounds, "quick" if args.quick else "full", names(args.jobs),
                                       args.guise)
    elif part == "boot":
        results["boot"], results["memory"] = measure.boot(args.build, guests, args.guise)
    elif part == "tiny":
        results["tiny"] = measure.tiny(args.build, 4 * args.rounds, args.guise)
    elif part == "vmx":
        results["vmx"] = measure.round_trips(args.build, args.rounds, args.guise)
    else:
        results["exits"] = measure.exits(args.build)


def main():
    args = arguments()
    results = {
        "date": time.strftime("%Y-%m-%d"),
        "host": measure.host(),
        "programs": measure.programs(args.build, qemu_program()),
        "settings": {"quick": args.quick, "rounds": args.rounds, "job_rounds": args.job_rounds,
                     "qemu_job_rounds": args.qemu_job_rounds, "kernel_ms": args.ms, "guise_options": args.guise},
        "failures": [],
    }
    path = args.json or os.path.join(args.build, "bench/results.json")
    begin = time.monotonic()
    for part in args.parts.split(","):
        try:
            measure_part(part, args, results)
        except Failure as failure:
            results["failures"].append("%s: %s" % (part, failure))
            say("error: " + results["failures"][-1])
        # After each part, so that a long run that is broken off leaves what it had.
        with open(path, "w") as f:
            json.dump(results, f, indent=1)
            f.write("\n")
    base = os.path.splitext(path)[0]
    report.draw(results, base)
    print(report.as_text(results, sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    say("%d s; values in %s, plots beside it; bench/report.py %s --docs puts them into the documents" %
        (time.monotonic() - begin, path, path))
    sys.exit(1 if results["failures"] else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
