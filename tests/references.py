#!/usr/bin/env python3
"""What documents say of the code is there: files by their paths, functions as `name()`, links to files and headings.

Usage: references.py SOURCE DOCUMENT...
"""
import pathlib
import re
import subprocess
import sys

source = pathlib.Path(sys.argv[1])
failures = []


def prose(text):
    """Without indented blocks."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def anchors(path):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


tracked = subprocess.run(["git", "-C", str(source), "ls-files"], stdout=subprocess.PIPE, text=True)
if tracked.returncode:
    print("not a git checkout")
    sys.exit(77)
files = set(tracked.stdout.split())
code = "\n".join((source / name).read_text() for name in files if name.endswith((".c", ".h", ".S")))
defined = {name for names in re.findall(
    r"^[\w \t*]*?\b(\w+)\(|#define (\w+)\(|\(\*(\w+)\)\(", code, re.M) for name in names}

for name in sys.argv[2:]:
    document = source / name
    text = prose(document.read_text())
    for word in re.findall(r"`([^`\n]+)`", text):
        path = re.fullmatch(r"((?:\w[\w.-]*/)+[\w.-]*)", word)
        if path and path.group(1).split("/")[0] in {f.split("/")[0] for f in files if "/" in f}:
            if word not in files and not any(f.startswith(word.rstrip("/") + "/") for f in files):
                failures.append("%s: there is no file %s" % (name, word))
        function = re.fullmatch(r"(\w+)\(\)", word)
        if function and function.group(1) not in defined:
            failures.append("%s: there is no function %s()" % (name, function.group(1)))
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (document.parent / path) if path else document
        if not other.exists():
            failures.append("%s: a link leads to %s, which is not there" % (name, target))
        elif anchor and anchor not in anchors(other):
            failures.append("%s: a link leads to %s, which has no such heading" % (name, target))

for failure in failures:
    print("FAIL: " + failure)
sys.exit(1 if failures else 0)
