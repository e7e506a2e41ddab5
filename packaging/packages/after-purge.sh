#!/bin/sh
# deb only: `apt purge` and `dpkg -P` also remove data, keys, settings and accounts. An rpm system has
# no such step: there `cic-installer uninstall --purge` comes before `dnf remove`.
set -eu
[ "${1:-}" = purge ] || exit 0
rm -rf /etc/crosslogic /var/lib/crosslogic /var/lib/crosslogic-agent /var/log/crosslogic \
	/run/crosslogic /var/lib/crosslogic-installer /opt/crosslogic
for account in crosslogic crosslogic-agent; do
	if getent passwd "$account" >/dev/null; then userdel "$account"; fi
	if getent group "$account" >/dev/null; then groupdel "$account"; fi
done
