#!/usr/bin/env python3
"""Includes run downward only, and no header includes itself by way of others.

Usage: includes.py SOURCE
A directory may include what stands before it, or itself, in the order of SOURCE/meson.build. The engines are closed
to each other and know only engine/engine.h of their surroundings.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def main():
    source = pathlib.Path(sys.argv[1])
    order = re.findall(r"^subdir\('([^']+)'\)", (source / "meson.build").read_text(), re.M)
    files = [p for top in order for p in sorted((source / top).rglob("*.[chS]"))]
    if not files:
        sys.exit("FAIL: no source file found in %s" % source)
    failures, graph = [], {}
    for path in files:
        name = path.relative_to(source).as_posix()
        top = name.split("/")[0]
        graph[name] = []
        for wanted in INCLUDE.findall(path.read_text()):
            if (path.parent / wanted).exists():
                wanted = (path.parent / wanted).resolve().relative_to(source.resolve()).as_posix()
            if not (source / wanted).exists():
                continue  # generated, or a library's
            graph[name].append(wanted)
            other = wanted.split("/")[0]
            if other not in order or order.index(other) > order.index(top):
                failures.append("%s includes %s: %s may not know %s" % (name, wanted, top, other))
            engines = [re.match(r"engine/(kvm|soft)/", x) for x in (name, wanted)]
            if engines[1] and top not in ("tests", "bench") and \
                    (not engines[0] or engines[0].group(1) != engines[1].group(1)):
                failures.append("%s includes %s: an engine's inside is its own" % (name, wanted))

    done = set()

    def walk(name, way):
        if name in way:
            failures.append("circular: " + " -> ".join(way[way.index(name):] + [name]))
        elif name not in done:
            for other in graph.get(name, []):
                walk(other, way + [name])
            done.add(name)

    for name in graph:
        walk(name, [])
    for failure in failures:
        print("FAIL: " + failure)
    sys.exit(1 if failures else 0)


main()
