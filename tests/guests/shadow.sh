#!/bin/sh
# A guest whose programs all get a shadow space at once: right results, and their memory was found through it.
# Usage: shadow.sh GUISE ENGINE_USABLE IMAGE LEAST-MAPPINGS
set -u
guise=$1 usable=$2 image=$3 least=$4
name=$(basename "$image" .elf)

reason=$("$usable" soft) || {
	echo "$reason"
	exit 77
}
grep -qw bmi2 /proc/cpuinfo || {
	echo "this host's processor has no BMI2"
	exit 77
}
cpu=host
case $name in
vmx* | hypervisor) cpu=host,+vmx ;;
esac
output=$(timeout 60 "$guise" run -e soft --cpu "$cpu" -m 64M --serial none --tune patience=off --stats -k "$image" 2>&1 </dev/null)
status=$?
printf '%s\n' "$output"
[ $status -eq 0 ] || exit 1
printf '%s\n' "$output" | grep -q '^FAIL' && exit 1
printf '%s\n' "$output" | grep -q "^ok $name " || exit 1
maps=$(printf '%s\n' "$output" | sed -n 's/^ *\([0-9,]*\)  mappings made in shadow spaces$/\1/p' | tr -d ,)
[ "${maps:-0}" -ge "$least" ] || {
	echo "only ${maps:-0} mappings were made"
	exit 1
}
