#!/bin/sh
# Prints the list (see mkcpio.py) of the guest's initramfs.
# Usage: tools/guest-list.sh BUSYBOX
set -eu
here=$(cd "$(dirname "$0")" && pwd)
busybox=${1:?usage: guest-list.sh BUSYBOX}

cat <<END
dir /bin 755
dir /dev 755
dir /etc 755
dir /guise 755
dir /proc 755
dir /root 700
dir /sys 755
dir /tmp 1777
file /bin/busybox 755 $busybox
link /bin/sh busybox
file /init 755 $here/guest/init
file /etc/profile 644 $here/guest/profile
file /etc/group 644 $here/guest/group
file /etc/passwd 644 $here/guest/passwd
file /guise/check 755 $here/guest/check
file /guise/poweroff 755 $here/guest/poweroff
END
