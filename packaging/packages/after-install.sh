#!/bin/sh
# Runs after the package's files are in place (deb: postinst, rpm: %post): hands the signed bundle
# that the package carries to its own installer, which installs, upgrades, or goes on.
set -eu
[ "${1:-configure}" != abort-remove ] || exit 0
bundle=/usr/lib/crosslogic/bundle/@VERSION@
answers=/etc/crosslogic/answers.toml
[ -f "$answers" ] || answers=$bundle-answers.toml

if [ ! -d /run/systemd/system ]; then
	# An image or a container is being made: the site belongs to the host that boots it.
	echo "crosslogic-appliance: not set up, because systemd does not run here. On the host:"
	echo "  $bundle/install.sh --answers $answers"
	exit 0
fi
if [ -L /opt/crosslogic/current ] && [ "$(readlink /opt/crosslogic/current)" != "@VERSION@" ]; then
	set -- upgrade "$bundle" --yes
else
	set -- install --answers "$answers" --yes
fi
"$bundle/install.sh" "$@" && exit 0
code=$?
echo "crosslogic-appliance: the package is unpacked, but the appliance is not set up (see above). When that is mended:" >&2
echo "  $bundle/install.sh $*" >&2
exit "$code"
