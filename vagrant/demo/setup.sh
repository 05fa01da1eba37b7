# shellcheck shell=bash
# Sourced by the demos: ovsfw, a lab of their own that goes when they end, and ways to say and to insist.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
PATH="$PWD/.build/venv/bin:$PATH:/usr/sbin:/sbin"
LAB=${OVSFW_LAB:-story}
PLACE=/run/ovsfw-$LAB
POLICY=$PWD/ovsfw/lab/three-tier.yaml
DAEMON=

say() {
    echo
    echo "== $*"
}

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

lab() {
    local verb=$1
    shift
    ovsfw lab "$verb" --name "$LAB" "$@"
}

# The lab's switch is in a namespace and its sockets are in the lab's directory.
start_daemon() {
    ovsfw run --policy "$POLICY" --db "unix:$PLACE/db.sock" --rundir "$PLACE" --log-level warn &
    DAEMON=$!
    until_well
}

until_well() {
    local end=$((SECONDS + 60))
    until ovsfw status --db "unix:$PLACE/db.sock" --rundir "$PLACE" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "the daemon is not in sync after a minute"
        sleep 0.2
    done
}

tidy() {
    if [ -n "$DAEMON" ]; then
        kill "$DAEMON" 2> /dev/null || true
        wait "$DAEMON" || true
    fi
    lab down > /dev/null
}

[ "$(id -u)" = 0 ] || die "network namespaces and Open vSwitch need root"
trap tidy EXIT
trap 'exit 130' INT TERM
