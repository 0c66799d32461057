#!/bin/sh
# The classic demo prints its line and nothing else, and ends well. Usage: tiny.sh GUISE ENGINE_USABLE ENGINE TINY
set -u
guise=$1 usable=$2 engine=$3 image=$4

reason=$("$usable" "$engine")
if [ $? -eq 77 ]; then
	echo "$reason"
	exit 77
fi
output=$("$guise" run -e "$engine" --flat "$image" 2>/dev/null </dev/null)
status=$?
printf '%s\n' "$output"
[ "$output" = "Hello,world" ] && [ $status -eq 0 ]
