#!/bin/sh
# Checks that this bundle is whole and genuine, then starts its installer. Nothing of the bundle
# runs before the signature and every file have been checked; only sh, openssl and coreutils do.
# usage: ./install.sh [--key FILE] [OPTION…]     (options are the installer's: ./install.sh --help)
# Exit codes: 4 the bundle is not genuine or not whole, 1 it could not be checked; else the installer's.
set -eu
LC_ALL=C
export LC_ALL
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
umask 022

fail() {
	code=$1
	printf 'install.sh: %s\n  Fix: %s\n' "$2" "$3" >&2
	exit "$code"
}

again="copy the bundle again from where you obtained it, unpack it into an empty folder, and run install.sh there"
unset CDPATH
start=$PWD
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
cd -P -- "$here" || fail 1 "the folder of install.sh cannot be entered." "run it by its path: /path/to/bundle/install.sh"

# --key FILE is ours; everything else goes to the installer as it was given.
key=release-key.pem
given=""
count=$#
while [ "$count" -gt 0 ]; do
	word=$1
	shift
	count=$((count - 1))
	case $word in
	--key)
		[ "$count" -gt 0 ] || fail 2 "--key needs a file." "./install.sh --key /path/to/release-key.pem"
		given=$1
		shift
		count=$((count - 1))
		;;
	--key=*) given=${word#--key=} ;;
	*) set -- "$@" "$word" ;;
	esac
done
if [ -n "$given" ]; then
	case $given in /*) key=$given ;; *) key=$start/$given ;; esac
	[ -r "$key" ] || fail 1 "the key $given cannot be read." "name the file of the release key that you obtained"
fi

command -v openssl >/dev/null 2>&1 || fail 1 "openssl is not installed, so the bundle's signature cannot be checked." \
	"install the package openssl from your distribution's medium (apt-get install openssl, dnf install openssl), then run this again"
for tool in sha256sum find sort; do
	command -v $tool >/dev/null 2>&1 || fail 1 "$tool is not installed." "install the packages coreutils and findutils, then run this again"
done
for file in SHA256SUMS SHA256SUMS.sig release-key.pem; do
	[ -f "$file" ] && [ ! -L "$file" ] || fail 4 "$file is missing or is not a plain file." "$again"
done

openssl dgst -sha256 -verify "$key" -signature SHA256SUMS.sig SHA256SUMS >/dev/null 2>&1 ||
	fail 4 "the signature of SHA256SUMS is not by the key $key: the bundle was changed, or the key is another one." "$again"

# The list is signed; what is in the folder must be the list, no more and no less. Names with line
# breaks or backslashes are not in a bundle, so anything of that kind shows as a difference.
# The lists are held in variables: no temporary file is needed, and /tmp may be read-only or noexec.
listed=$(sed -n 's/^[0-9a-f]\{64\}  //p' SHA256SUMS | sort)
[ "$(grep -c '' SHA256SUMS)" -eq "$(printf '%s\n' "$listed" | grep -c '')" ] || fail 4 "SHA256SUMS has lines of another form." "$again"
case "
$listed" in *"
/"* | *"../"*) fail 4 "SHA256SUMS names files outside the bundle." "$again" ;; esac
strange=$(find . ! -type f ! -type d ! -type l | head -n 1)
[ -z "$strange" ] || fail 4 "$strange is neither a file nor a folder." "$again"
links=$(find . -type l | head -n 1)
[ -z "$links" ] || fail 4 "$links is a symbolic link; a bundle has none." "$again"
found=$(find . -type f ! -path ./SHA256SUMS ! -path ./SHA256SUMS.sig | sed 's/^\.\///' | sort)
if [ "$listed" != "$found" ]; then
	odd=$({ printf '%s\n' "$listed"; printf '%s\n' "$found"; } | sort | uniq -u | head -n 1)
	[ -e "$odd" ] && fail 4 "$odd is not part of the bundle." "$again"
	fail 4 "$odd is missing from the bundle." "$again"
fi
sums=$(sha256sum -c SHA256SUMS 2>/dev/null) || {
	odd=$(printf '%s\n' "$sums" | sed -n 's/: FAILED.*//p' | head -n 1)
	fail 4 "${odd:-a file} is not as it was signed." "$again"
}

fingerprint=$(openssl pkey -pubin -in "$key" -outform DER 2>/dev/null | sha256sum | cut -d' ' -f1)
echo "The bundle is whole and signed by the release key with the SHA-256 fingerprint" >&2
echo "  $fingerprint" >&2
[ -n "$given" ] || echo "That key came with the bundle: compare the fingerprint with the one published to you, or give your own copy with --key." >&2

python=$PWD/tree/python/bin/python3
[ -f "$python" ] || fail 1 "this bundle holds no installer: it is added to an installed appliance." "follow docs/PACKAGING.md, \"Extra bundles\""
[ -x "$python" ] || fail 4 "$python is not executable." "$again"
"$python" -I -c '' 2>/dev/null || fail 1 "programs cannot run from $PWD: its file system is mounted noexec, or this is not a Linux x86_64 host with glibc 2.28 or newer." \
	"unpack the bundle where programs may run, for example below /opt or /root, and run install.sh there"
# Files that the caller named are meant from where the caller is.
CROSSLOGIC_BUNDLE=$PWD
export CROSSLOGIC_BUNDLE
cd -- "$start"
exec "$python" -I -m installer "$@"
