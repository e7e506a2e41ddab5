#!/bin/sh
# Runs before the package's files go (deb: prerm, rpm: %preun). Data, keys and settings stay.
set -eu
case "${1:-}" in
remove | 0) ;;
*) exit 0 ;; # an upgrade: the new package's installer does it
esac
[ -d /var/lib/crosslogic-installer ] || exit 0
[ -x /usr/lib/crosslogic/bundle/@VERSION@/install.sh ] || exit 0
exec /usr/lib/crosslogic/bundle/@VERSION@/install.sh uninstall --yes
