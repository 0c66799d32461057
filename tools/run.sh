#!/bin/sh
# Boots the fetched Linux guest: to a shell when standard input is a terminal, otherwise to the guest's
# self-check, whose outcome is the exit status.
# Usage: tools/run.sh BUILD [GUISE RUN'S OPTIONS...]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"

build=${1:?usage: run.sh BUILD [OPTION...]}
shift
guest=$build/guest

if [ ! -t 0 ]; then
	exec "$here/boot-check.sh" "$guest" "$build/guise" run "$@"
fi
size=$(stty size)
case $size in
0* | *' 0') size='24 80' ;; # a terminal that does not know
esac
exec "$build/guise" run "$@" -k "$guest/vmlinuz" -i "$guest/initramfs.cpio" \
	-a "console=ttyS0 quiet TERM=${TERM:-linux} guise.size=${size% *}x${size#* }"
