#!/bin/sh
# run.sh GUISE ENGINE_USABLE ENGINE KNOWN IMAGE
# Runs a guest that checks itself. 0: it says so itself, with its last line and its exit; 77: cannot run here.
set -u
guise=$1 usable=$2 engine=$3 known=$4 image=$5
name=$(basename "$image" .elf)

reason=$("$usable" "$engine") || {
	status=$?
	echo "skipped: engine $engine: $reason"
	exit $status
}

# Hosts on which /dev/kvm emulates kernel-mode code: see the head of the table.
if [ "$engine" = kvm ] && grep -q "emulated" "$known" && ! "$usable" kvm-true >/dev/null 2>&1; then
	:
fi

output=$(timeout 60 "$guise" run -e "$engine" -m 64M --serial none -k "$image" 2>&1)
status=$?
printf '%s\n' "$output"
[ $status -eq 0 ] || { echo "exit status $status"; exit 1; }
case $output in
*FAIL*) exit 1 ;;
*"ok $name "*) exit 0 ;;
esac
echo "the guest never said 'ok $name'"
exit 1
