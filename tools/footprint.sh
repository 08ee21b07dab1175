#!/usr/bin/env bash
# What the proxy takes: prints how the binary is linked, its size, and, of a running proxy that nobody asks anything,
# memory, processor time and wake-ups; then how soon after its start it answers. It measures, and judges nothing.
#
#   tools/footprint.sh [BINARY] [DATABASE]
#
# Without BINARY, or with "", a static one is built. With DATABASE the start is measured on a copy of that file too (made
# beside it, and removed). IDLE_S sets how long the idle proxy is watched (10), STARTS how many starts are measured (11).
# Linux only: the figures are those of /proc.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
idle_s="${IDLE_S:-10}"
starts="${STARTS:-11}"

if [ -n "${1:-}" ]; then
    binary="$(realpath "$1")"
else
    target="$(rustc --print host-tuple)"
    (cd "$here" && RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" cargo build --release --locked --target "$target")
    binary="${CARGO_TARGET_DIR:-$here/target}/$target/release/lms_metrics_proxy"
fi
database="${2:-}"

work="$(mktemp -d)"
copy=""
proxy=""
finish() {
    [ -z "$proxy" ] || kill "$proxy" 2>/dev/null || true
    [ -z "$copy" ] || rm -f "$copy" "$copy-wal" "$copy-shm"
    rm -rf "$work"
}
trap finish EXIT

show() { printf '%-42s %s\n' "$1" "$2"; }
# Lines "Name: 123 kB" of /proc/PID/status.
status() { awk -v name="$1:" '$1 == name { print $2 }' "/proc/$proxy/status"; }
# Over all threads. A voluntary switch is a thread that went to sleep, and so was awake.
switches() { cat "/proc/$proxy/task"/*/status | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }'; }
# The 14th and 15th field; the second, the name in parentheses, holds no blank here.
ticks() { awk '{ print $14 + $15 }' "/proc/$proxy/stat"; }
microseconds() { echo "${EPOCHREALTIME/[.,]/}"; }

# Starts a proxy on the given database, with nothing of the caller's settings, and waits for it to listen: its log tells
# the port. The working folder has no .env.
start() {
    rm -f "$work/log"
    mkfifo "$work/log"
    (cd "$work" && exec env -i PORT=0 DATABASE_URL="$1" "$binary" 2>"$work/log") &
    proxy=$!
    exec 4<"$work/log"
    port=""
    local line
    while read -r line <&4; do
        if [[ "$line" =~ listening\ on\ http://127\.0\.0\.1:([0-9]+) ]]; then
            port="${BASH_REMATCH[1]}"
            break
        fi
    done
    [ -n "$port" ] || { echo "the proxy did not start: ${line:-it said nothing}" >&2; exit 1; }
}

# Asks for a path; succeeds with a status of 200.
ask() {
    local line
    exec 5<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&5
    read -r line <&5
    cat <&5 >"$work/answer"
    exec 5>&-
    [[ "$line" == "HTTP/1.1 200 "* ]]
}

stop() {
    kill "$proxy"
    wait "$proxy" 2>/dev/null || show "exit code after SIGTERM" "$?"
    exec 4<&-
    proxy=""
}

# Median and worst of the times from the start of the process to the first answer.
first_answer() {
    local path="$2" times=() began ended
    for _ in $(seq "$starts"); do
        began="$(microseconds)"
        start "$1"
        ask "$path"
        ended="$(microseconds)"
        times+=($((ended - began)))
        stop
    done
    printf '%s\n' "${times[@]}" | sort -n | awk '
        { all[NR] = $1 / 1000 }
        END { printf "median %.1f ms, worst %.1f ms of %d\n", all[int((NR + 1) / 2)], all[NR], NR }'
}

show "binary" "$binary"
show "ldd" "$(ldd "$binary" 2>&1 | head -1 | sed 's/^[[:space:]]*//' || true)"
show "size" "$(stat -c %s "$binary") bytes"

start "$work/idle.db"
ask /health
# What starting leaves behind is over by then.
sleep 2
show "resident, idle" "$(status VmRSS) kB, of them $(status RssAnon) kB not of files; highest $(status VmHWM) kB"
show "threads" "$(status Threads)"
switches_before="$(switches)" ticks_before="$(ticks)"
sleep "$idle_s"
show "wake-ups in $idle_s idle seconds" "$(($(switches) - switches_before))"
show "processor time in $idle_s idle seconds" "$((($(ticks) - ticks_before) * 1000 / $(getconf CLK_TCK))) ms"
stop

# The times include what bash takes to start a process and to open a connection.
rm -f "$work"/first.db*
show "first start, making the database, /health" "$(starts=1; first_answer "$work/first.db" /health)"
show "later starts, empty database, /health" "$(first_answer "$work/first.db" /health)"
show "the same, /stats/summary" "$(first_answer "$work/first.db" /stats/summary)"

if [ -n "$database" ]; then
    copy="$(mktemp "$(realpath "$database").footprint-XXXXXX")"
    cp "$database" "$copy"
    # What is not in the file itself yet.
    [ ! -f "$database-wal" ] || cp "$database-wal" "$copy-wal"
    show "database" "$(stat -c %s "$copy") bytes"
    # An older one is upgraded here, once.
    show "its first start, /health" "$(starts=1; first_answer "$copy" /health)"
    show "its later starts, /health" "$(first_answer "$copy" /health)"
    show "the same, /stats/summary" "$(first_answer "$copy" /stats/summary)"
fi
