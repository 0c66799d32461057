#!/bin/sh
# Debian's cloud kernel on the soft engine: to the guest's self-check and to poweroff with status 0.
# Usage: soft.sh GUISE GUEST [VARIANT]
# Variants: small (128 MiB of memory), large (5 GiB, some of it above the 32-bit hole), vmlinux (the ELF file out of the
# bzImage, started by its PVH note), reboot (through the keyboard controller, though ACPI does not name one).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=$here/../../tools
. "$here/need.sh"

guise=$1 guest=$2 variant=${3:-}
need_guest "$guest"
check()
{
	"$tools/boot-check.sh" "$@" "$guest" "$guise" run -e soft
}

case $variant in
'') check ;;
small) check -m 128 ;;
large)
	have=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
	[ "$have" -gt $((5 << 20)) ] || skip "the host has only $((have / 1024)) MiB, the guest would get 5 GiB"
	check -m 5120
	;;
vmlinux)
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
	"$here/vmlinux.py" "$guest/vmlinuz" "$tmp/vmlinux"
	check -k "$tmp/vmlinux"
	;;
reboot)
	# The kernel hands init what follows its "--". Without a reset the run would not end.
	timeout 60 "$guise" run -e soft --no-reboot -m 128M -k "$guest/vmlinuz" -i "$guest/initramfs.cpio" \
		-a 'console=ttyS0 quiet reboot=k rdinit=/bin/busybox -- reboot -f' </dev/null
	;;
*)
	echo "unknown variant $variant"
	exit 1
	;;
esac
