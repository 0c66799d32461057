#!/bin/sh
# Debian's cloud kernel on the soft engine: to the guest's self-check and to poweroff with status 0.
# Usage: soft.sh GUISE GUEST
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

need_guest "$2"
exec "$here/../../tools/boot-check.sh" "$2" "$1" run -e soft
