#!/bin/sh
# Runs a tiny guest that checks itself. Usage: run.sh GUISE ENGINE_USABLE ENGINE IMAGE
# Passed: the guest's last word is "ok NAME", it left through the debug-exit port, and nothing failed.
set -u
guise=$1 usable=$2 engine=$3 image=$4
name=$(basename "$image" .elf)
departures=$(dirname "$0")/kvm-emulator

status=0
reason=$("$usable" "$engine") || status=$?
case $status in
0) ;;
3)
	reason=$(sed -n "s/^$name: //p" "$departures")
	if [ -n "$reason" ]; then
		echo "this host's $engine emulates kernel-mode code: $reason"
		exit 77
	fi
	;;
77)
	echo "$reason"
	exit 77
	;;
*) exit 1 ;;
esac

# Guests that are hypervisors ask for VMX where it has to be asked for.
cpu=host
case $name:$engine in
vmx*:soft | hypervisor:soft) cpu=host,+vmx ;;
esac

status=0
output=$(timeout 30 "$guise" run -e "$engine" --cpu "$cpu" -m 64M --serial none -k "$image" 2>&1 </dev/null) || status=$?
printf '%s\n' "$output"
case $cpu:$output in
host:*'no VMX'*)
	echo "this host's $engine offers no VMX"
	exit 77
	;;
esac
if [ $status -ne 0 ]; then
	echo "exit status $status"
	exit 1
fi
if printf '%s\n' "$output" | grep -q '^FAIL'; then
	exit 1
fi
if ! printf '%s\n' "$output" | grep -q "^ok $name "; then
	echo "the guest never said 'ok $name'"
	exit 1
fi
