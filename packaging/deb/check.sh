#!/usr/bin/env bash
# Installs a package on this system, looks whether it is there and serves, and purges it again. As root, on a Debian or
# Ubuntu that does not have it; what serves is looked at where systemd runs.
#
#   packaging/deb/check.sh PACKAGE.deb
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: packaging/deb/check.sh PACKAGE.deb" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "only root may install a package: run this with sudo" >&2; exit 2; }
package="$(realpath "$1")"
if dpkg-query --status lms-metrics-proxy >/dev/null 2>&1 || [ -e /etc/lms_metrics_proxy.env ]; then
    echo "it is installed here already, and purging it would take its database away" >&2
    exit 2
fi
unit=lms_metrics_proxy.service
folder=/var/lib/lms_metrics_proxy

expect() { "$@" || { echo "failed: $*" >&2; exit 1; }; }
healthy() {
    for _ in $(seq 50); do
        ! lms_metrics_proxy --health >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    journalctl --no-pager --unit "$unit" >&2
    return 1
}

dpkg --install "$package"
expect lms_metrics_proxy --version
expect lms_metrics_proxy --check >/dev/null
expect [ -e /usr/share/man/man1/lms_metrics_proxy.1.gz ]
expect [ "$(stat -c '%a %U' /etc/lms_metrics_proxy.env)" = "600 root" ]
expect grep -qx 'ExecStart=/usr/bin/lms_metrics_proxy' /usr/lib/systemd/system/$unit
if command -v systemd-analyze >/dev/null; then
    expect systemd-analyze verify --recursive-errors=no --man=no /usr/lib/systemd/system/$unit
fi
# A setting of the administrator outlives the next version, and the removal.
echo "# mine" >>/etc/lms_metrics_proxy.env

if [ -d /run/systemd/system ]; then
    expect systemctl is-enabled --quiet $unit
    expect healthy
    expect [ "$(curl --silent --output /dev/null --write-out '%{http_code}' -d '{"model": "m"}' \
        http://127.0.0.1:8080/v1/chat/completions)" = 502 ]
    expect [ "$(ps -o user= -p "$(systemctl show --property MainPID --value $unit)")" != root ]
    expect [ "$(stat -c %a $folder/metrics.db)" = 600 ]
    rows() { curl --silent http://127.0.0.1:8080/stats/summary | grep -o '"total_requests":[0-9]*'; }
    expect [ "$(rows)" = '"total_requests":1' ]
    # As an upgrade does.
    dpkg --install "$package"
    expect healthy
    expect [ "$(rows)" = '"total_requests":1' ]
    echo "it serves, records, and keeps that over an upgrade"
fi
expect grep -qx '# mine' /etc/lms_metrics_proxy.env

dpkg --remove lms-metrics-proxy
expect [ ! -e /usr/bin/lms_metrics_proxy ]
expect grep -qx '# mine' /etc/lms_metrics_proxy.env
if [ -d /run/systemd/system ]; then
    expect [ -e $folder/metrics.db ]
fi
dpkg --purge lms-metrics-proxy
for path in /etc/lms_metrics_proxy.env /usr/share/doc/lms-metrics-proxy "$folder" /var/lib/private/lms_metrics_proxy \
    /etc/systemd/system/$unit /etc/systemd/system/multi-user.target.wants/$unit; do
    expect [ ! -e "$path" ] && expect [ ! -L "$path" ]
done
echo "installed, removed and purged"
