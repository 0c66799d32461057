#!/usr/bin/env python3
"""Times some or all of the thirteen kernels natively, in guise -e soft and, with --qemu, in QEMU's TCG.

Usage: bench/kernels.py BUILD [--only a,b] [--rounds N] [--ms MS] [--qemu] [--guise OPTION]...
A quick look while working on the engine, e.g. with --guise=--tune --guise=NAME=off. It shows the fastest batch of
all rounds, which other work on the machine disturbs least; make bench measures everything, and medians.
"""
import argparse
import statistics
import sys

import measure
from sides import Failure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--only", default="", help="kernels, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ms", type=int, default=100, help="time of a kernel in a round")
    parser.add_argument("--qemu", action="store_true", help="QEMU's TCG too; QEMU= names the program")
    parser.add_argument("--guise", action="append", default=[], metavar="OPTION", help="for guise run, repeatable")
    args = parser.parse_args()
    guests = ["soft"] + ["qemu"] * args.qemu
    try:
        rows = measure.kernels(args.build, {side: args.rounds for side in ["native"] + guests},
                               [name for name in args.only.split(",") if name], args.ms, options=args.guise, fastest=True)
    except Failure as failure:
        sys.exit("error: %s" % failure)

    print("%-9s %14s" % ("kernel", "native ns") + "".join(" %14s %7s" % (side + " ns", "ratio") for side in guests))
    ratios = {side: [] for side in guests}
    for name, row in rows.items():
        line = "%-9s %14.2f" % (name, min(row["native"]))
        for side in guests:
            ratios[side].append(min(row[side]) / min(row["native"]))
            line += " %14.2f %7.2f" % (min(row[side]), ratios[side][-1])
        print(line)
    print("%-9s %14s" % ("geomean", "") +
          "".join(" %14s %7.2f" % ("", statistics.geometric_mean(r)) for r in ratios.values()))


main()
