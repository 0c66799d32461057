#!/bin/sh
# Guise's hypervisor module (hypervisor/) in Debian's kernel, in an outer machine whose processor has VMX. OUTER is
#	soft	guise itself: its soft engine has Intel's VMX
#	bochs	Bochs, whose two processors are not ours, at an interpreter's speed
#
#	this host -> OUTER -> Debian's kernel with guise.ko -> test programs, guise run --kvm-device /dev/guise -> guests
#
# Usage: module.sh OUTER PARTS GUISE GUEST TINY PROGRAM...
# PARTS, with commas between them, are functions of the script that runs in there, called guest; GUEST is the directory of
# the Linux guest's files, TINY that of the tiny guests. The PROGRAMs are put into the outer machine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
. "$root/tests/linux/need.sh"
. "$root/tests/linux/lists.sh"

outer=$1 parts=$2 guise=$3 guest=$4 tiny=$5
shift 5
need_guest "$guest"
for tool in make gcc-12; do
	command -v $tool >/dev/null 2>&1 || skip "no $tool (make test installs it)"
done
[ -r "$guest/headers/Makefile" ] || skip "no $guest/headers/Makefile (make test fetches it)"

qemu=''
case ,$parts, in
*,qemu,*)
	qemu=$(command -v qemu-system-x86_64) || skip 'no qemu-system-x86_64 (Debian: qemu-system-x86)'
	;;
esac
grub=/usr/lib/grub/i386-pc
bios=/usr/share/bochs/BIOS-bochs-latest
vgabios=/usr/share/vgabios/vgabios.bin
case $outer in
bochs)
	for tool in bochs grub-mkimage; do
		command -v $tool >/dev/null 2>&1 || skip "no $tool (make test installs it)"
	done
	for file in $grub/boot.img $bios $vgabios; do
		[ -r "$file" ] || skip "no $file (make test fetches it)"
	done
	;;
esac

tmp=$(mktemp -d)
machine=''
trap '[ -z "$machine" ] || kill "$machine" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# ---- the module ----
if ! make -C "$root/hypervisor" KERNEL="$(readlink -f "$guest/headers")" OUT="$tmp/module" >"$tmp/make" 2>&1 ||
	grep -E 'warning:|error:' "$tmp/make"; then
	cat "$tmp/make"
	echo 'FAIL: the module does not build, or not without warnings'
	exit 1
fi

# Symbols and lines would take most of the room in the initramfs.
lean()
{
	objcopy --strip-debug "$1" "$tmp/lean/$(basename "$1")"
}
mkdir "$tmp/lean"
lean "$tmp/module/guise.ko"
lean "$guise"
for program in "$@"; do
	lean "$program"
done

