#!/usr/bin/env bash
# Runs the static binary the way the container image does, without a container engine: in a root folder that holds
# nothing else, as a user that has no name, with only /app/data to write to. As root:
#
#   tools/empty_root.sh BINARY
#
# Ends with exit code 0 if the proxy starts there, answers, records a request, passes its own health check, stops on
# SIGTERM, and left nothing outside /app/data.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: tools/empty_root.sh BINARY" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "only root may change the root folder: run this with sudo" >&2; exit 2; }

# As in the Dockerfile.
user=10001

work="$(mktemp -d)"
root="$work/root"
proxy=""
finish() {
    local code=$?
    [ -z "$proxy" ] || kill "$proxy" 2>/dev/null || true
    # What the proxy said explains what went wrong.
    [ "$code" -eq 0 ] || { echo "failed (exit code $code); the log:"; cat "$work/log"; } >&2
    rm -rf "$work"
}
trap finish EXIT
: >"$work/log"

install -D -m 755 "$1" "$root/lms_metrics_proxy"
install -d -m 755 "$root/app"
install -d -m 755 -o "$user" -g "$user" "$root/app/data"

# To be called in a subshell: the proxy takes its place, so that its process is the one that is signalled. Takes PORT
# and the flags. Nothing listens on port 9 ("discard"), where LM Studio would be.
become_proxy() {
    local port="$1"
    shift
    exec env -i PORT="$port" HOST=0.0.0.0 DATABASE_URL=sqlite:/app/data/metrics.db SQLITE_TMPDIR=/app/data \
        LM_STUDIO_URL=http://127.0.0.1:9 "$(command -v chroot)" --userspec="$user:$user" "$root" \
        /lms_metrics_proxy "$@"
}
tree() { (cd "$root" && find . -path ./app/data -prune -o -printf '%p %y %m %u %g %s %T@\n' | sort); }
# Sends a request and prints the reply. The body is JSON.
ask() {
    local method="$1" path="$2" body="${3:-}"
    exec 5<>"/dev/tcp/127.0.0.1/$port"
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' \
        "$method" "$path" "${#body}" "$body" >&5
    cat <&5
    exec 5>&-
}
# The reply on the standard input has this status and these words.
answers() {
    local reply
    reply="$(cat)"
    if [[ "$reply" != "HTTP/1.1 $1 "* || "$reply" != *"$2"* ]]; then
        printf 'not %s with %s, but:\n%s\n' "$1" "$2" "$reply" >&2
        return 1
    fi
}

before="$(tree)"
(become_proxy 0 --version)

(become_proxy 0 2>"$work/log") &
proxy=$!
port=""
for _ in $(seq 100); do
    port="$(sed -n 's/.*listening on http:.*:\([0-9]*\)$/\1/p' "$work/log")"
    [ -z "$port" ] || break
    sleep 0.1
done
[ -n "$port" ] || { echo "it does not listen" >&2; exit 1; }
echo "listens, as user $(awk '$1 == "Uid:" { print $2 }' "/proc/$proxy/status")"

ask GET /health | answers 200 '"status": "ok"'
(become_proxy "$port" --health)
echo "healthy, by --health too"
ask POST /v1/chat/completions '{"model": "m", "messages": []}' | answers 502 upstream_unreachable
ask GET /stats/summary | answers 200 '"failed_requests":1'
ask GET /stats/recent | answers 200 '"model":"m"'
echo "records, and reads what it recorded"

kill -TERM "$proxy"
wait "$proxy"
proxy=""
echo "stopped on SIGTERM, exit code 0"
if (become_proxy "$port" --health 2>/dev/null); then
    echo "--health finds a proxy that is gone" >&2
    exit 1
fi

[ "$before" = "$(tree)" ] || { diff <(echo "$before") <(tree) >&2; exit 1; }
ls -ln "$root/app/data"
echo "nothing was written outside /app/data"
