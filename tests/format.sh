#!/bin/sh
# Every C file is as .clang-format says (guests/ is assembly, its header too).
set -eu
cd "$1"
command -v clang-format >/dev/null 2>&1 || {
	echo "clang-format is not installed"
	exit 77
}
git ls-files '*.c' '*.h' 2>/dev/null | grep -v '^guests/' >"${TMPDIR:-/tmp}/guise-format.$$" || {
	rm -f "${TMPDIR:-/tmp}/guise-format.$$"
	echo "not a git checkout"
	exit 77
}
status=0
xargs clang-format --dry-run -Werror <"${TMPDIR:-/tmp}/guise-format.$$" || status=1
rm -f "${TMPDIR:-/tmp}/guise-format.$$"
exit $status
