# What goes into an outer machine's initramfs, as lines for tools/mkcpio.py; sourced, not run. Each file with the
# libraries that it needs.
# shellcheck shell=sh

# list_libraries PROGRAM...
list_libraries()
{
	ldd "$@" | sed -n 's/.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p' | sort -u | while read -r library; do
		echo "file $library 755 $library"
	done
}

# list_files INTO FILE...: those that are there, under their own names.
list_files()
{
	into=$1
	shift
	for file in "$@"; do
		[ ! -e "$file" ] || echo "file $into/$(basename "$file") 755 $file"
	done
}

# list_qemu QEMU: the program, and what it starts a kernel with: firmware, and the code that takes the kernel from it; in
# /qemu. Status 1 if some of it is not installed.
list_qemu()
{
	echo 'dir /qemu 755'
	list_libraries "$1"
	list_files /qemu "$1"
	for name in bios-256k.bin kvmvapic.bin linuxboot_dma.bin; do
		found=$("$1" -L help | while read -r dir; do
			[ ! -r "$dir/$name" ] || echo "$dir/$name"
		done | head -n 1)
		[ -n "$found" ] || return 1
		list_files /qemu "$found"
	done
}
