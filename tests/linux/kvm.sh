#!/bin/sh
# The kvm engine on a true KVM, on any machine: Debian's kernel offers /dev/kvm in an outer machine whose processor has
# virtualization, and there guise boots the same kernel again. OUTER is
#	qemu	QEMU's own processor (TCG), which has AMD's SVM
#	soft	guise itself, whose soft engine has Intel's VMX
#
#	this host -> qemu -accel tcg -cpu max,+svm -> Linux with kvm-amd -> guise run -e kvm -> Linux
#	this host -> guise run -e soft --cpu host,+vmx -> Linux with kvm-intel -> guise run -e kvm -> Linux
#
#	this host -> guise run -e soft --cpu host,+vmx -> Linux with kvm-intel -> QEMU -accel kvm -> Linux
#
# Usage: kvm.sh OUTER SCRIPT OPTIONS GUISE GUEST TINY DEMO [PROGRAM...]
# SCRIPT is what is done there, a file of inner/; OPTIONS are kvm-intel's or kvm-amd's, with commas between, or "-". TINY
# is the directory of the tiny guests, DEMO the classic demonstration; each PROGRAM is for the script "suite".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=$here/../../tools
. "$here/need.sh"
. "$here/lists.sh"

outer=$1 script=$2 options=$3 guise=$4 guest=$5 tiny=$6 demo=$7
shift 7
need_guest "$guest"
case $outer in
qemu) vendor=kvm-amd ;;
soft) vendor=kvm-intel ;;
*) exit 1 ;;
esac
qemu=$(command -v qemu-system-x86_64 || true)
if [ "$outer" = qemu ] || [ "$script" = qemu ]; then
	[ -n "$qemu" ] || skip 'no qemu-system-x86_64 (Debian: qemu-system-x86)'
fi
release=$(basename "$(readlink -f "$guest/vmlinuz")")
release=${release#vmlinuz-}
modules=$guest/modules/$release/kernel
for module in virt/lib/irqbypass arch/x86/kvm/kvm arch/x86/kvm/$vendor; do
	[ -r "$modules/$module.ko" ] || skip "the kernel's package has no module $module.ko"
done

tmp=$(mktemp -d)
machine=''
trap '[ -z "$machine" ] || kill "$machine" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# The outer machine's initramfs: the usual one, the modules, guise and the other programs with their libraries,
# and the inner guests.
if [ "$script" = qemu ]; then
	list_qemu "$qemu" >"$tmp/qemu" || skip 'QEMU has no firmware (Debian: seabios, qemu-system-data)'
fi
{
	"$tools/guest-list.sh" "$guest/busybox"
	for dir in /guest /kvm /lib /lib64 /lib/x86_64-linux-gnu /test /tiny /usr /usr/lib /usr/lib/x86_64-linux-gnu; do
		echo "dir $dir 755"
	done
	list_libraries "$guise" "$demo" "$@"
	[ "$script" != qemu ] || cat "$tmp/qemu"
	list_files /test "$@"
	list_files /tiny "$tiny/tiny.bin" "$tiny"/*.elf
	cat <<END
file /bin/guise 755 $guise
file /demo 755 $demo
file /guise/job 644 $here/inner/job
file /guise/$script 755 $here/inner/$script
file /guest/vmlinuz 644 $(readlink -f "$guest/vmlinuz")
file /guest/initramfs.cpio 644 $guest/initramfs.cpio
file /kvm/irqbypass.ko 644 $modules/virt/lib/irqbypass.ko
file /kvm/kvm.ko 644 $modules/arch/x86/kvm/kvm.ko
file /kvm/$vendor.ko 644 $modules/arch/x86/kvm/$vendor.ko
END
} >"$tmp/list"
"$tools/mkcpio.py" "$tmp/outer.cpio" <"$tmp/list"

: >"$tmp/console"
words="console=ttyS0 quiet guise.script=$script guise.outer=$outer guise.release=$release"
[ "$options" = - ] || words="$words guise.kvm=$options"
# The limit is for an outer guest that hangs.
case $outer in
qemu)
	set -- "$qemu" -accel tcg -cpu max,+svm -m 1G -nodefaults -display none -serial stdio -no-reboot \
		-kernel "$guest/vmlinuz" -initrd "$tmp/outer.cpio" -append "$words"
	;;
soft)
	set -- "$guise" run -e soft --cpu host,+vmx -m 1G --no-reboot -k "$guest/vmlinuz" -i "$tmp/outer.cpio" -a "$words"
	;;
esac
timeout 420 "$@" </dev/null >"$tmp/console" 2>&1 &
machine=$!
tail -f -s 0.2 --pid="$machine" "$tmp/console"
status=0
wait "$machine" || status=$?
machine=''

fail()
{
	echo "FAIL: $*"
	exit 1
}
[ "$status" -ne 124 ] || fail 'the outer guest was still running after 420 s'
[ "$status" -eq 0 ] || fail "$1 ended with status $status"
# One test a line, for the runner.
awk '/^GUISE-CHECK / && $2 != "all" { print ($3 == "FAIL" ? "not ok " : "ok ") ++n " - " $2 } END { print "1.." n + 0 }' \
	"$tmp/console"
! grep '^GUISE-CHECK [^ ]* FAIL' "$tmp/console" || fail 'see above'
grep -q '^GUISE-CHECK all ok' "$tmp/console" || fail 'the outer guest did not come to the end of its script'
