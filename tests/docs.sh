#!/bin/sh
# The man page and the bash completion name every option of guise run --help and every trace subsystem, and no others;
# the tunings are those of the code; files and tests that the documents name are there.
# Usage: docs.sh GUISE SOURCE
set -eu
guise=$1 source=$2
failures=0

# named WORD FILE PATTERN
named()
{
	grep -q -e "$3" "$source/$2" || {
		echo "FAIL: $2 does not name $1"
		failures=$((failures + 1))
	}
}

options=$("$guise" run --help | grep -o -e '--[a-z][a-z-]*' | sort -u)
[ -n "$options" ] || {
	echo 'FAIL: guise run --help lists no option'
	exit 1
}
for option in $options; do
	named "$option" docs/guise.1 "$(printf '%s' "$option" | sed 's/-/\\\\-/g')\\b"
	named "$option" tools/completion/guise.bash "[ (]$option\\b"
done
# shellcheck disable=SC2013 # options are words
for option in $(sed 's/\\-/-/g' "$source/docs/guise.1" | sed -n 's/^\.BR* .*\(--[a-z][a-z-]*\).*/\1/p' | sort -u); do
	case " $(echo "$options" | tr '\n' ' ')" in
	*" $option "*) ;;
	*)
		echo "FAIL: docs/guise.1 has $option, guise run --help has not"
		failures=$((failures + 1))
		;;
	esac
done

subsystems=$(sed -n '/define TRACE_SUBSYSTEMS/,/^$/s/^.*X(\([a-z0-9]*\), .*/\1/p' "$source/debug/trace.h")
[ -n "$subsystems" ] || {
	echo 'FAIL: debug/trace.h lists no subsystem'
	exit 1
}
for subsystem in $subsystems; do
	named "$subsystem" docs/guise.1 "^\\.BR $subsystem "
	named "$subsystem" tools/completion/guise.bash "[ ']$subsystem\\b"
done
tunings=$("$guise" run --help | sed -n '/^What --tune switches/,$s/^  \([a-z0-9_]*\): .*/\1/p')
[ -n "$tunings" ] || {
	echo 'FAIL: guise run --help lists no tuning'
	exit 1
}
for tuning in $tunings; do
	named "$tuning" docs/performance.md "^| $tuning | "
done
# shellcheck disable=SC2013 # tunings are words
for tuning in $(sed -n '/bench:tunings/,/bench:end/s/^| \([a-z0-9_]*\) | .*/\1/p' "$source/docs/performance.md"); do
	case " all tuning $(echo "$tunings" | tr '\n' ' ')" in
	*" $tuning "*) ;;
	*)
		echo "FAIL: docs/performance.md has a tuning $tuning, guise run --help has not"
		failures=$((failures + 1))
		;;
	esac
done

# What stands in `quotes` and looks like a file or a unit test. Directories may be left out, and so may what was built.
files=$(cd "$source" && find . -path './build*' -prune -o -path ./.git -prune -o -type f -print | sed 's/^\.//')
for document in README.md CONTRIBUTING.md bench/README.md docs/architecture.md docs/performance.md docs/quirks.md; do
	# shellcheck disable=SC2016 # the quotes are the documents'
	for name in $(grep -o '`[A-Za-z0-9_./-]*\.\(c\|h\|S\|py\|sh\|inc\)`\|`test_[a-z0-9_]*`' "$source/$document" | tr -d '\`' |
		sort -u); do
		case $name in
		test_*.*) ;;
		test_*) name=$name.c ;;
		esac
		printf '%s\n' "$files" | grep -q "/$name\$" || {
			echo "FAIL: $document names $name, which is not there"
			failures=$((failures + 1))
		}
	done
done
[ "$failures" -eq 0 ]
