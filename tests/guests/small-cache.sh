#!/bin/sh
# The guest that makes code as it goes, with a code cache far too small for it: right results, and room was made.
# Usage: small-cache.sh GUISE ENGINE_USABLE IMAGE
set -u
guise=$1 usable=$2 image=$3

reason=$("$usable" soft) || {
	echo "$reason"
	exit 77
}
output=$(timeout 60 "$guise" run -e soft -m 64M --serial none --code-cache=1M --stats -k "$image" 2>&1 </dev/null)
status=$?
printf '%s\n' "$output"
[ $status -eq 0 ] || exit 1
printf '%s\n' "$output" | grep -q '^ok jit ' || exit 1
evicted=$(printf '%s\n' "$output" | sed -n 's/^ *\([0-9,]*\)  blocks thrown away (to make room)$/\1/p' | tr -d ,)
[ "${evicted:-0}" -gt 10000 ] || {
	echo "only ${evicted:-0} blocks were thrown away to make room"
	exit 1
}
