#!/bin/sh
# Boots the guest to its self-check, shows its console and judges: status 0 only if every check was made and
# was right and the monitor ended with 0; otherwise 1 and a line that says what is missing.
# Usage: tools/boot-check.sh GUEST COMMAND...
# GUEST is the directory that guest-files.sh made. COMMAND gets -k, -i, -m and -a appended.
set -eu
. "$(dirname "$0")/lib.sh"

guest=${1:?usage: boot-check.sh GUEST COMMAND...}
shift
memory=512
release=$(basename "$(readlink -f "$guest/vmlinuz")")
release=${release#vmlinuz-}

log=$(mktemp)
trap 'rm -f "$log" "$log.status"' EXIT
trap 'exit 1' HUP INT TERM

# The console ends its lines with CR LF.
{
	status=0
	"$@" -m "${memory}M" -k "$guest/vmlinuz" -i "$guest/initramfs.cpio" \
		-a "console=ttyS0 quiet guise.script=check guise.release=$release guise.cpus=1 guise.memory=$memory" \
		</dev/null || status=$?
	echo "$status" >"$log.status"
} | tee "$log"
status=$(cat "$log.status")

[ "$status" -eq 0 ] || die "the monitor ended with status $status: $*"
grep -q GUISE-INIT "$log" || die "the guest's kernel did not come to /init: $*"
! grep '^GUISE-CHECK [a-z0-9]* FAIL' "$log" || die "the guest's self-check found fault: $*"
grep -q '^GUISE-CHECK all ok' "$log" || die "the guest's self-check did not come to its end: $*"
