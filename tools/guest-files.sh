#!/bin/sh
# Makes the files of a Linux guest: BUILD/guest/vmlinuz (Debian's cloud kernel), BUILD/guest/modules (its
# modules, a symbolic link), BUILD/guest/busybox, BUILD/guest/initramfs.cpio.
# With "test" also what tests run in it: BUILD/guest/luajit (a just-in-time compiler, with its libraries), and what the
# hypervisor module is built against: BUILD/guest/headers (the kernel's, a symbolic link).
# Usage: tools/guest-files.sh BUILD [test]
# Packages are unpacked, never installed, into the cache (lib.sh: cache_dir), which other builds share.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/packages.sh"

build=${1:?usage: guest-files.sh BUILD [test]}
what=${2:-}
mkdir -p "$build/guest"
guest=$(cd "$build/guest" && pwd)
cache=$(cache_dir)

# kernel_package: prints the name of the package that linux-image-cloud-amd64 stands for.
kernel_package()
{
	apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}

fetch_kernel()
{
	[ ! -e "$cache/vmlinuz" ] || return 0
	package=$(kernel_package)
	if [ -z "$package" ]; then
		refresh_apt
		package=$(kernel_package)
	fi
	[ -n "$package" ] || die "no package linux-image-cloud-amd64 here: Debian's archive is needed"
	[ -d "$cache/$package" ] || unpack "$cache" "$package" "$package"
	ln -sfn "$package" "$cache/linux"
	# The program takes this one when no kernel is named.
	ln -sfn "linux/boot/vmlinuz-${package#linux-image-}" "$cache/vmlinuz"
}

# fetch_headers: the packages of $headers, those that they depend on with what is built, and the path by which one of
# them finds another.
fetch_headers()
{
	depends=$(apt-cache depends "$headers" | sed -n 's/^ *Depends: \(linux-[^ ]*\)$/\1/p')
	[ -n "$depends" ] || die "no package $headers here any more: a newer kernel is there, remove $cache"
	# shellcheck disable=SC2086 # one argument a package
	unpack "$cache" "$headers" "$headers" $depends
	sed -i "s,/usr/src,$cache/$headers/usr/src," "$cache/$headers/usr/src/$headers/Makefile"
}

if [ ! -e "$cache/vmlinuz" ] || [ ! -x "$cache/busybox-static/bin/busybox" ]; then
	need_apt "the guest's kernel and BusyBox come"
	fetch_kernel
	[ -x "$cache/busybox-static/bin/busybox" ] || unpack "$cache" busybox-static busybox-static
fi

ln -sfn "$(readlink -f "$cache/vmlinuz")" "$guest/vmlinuz"
ln -sfn "$(readlink -f "$cache/linux")/lib/modules" "$guest/modules"
ln -sfn "$cache/busybox-static/bin/busybox" "$guest/busybox"

"$here/guest-list.sh" "$guest/busybox" >"$guest/initramfs.list.new"
if ! cmp -s "$guest/initramfs.list.new" "$guest/initramfs.list" ||
	[ -n "$(find "$here/guest" "$here/mkcpio.py" "$cache/busybox-static/bin/busybox" \
		-newer "$guest/initramfs.cpio" 2>&1)" ]; then
	say "making $build/guest/initramfs.cpio"
	"$here/mkcpio.py" "$guest/initramfs.new" <"$guest/initramfs.list.new"
	mv "$guest/initramfs.new" "$guest/initramfs.cpio"
fi
mv "$guest/initramfs.list.new" "$guest/initramfs.list"

# The test that wants it is skipped where it cannot be fetched.
if [ "$what" = test ]; then
	[ -d "$cache/luajit" ] ||
		(need_apt 'the compiler for the guest comes' && unpack "$cache" luajit luajit libc6 libgcc-s1) || true
	ln -sfn "$cache/luajit" "$guest/luajit"

	linux=$(basename "$(readlink -f "$cache/linux")")
	headers=linux-headers-${linux#linux-image-}
	[ -d "$cache/$headers" ] || (need_apt 'the headers of the kernel come' && fetch_headers) || true
	ln -sfn "$cache/$headers/usr/src/$headers" "$guest/headers"
fi
