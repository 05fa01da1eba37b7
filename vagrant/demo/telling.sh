# shellcheck shell=bash
# Sourced by the demos: ways to say and to insist.

say() {
    echo
    echo "== $*"
}

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# until_true SECONDS WHAT COMMAND...: asks again and again, dies after that time, or after OVSFW_PATIENCE.
until_true() {
    local end=$((SECONDS + ${OVSFW_PATIENCE:-$1})) what=$2
    shift 2
    until "$@" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "not within the time allowed: $what"
        sleep 0.2
    done
}

[ "$(id -u)" = 0 ] || die "network namespaces and Open vSwitch need root"
