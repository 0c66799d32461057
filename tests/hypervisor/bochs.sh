#!/bin/sh
# Guise's hypervisor module on a processor that is not ours: Bochs has VMX, at an interpreter's speed.
#
#	this host -> Bochs -> Debian's kernel with guise.ko -> test programs, guise run --kvm-device /dev/guise -> guests
#
# Usage: bochs.sh GUISE GUEST TINY WHAT PROGRAM...
# GUEST is the directory of the Linux guest's files, TINY that of the tiny guests; WHAT is "small" or "linux"; the PROGRAMs
# are demo, fuzz and test_engine_contract.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
. "$root/tests/linux/need.sh"

guise=$1 guest=$2 tiny=$3 what=$4
shift 4
need_guest "$guest"
grub=/usr/lib/grub/i386-pc
bios=/usr/share/bochs/BIOS-bochs-latest
vgabios=/usr/share/vgabios/vgabios.bin
for tool in bochs grub-mkimage make gcc-12; do
	command -v "$tool" >/dev/null 2>&1 || skip "no $tool (make test installs it)"
done
for file in $grub/boot.img $bios $vgabios "$guest/headers/Makefile"; do
	[ -r "$file" ] || skip "no $file (make test fetches it)"
done

tmp=$(mktemp -d)
bochs=''
trap '[ -z "$bochs" ] || kill "$bochs" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# ---- the module ----
if ! make -C "$root/hypervisor" KERNEL="$(readlink -f "$guest/headers")" OUT="$tmp/module" >"$tmp/make" 2>&1 ||
	grep -E 'warning:|error:' "$tmp/make"; then
	cat "$tmp/make"
	echo 'FAIL: the module does not build, or not without warnings'
	exit 1
fi

# ---- the machine's disk ----
list_libraries()
{
	ldd "$@" | sed -n 's/.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p' | sort -u | while read -r library; do
		echo "file $library 755 $library"
	done
}
# In the guest Linux of the guest Linux only /init and BusyBox are wanted.
"$root/tools/guest-list.sh" "$guest/busybox" >"$tmp/small"
{
	cat "$tmp/small"
	for dir in /guest /hypervisor /lib /lib64 /lib/x86_64-linux-gnu /tiny /usr /usr/lib /usr/lib/x86_64-linux-gnu; do
		echo "dir $dir 755"
	done
	list_libraries "$guise" "$@"
	echo "file /bin/guise 755 $guise"
	echo "file /guise/hypervisor 755 $here/guest"
	echo "file /hypervisor/guise.ko 644 $tmp/module/guise.ko"
	for program in "$@"; do
		echo "file /hypervisor/$(basename "$program" | sed s/test_//) 755 $program"
	done
	for image in "$tiny/tiny.bin" "$tiny"/*.elf; do
		echo "file /tiny/$(basename "$image") 644 $image"
	done
	if [ "$what" = linux ]; then
		echo "file /guest/vmlinuz 644 $(readlink -f "$guest/vmlinuz")"
		echo "file /guest/initramfs.cpio 644 $tmp/small.cpio"
	fi
} >"$tmp/list"
"$root/tools/mkcpio.py" "$tmp/small.cpio" <"$tmp/small"
"$root/tools/mkcpio.py" "$tmp/initrd" <"$tmp/list"

# Those that pass on Bochs's processor: others find how it sees code that is rewritten, IRET with bad frames, timing.
guests=basic,canonical,control,exceptions,gates,interrupts,modes,near16,paging,popf,segments,syscall,tlb,undefined,v86,xsave
fuzz=100000
[ -z "${GUISE_QUICK:-}" ] || fuzz=5000
"$here/disk.py" $grub "$tmp/disk" "$guest/vmlinuz" "$tmp/initrd" \
	"console=ttyS0 quiet mitigations=off nokaslr lpj=4000000 panic=-1 oops=panic guise.script=hypervisor \
guise.tests=$what guise.guests=$guests guise.fuzz=$fuzz"

# ---- Bochs ----
# The screen goes to nobody: the rfb display does not wait for a viewer. The package is built with its debugger, which
# wants to be told to go on; power-off and triple faults are panics and end it.
cat >"$tmp/bochsrc" <<END
config_interface: textconfig
plugin_ctrl: speaker=0, parallel=0, gameport=0
display_library: rfb, options="timeout=0"
memory: guest=1024, host=1024
romimage: file=$bios
vgaromimage: file=$vgabios
cpu: model=corei7_haswell_4770, count=1, ips=50000000, reset_on_triple_fault=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=flat, path=disk
boot: disk
com1: enabled=1, mode=file, dev=console
log: log
panic: action=fatal
error: action=report
info: action=report
END
printf 'c\nr\nq\n' >"$tmp/commands"
: >"$tmp/console"
limit=1500
(cd "$tmp" && exec timeout -s INT -k 10 $limit bochs -q -f bochsrc -rc commands </dev/null >debugger 2>&1) &
bochs=$!
wait "$bochs" || true
bochs=''

tr -d '\r' <"$tmp/console" >"$tmp/text"
cat "$tmp/text"
# One test a line, for the runner.
awk '/^GUISE-CHECK / && $2 != "all" { print ($3 == "FAIL" ? "not ok " : "ok ") ++n " - " $2 } END { print "1.." n + 0 }' \
	"$tmp/text"
if ! grep -q '^GUISE-CHECK all' "$tmp/text"; then
	tail -n 20 "$tmp/debugger"
	grep -E 'PANIC|VMX|vmx' "$tmp/log" | tail -n 5
	echo "FAIL: the machine did not come to the end of its script within $limit s"
	exit 1
fi
grep -q '^GUISE-CHECK all ok' "$tmp/text"