# ---- the initramfs ----
release=$(basename "$(readlink -f "$guest/vmlinuz")")
release=${release#vmlinuz-}
modules=$guest/modules/$release/kernel
"$root/tools/guest-list.sh" "$guest/busybox" >"$tmp/small"
: >"$tmp/qemu"
[ -z "$qemu" ] || list_qemu "$qemu" >"$tmp/qemu" || skip 'QEMU has no firmware (Debian: seabios, qemu-system-data)'
{
	cat "$tmp/small"
	for dir in /guest /hypervisor /kvm /lib /lib64 /lib/x86_64-linux-gnu /tiny /usr /usr/lib /usr/lib/x86_64-linux-gnu; do
		echo "dir $dir 755"
	done
	list_libraries "$guise" "$@"
	cat "$tmp/qemu"
	cat <<END
file /bin/guise 755 $tmp/lean/guise
file /guise/hypervisor 755 $here/guest
file /guise/job 755 $root/tests/linux/inner/job
file /hypervisor/guise.ko 644 $tmp/lean/guise.ko
END
	for program in "$@"; do
		name=$(basename "$program")
		echo "file /hypervisor/${name#test_} 755 $tmp/lean/$name"
	done
	# Linux and KVM are too much for Bochs.
	[ "$outer" != soft ] || {
		"$root/tools/mkcpio.py" "$tmp/small.cpio" <"$tmp/small"
		cat <<END
file /guest/vmlinuz 644 $(readlink -f "$guest/vmlinuz")
file /guest/initramfs.cpio 644 $tmp/small.cpio
file /kvm/irqbypass.ko 644 $modules/virt/lib/irqbypass.ko
file /kvm/kvm.ko 644 $modules/arch/x86/kvm/kvm.ko
file /kvm/kvm-intel.ko 644 $modules/arch/x86/kvm/kvm-intel.ko
END
	}
	for image in "$tiny/tiny.bin" "$tiny"/*.elf; do
		echo "file /tiny/$(basename "$image") 644 $image"
	done
} >"$tmp/list"
"$root/tools/mkcpio.py" "$tmp/initrd" <"$tmp/list"

# ---- the outer machine ----
# Whatever the kernel complains of ends it there and then. Under random ioctls the kernel's objects have red zones and
# poison in them, and pages that are freed are overwritten, so that use after free and writes past the end are seen; but
# for Bochs that is too much.
debug=''
case $outer,$parts, in
soft,*fuzz,*) debug='slub_debug=FZPU init_on_free=1' ;;
esac
words="console=ttyS0 loglevel=5 panic_on_warn=1 oops=panic panic=-1 softlockup_panic=1 hung_task_panic=1 $debug \
guise.script=hypervisor guise.tests=$parts guise.outer=$outer guise.quick=${GUISE_QUICK:-}"

: >"$tmp/console"
case $outer in
soft)
	limit=300
	set -- "$guise" run -e soft --cpu host,+vmx -m 1G --no-reboot -k "$guest/vmlinuz" -i "$tmp/initrd" -a "$words"
	;;
bochs)
	limit=1400
	# What Bochs 2.7 says of the compacted form of XSAVE areas, in CPUID(0DH,1).EBX, is the size of the other form, which
	# the kernel warns of.
	"$here/disk.py" $grub "$tmp/disk" "$guest/vmlinuz" "$tmp/initrd" "$words mitigations=off nokaslr lpj=4000000 clearcpuid=xsavec,xsaves"
	# The screen goes to nobody: the rfb display does not wait for a viewer. Power-off and triple faults are panics and
	# end it. The package is built with its debugger, which wants to be told to go on.
	cat >"$tmp/bochsrc" <<END
config_interface: textconfig
plugin_ctrl: speaker=0, parallel=0, gameport=0
display_library: rfb, options="timeout=0"
memory: guest=1024, host=1024
romimage: file=$bios
vgaromimage: file=$vgabios
cpu: model=corei7_skylake_x, count=2, ips=50000000, reset_on_triple_fault=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=flat, path=$tmp/disk
boot: disk
com1: enabled=1, mode=file, dev=$tmp/console
log: $tmp/log
panic: action=fatal
error: action=report
info: action=report
END
	printf 'c\nr\nq\n' >"$tmp/commands"
	set -- bochs -q -f "$tmp/bochsrc" -rc "$tmp/commands"
	;;
*) exit 1 ;;
esac
if [ "$outer" = soft ]; then
	timeout -k 10 $limit "$@" </dev/null >"$tmp/console" 2>&1 &
else
	timeout -s INT -k 10 $limit "$@" </dev/null >"$tmp/debugger" 2>&1 &
fi
machine=$!
tail -f -s 0.2 --pid="$machine" "$tmp/console"
status=0
wait "$machine" || status=$?
machine=''

tr -d '\r' <"$tmp/console" >"$tmp/text"
# One test a line, for the runner.
awk '/^GUISE-CHECK / && $2 != "all" { print ($3 == "FAIL" ? "not ok " : "ok ") ++n " - " $2 } END { print "1.." n + 0 }' \
	"$tmp/text"
if ! grep -q '^GUISE-CHECK all' "$tmp/text"; then
	[ "$outer" = soft ] || {
		tail -n 20 "$tmp/debugger"
		grep -E 'PANIC|VMX|vmx' "$tmp/log" | tail -n 5
	}
	echo "FAIL: the machine did not come to the end of its script within $limit s; it ended with status $status"
	exit 1
fi
grep -q '^GUISE-CHECK all ok' "$tmp/text" && ! grep 'Kernel panic' "$tmp/text"
