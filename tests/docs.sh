#!/bin/sh
# The man page and the bash completion name every option of guise run --help and every trace subsystem, and no others.
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
[ "$failures" -eq 0 ]
