#!/usr/bin/env python3
"""Everything still holds with each of the soft engine's optimizations switched off, and with all of them off.

Usage: tunings.py GUISE ENGINE_USABLE DIFF KICKS LINUX-GUEST IMAGE...

The names come from guise run --help, so a new one is tested as soon as it is there. For each: the tiny guests, some
random instructions, kicks; with all of them off Linux boots, too. With GUISE_QUICK=1 only a few names.
"""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "cli"))
import tap  # noqa: E402

FEW = ("all", "loops")


def names(guise):
    text = subprocess.run([guise, "run", "--help"], stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout
    section = re.search(r"^What --tune switches.*\n((?:  .*\n?)+)", text, re.M)
    return re.findall(r"^  (\w+):", section.group(1), re.M) if section else []


def run(command, off, limit):
    """Returns (exit status or None, output)."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=limit, env=dict(os.environ, GUISE_TUNE=off + "=off"))
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as e:
        return None, (e.stdout or b"").decode(errors="replace") + "\nno end in %d seconds" % limit


def guest_problem(guise, image, off):
    """What is wrong with a tiny guest, or None: see guests/run.sh."""
    name = os.path.basename(image).rsplit(".", 1)[0]
    status, out = run([guise, "run", "-e", "soft", "-m", "64M", "--serial", "none", "-k", image], off, 60)
    if status == 0 and re.search(r"^ok %s " % name, out, re.M) and not re.search(r"^FAIL", out, re.M):
        return None
    return "%s: status %s\n%s" % (name, status, out)


def check(off, guise, diff, kicks, linux, images):
    problems = list(filter(None, (guest_problem(guise, image, off) for image in images)))
    tap.check(not problems, "%s=off: %d tiny guests" % (off, len(images)), "\n".join(problems))
    for what, command in (("random instructions", [diff, "--count", "15000", "--seed", "79"]),
                          ("random loops", [diff, "--count", "15000", "--seed", "80", "--strides", "1"]),
                          ("kicks", [kicks, "--count", "30"])):
        status, out = run(command, off, 120)
        if status == 77:
            tap.skip("%s=off: %s" % (off, what), out.strip().splitlines()[-1])
        else:
            tap.check(status == 0, "%s=off: %s" % (off, what), out)
    if off != "all":
        return
    status, out = run([os.path.join(HERE, "linux", "soft.sh"), guise, linux], off, 120)
    if status == 77:
        tap.skip("all=off: Linux", out.strip().splitlines()[-1])
    else:
        tap.check(status == 0, "all=off: Linux boots", out)


def main():
    guise, usable, diff, kicks, linux, *images = sys.argv[1:]
    reason = subprocess.run([usable, "soft"], stdout=subprocess.PIPE, text=True, timeout=30)
    if reason.returncode == 77:
        print(reason.stdout.strip())
        sys.exit(77)
    known = names(guise)
    tap.check(len(known) > 3, "guise run --help lists what --tune switches", known)
    for off in ["all"] + known:
        if off in FEW or not os.environ.get("GUISE_QUICK"):
            check(off, guise, diff, kicks, linux, images)
    tap.finish()


main()
