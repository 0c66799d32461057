"""Draws the results: one SVG, written by hand so that it needs no library; rsvg-convert makes the PNG from it, so
that both show the same. A logarithmic axis, since QEMU's bars are up to a hundred times longer than others."""
import math
import shutil
import subprocess
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 860, 130, 60
ROW, BAR, TITLE, TOP, BOTTOM = 26, 9, 30, 64, 40
SOFT, QEMU, GOAL, INK, FAINT = "#2563a8", "#c3c8cf", "#c2410c", "#1f2430", "#dfe3e8"
FONT = 'font-family="DejaVu Sans, Helvetica, Arial, sans-serif"'


def scale(groups):
    """Returns (function from ratio to x, [ticks])."""
    ratios = [r.high for _, rows in groups for row in rows for r in row[1:3] if r]
    most = max(ratios + [2.0])
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= most * 1.3]
    low, high = math.log(0.7), math.log(max(most * 1.15, ticks[-1] * 1.05))

    def x(ratio):
        part = (math.log(min(max(ratio, 0.7), math.exp(high))) - low) / (high - low)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    return x, ticks


def text(x, y, what, size=12, anchor="start", colour=INK, weight="normal"):
    return '<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" fill="%s" font-weight="%s">%s</text>' % (
        x, y, size, anchor, colour, weight, escape(what))


def bar(x, y, ratio, colour, goal=None):
    """A bar from the left edge, its value behind it (and behind the goal's mark), its quartiles as a thin line."""
    begin, end = x(0), x(ratio.value)
    out = ['<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>' % (begin, y, end - begin, BAR, colour)]
    if x(ratio.high) - x(ratio.low) > 1:
        out.append('<path d="M%.1f %.1fH%.1f" stroke="%s" stroke-width="1"/>' %
                   (x(ratio.low), y + BAR / 2, x(ratio.high), INK))
    label = "%.2f" % ratio.value if ratio.value < 10 else "%.0f" % ratio.value
    at = max(x(ratio.high), end)
    if goal and at - 4 < x(goal) < at + 40:
        at = x(goal)
    out.append(text(at + 5, y + BAR - 0.5, label, 10))
    return out


def svg(groups):
    """groups: [(title, [(name, Ratio of soft or None, Ratio of QEMU or None, goal)])]"""
    x, ticks = scale(groups)
    height = TOP + BOTTOM + sum(TITLE + ROW * len(rows) for _, rows in groups)
    bottom = height - BOTTOM
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" %s>' %
           (WIDTH, height, WIDTH, height, FONT),
           '<title>Time in the guest divided by native time: Guise soft and QEMU TCG</title>',
           '<rect width="%d" height="%d" fill="#ffffff"/>' % (WIDTH, height),
           text(LEFT, 24, "Time in the guest / native time of the same program (less is better)", 14, weight="bold")]
    at = LEFT
    for colour, what in ((SOFT, "Guise soft"), (QEMU, "QEMU TCG")):
        out.append('<rect x="%d" y="38" width="14" height="%d" fill="%s"/>' % (at, BAR, colour))
        out.append(text(at + 20, 47, what, 11))
        at += 120
    out.append('<path d="M%d 36v13" stroke="%s" stroke-width="2"/>' % (at + 4, GOAL))
    out.append(text(at + 14, 47, "goal", 11))
    for tick in ticks:
        out.append('<path d="M%.1f %dV%d" stroke="%s"/>' % (x(tick), TOP, bottom, INK if tick == 1 else FAINT))
        out.append(text(x(tick), bottom + 18, "native" if tick == 1 else "%dx" % tick, 11, "middle"))
    y = TOP
    for title, rows in groups:
        out.append(text(LEFT - 10, y + TITLE - 10, title, 12, "end", weight="bold"))
        y += TITLE
        for name, soft, qemu, goal in rows:
            out.append(text(LEFT - 10, y + BAR + 4, name, 12, "end"))
            if soft:
                out += bar(x, y, soft, SOFT, goal)
            if qemu:
                out += bar(x, y + BAR + 1, qemu, QEMU)
            out.append('<path d="M%.1f %.1fv%d" stroke="%s" stroke-width="2"/>' % (x(goal), y - 2, BAR + 4, GOAL))
            y += ROW
    out.append("</svg>")
    return "\n".join(out) + "\n"


def write_svg(path, groups):
    with open(path, "w") as f:
        f.write(svg(groups))


def write_png(source, path):
    """Returns whether there was a program to do it."""
    if not shutil.which("rsvg-convert"):
        return False
    subprocess.run(["rsvg-convert", "--zoom", "1.5", "-o", path, source], check=True)
    return True
