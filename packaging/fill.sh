#!/usr/bin/env bash
# Fills in the recipes for other package managers: version (of Cargo.toml), repository and checksums of a release.
#
#   packaging/fill.sh OWNER/REPOSITORY SHA256SUMS FOLDER
#
# Writes FOLDER/lms-metrics-proxy.rb, a Homebrew formula, and FOLDER/PKGBUILD, for makepkg and the AUR. SHA256SUMS is the
# file of that name of the release. MAINTAINER (a name and an address) is who the PKGBUILD names.
set -euo pipefail

[ $# -eq 3 ] || { echo "usage: packaging/fill.sh OWNER/REPOSITORY SHA256SUMS FOLDER" >&2; exit 2; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$1" sums="$2" folder="$3"
[[ "$repository" =~ ^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$ ]] || { echo "no OWNER/REPOSITORY: $repository" >&2; exit 2; }
maintainer="${MAINTAINER:-${repository%/*} <${repository%/*}@users.noreply.github.com>}"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../Cargo.toml")"

# Of the archive of a platform, as sha256sum wrote it.
checksum() {
    local found
    found="$(awk -v file="lms_metrics_proxy-$version-$1.tar.gz" '$2 == file || $2 == "*" file { print $1 }' "$sums")"
    [[ "$found" =~ ^[0-9a-f]{64}$ ]] || { echo "$sums has no checksum of version $version for $1" >&2; exit 1; }
    echo "$found"
}
values=(-e "s|@VERSION@|$version|g" -e "s|@REPOSITORY@|$repository|g" -e "s|@MAINTAINER@|$maintainer|g" -e '/^# Template: /d')
for platform in linux-x86_64 linux-aarch64 macos-x86_64 macos-arm64; do
    place="$(tr 'a-z-' 'A-Z_' <<<"$platform")"
    sum="$(checksum "$platform")"
    values+=(-e "s|@SHA256_$place@|$sum|g")
done

mkdir -p "$folder"
for template in homebrew/lms-metrics-proxy.rb aur/PKGBUILD; do
    filled="$folder/$(basename "$template")"
    sed "${values[@]}" "$here/$template" >"$filled"
    if grep -n '@[A-Z_0-9]*@' "$filled"; then
        echo "$filled: not all is filled in" >&2
        exit 1
    fi
done
