#!/bin/sh
# Makes the files of a Linux guest: BUILD/guest/vmlinuz (Debian's cloud kernel), BUILD/guest/modules (its
# modules, a symbolic link), BUILD/guest/busybox, BUILD/guest/initramfs.cpio.
# Usage: tools/guest-files.sh BUILD
# Packages are unpacked, never installed, into the cache (lib.sh: cache_dir), which other builds share.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

build=${1:?usage: guest-files.sh BUILD}
mkdir -p "$build/guest"
guest=$(cd "$build/guest" && pwd)
cache=$(cache_dir)

# Apt drops root's rights to download and then complains about a directory that it cannot write.
apt_get()
{
	apt-get -q -o APT::Sandbox::User="$(id -un)" "$@"
}

refresh_apt()
{
	[ -z "${refreshed:-}" ] || return 0
	refreshed=yes
	say 'refreshing the package lists'
	as_root apt-get -q update >&2
}

# kernel_package: prints the name of the package that linux-image-cloud-amd64 stands for.
kernel_package()
{
	apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}

# unpack PACKAGE: downloads it and unpacks it into the cache as a directory of that name, all or nothing.
unpack()
{
	say "fetching $1"
	tmp=$(mktemp -d "$cache/tmp.XXXXXX")
	if ! (cd "$tmp" && apt_get download "$1" >&2); then
		refresh_apt
		(cd "$tmp" && apt_get download "$1" >&2) || {
			rm -rf "$tmp"
			die "cannot download $1: is there a network, and are Debian's sources in /etc/apt?"
		}
	fi
	mkdir "$tmp/root"
	dpkg-deb -x "$tmp"/*.deb "$tmp/root"
	# Another build may have been faster; its copy is as good.
	mv -T "$tmp/root" "$cache/$1" 2>/dev/null || [ -d "$cache/$1" ]
	rm -rf "$tmp"
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
	[ -d "$cache/$package" ] || unpack "$package"
	ln -sfn "$package" "$cache/linux"
	# The program takes this one when no kernel is named.
	ln -sfn "linux/boot/vmlinuz-${package#linux-image-}" "$cache/vmlinuz"
}

if [ ! -e "$cache/vmlinuz" ] || [ ! -x "$cache/busybox-static/bin/busybox" ]; then
	for tool in apt-get apt-cache dpkg-deb; do
		command -v "$tool" >/dev/null 2>&1 ||
			die "$tool is missing: the guest's kernel and BusyBox come from Debian's packages"
	done
	mkdir -p "$cache"
	fetch_kernel
	[ -x "$cache/busybox-static/bin/busybox" ] || unpack busybox-static
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
