#!/usr/bin/env bash
# Builds a Debian package of an unpacked archive of a release, or of any folder that is laid out like one. Wants dpkg-deb
# (Debian, Ubuntu, or Homebrew's dpkg) and GNU's coreutils.
#
#   packaging/deb/build.sh FOLDER ARCHITECTURE [OWNER/REPOSITORY]
#
# FOLDER holds lms_metrics_proxy, LICENSE, README.md, CHANGELOG.md, .env.example, model-prices.example.json, docs and
# deploy; ARCHITECTURE is Debian's name of what the program is for: amd64 or arm64. Prints the name of the package, which
# it writes to the working folder. MAINTAINER is who it names. The same input makes the same bytes, where SOURCE_DATE_EPOCH
# is set; else the time of the file CHANGELOG.md is in them.
set -euo pipefail

[ $# -eq 2 ] || [ $# -eq 3 ] || { echo "usage: packaging/deb/build.sh FOLDER ARCHITECTURE [OWNER/REPOSITORY]" >&2; exit 2; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
from="$1" architecture="$2" repository="${3:-}"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml")"
owner="${repository%%/*}"
maintainer="${MAINTAINER:-${owner:-LMS Metrics Proxy} <${owner:-nobody}@users.noreply.github.com>}"
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(stat -c %Y "$from/CHANGELOG.md")}"
name=lms-metrics-proxy
file="${name}_${version}-1_$architecture.deb"

root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
# mktemp makes a folder for one user alone, and it becomes / of the package.
chmod 755 "$root"
umask 022
documents="$root/usr/share/doc/$name"

install -D -m 755 "$from/lms_metrics_proxy" -t "$root/usr/bin"
# The unit is for a program that was unpacked by hand; here it lies elsewhere, and needs no words on that.
mkdir -p "$root/usr/lib/systemd/system"
sed -e '1,/^$/d' -e 's|/usr/local/bin/|/usr/bin/|' "$from/deploy/systemd/lms_metrics_proxy.service" \
    >"$root/usr/lib/systemd/system/lms_metrics_proxy.service"
# For root alone: STATS_TOKEN may stand in it.
install -D -m 600 /dev/null "$root/etc/lms_metrics_proxy.env"
{
    cat <<'EOF'
# Settings of LMS Metrics Proxy as a service. Take the # off the lines you change, then:
#
#   systemctl restart lms_metrics_proxy
#
# A value with blanks, $, # or \ belongs in 'single quotes'. `lms_metrics_proxy --help` says what each one takes.

EOF
    sed -e '1,/^$/d' -e 's|^#DATABASE_URL=.*|#DATABASE_URL=sqlite:/var/lib/lms_metrics_proxy/metrics.db|' "$from/.env.example"
} >"$root/etc/lms_metrics_proxy.env"

install -D -m 644 "$from/README.md" "$from/model-prices.example.json" -t "$documents"
cp -r "$from/docs" "$from/deploy" "$documents"
rm -r "$documents/deploy/man"
mkdir -p "$root/usr/share/man/man1"
gzip -9nc "$from/deploy/man/lms_metrics_proxy.1" >"$root/usr/share/man/man1/lms_metrics_proxy.1.gz"
find "$documents" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
gzip -9nc "$from/CHANGELOG.md" >"$documents/changelog.gz"
gzip -9nc >"$documents/changelog.Debian.gz" <<EOF
$name ($version-1) stable; urgency=medium

  * Version $version: see changelog.gz.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF
{
    echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    echo "Upstream-Name: LMS Metrics Proxy"
    [ -z "$repository" ] || echo "Source: https://github.com/$repository"
    echo "Comment: The program holds crates of others, each under its own licence; the release's .cdx.json names them."
    echo
    echo "Files: *"
    echo "Copyright: $(sed -n 's/^Copyright (c) //p' "$from/LICENSE")"
    echo "License: Expat"
    # The text alone, without the title and the line of the copyright.
    sed -n '/^Permission is hereby granted/,$p' "$from/LICENSE" | sed -e 's/^$/./' -e 's/^/ /'
} >"$documents/copyright"
# Static on purpose: it runs on every Debian, old or new, and on what is made of it.
mkdir -p "$root/usr/share/lintian/overrides"
cat >"$root/usr/share/lintian/overrides/$name" <<EOF
$name: shared-library-lacks-prerequisites [usr/bin/lms_metrics_proxy]
$name: statically-linked-binary [usr/bin/lms_metrics_proxy]
# STATS_TOKEN may stand in it.
$name: non-standard-file-perm 0600 != 0644 [etc/lms_metrics_proxy.env]
# It is in no archive of Debian, which has no bug for it.
$name: initial-upload-closes-no-bugs *
EOF

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
    install -m 755 "$here/$script" "$root/DEBIAN/"
done
echo /etc/lms_metrics_proxy.env >"$root/DEBIAN/conffiles"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' md5sum >DEBIAN/md5sums)
{
    echo "Package: $name"
    echo "Version: $version-1"
    echo "Architecture: $architecture"
    echo "Maintainer: $maintainer"
    echo "Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)"
    # With systemd it is a service; without, it is started by hand.
    echo "Recommends: systemd"
    echo "Section: net"
    echo "Priority: optional"
    [ -z "$repository" ] || echo "Homepage: https://github.com/$repository"
    cat "$here/description"
} >"$root/DEBIAN/control"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# xz: older systems know no zstd.
dpkg-deb --root-owner-group -Zxz --build "$root" "$file" >/dev/null
echo "$file"
