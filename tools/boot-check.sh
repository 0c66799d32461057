#!/bin/sh
# Boots the guest to its self-check, shows its console and judges: status 0 only if every check was made and
# was right and the monitor ended with 0; otherwise 1 and a line that says what is missing.
# Usage: tools/boot-check.sh [-k KERNEL] [-m MIB] GUEST COMMAND...
# GUEST is the directory that guest-files.sh made. COMMAND gets -k, -i, -m and -a appended. KERNEL is another form of
# GUEST/vmlinuz.
set -eu
. "$(dirname "$0")/lib.sh"

# A boot takes seconds; this is for one that hangs.
limit=300
memory=512
kernel=''
while getopts k:m: option; do
	case $option in
	k) kernel=$OPTARG ;;
	m) memory=$OPTARG ;;
	*) exit 1 ;;
	esac
done
shift $((OPTIND - 1))
guest=${1:?usage: boot-check.sh [-k KERNEL] [-m MIB] GUEST COMMAND...}
shift
: "${kernel:=$guest/vmlinuz}"
release=$(basename "$(readlink -f "$guest/vmlinuz")")
release=${release#vmlinuz-}

log=$(mktemp)
trap 'rm -f "$log" "$log.status"' EXIT
trap 'exit 1' HUP INT TERM

# The console ends its lines with CR LF.
{
	status=0
	timeout --foreground $limit "$@" -m "${memory}M" -k "$kernel" -i "$guest/initramfs.cpio" \
		-a "console=ttyS0 quiet guise.script=check guise.release=$release guise.cpus=1 guise.memory=$memory" \
		</dev/null || status=$?
	echo "$status" >"$log.status"
} | tee "$log"
status=$(cat "$log.status")

[ "$status" -ne 124 ] || die "the machine was still running after $limit s: $*"
[ "$status" -eq 0 ] || die "the monitor ended with status $status: $*"
grep -q GUISE-INIT "$log" || die "the guest's kernel did not come to /init: $*"
! grep '^GUISE-CHECK [^ ]* FAIL' "$log" || die "the guest's self-check found fault: $*"
grep -q '^GUISE-CHECK all ok' "$log" || die "the guest's self-check did not come to its end: $*"
say "the guest's self-check was right in all parts"
