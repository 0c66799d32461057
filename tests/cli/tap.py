"""The Test Anything Protocol, as far as these tests speak it."""
import sys

_count = 0
_failed = 0


def check(ok, what, detail=""):
    """One test, done. @detail is shown if it failed."""
    global _count, _failed
    _count += 1
    print("%s %d - %s" % ("ok" if ok else "not ok", _count, what), flush=True)
    if not ok:
        _failed += 1
        for line in str(detail).splitlines():
            print("# " + line)


def skip(what, reason):
    global _count
    _count += 1
    print("ok %d - %s # SKIP %s" % (_count, what, reason), flush=True)


def finish():
    print("1..%d" % _count)
    sys.exit(1 if _failed else 0)
