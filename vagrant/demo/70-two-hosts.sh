#!/usr/bin/env bash
# One policy, two hosts, VXLAN between them; on host1.  A rule is taken away in the policy database: what it allowed from one
# host to the other is cut on both, while another conversation loses nothing.  Then it is put back.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=vagrant/demo/telling.sh
. vagrant/demo/telling.sh

export OVSFW_STORE=${OVSFW_STORE:-tcp:192.168.56.10:6642}
RULE=base/ingress-ipv4-icmp-from-monitoring
DATABASE=10.9.0.41 ROUTER=10.9.0.81 # both on host2; the router filters by itself
PLACE=$(mktemp -d)
declare -A PINGS=()

tidy() {
    [ ${#PINGS[@]} = 0 ] || kill "${PINGS[@]}" 2> /dev/null || true
    ovsfw db import ovsfw/lab/three-tier.yaml > /dev/null
    rm -rf "$PLACE"
}

# ping_from_here NAME ADDRESS: echoes every 50 ms, until `finish NAME`
ping_from_here() {
    ovsfw lab exec monitor ping -n -i 0.05 "$2" > "$PLACE/$1" &
    PINGS[$1]=$!
    until_true 120 "$1 answers" grep -q time= "$PLACE/$1"
}

# finish NAME: LOST is how many were not answered.
finish() {
    local sent got
    kill -INT "${PINGS[$1]}"
    wait "${PINGS[$1]}" || true
    unset "PINGS[$1]"
    read -r sent got < <(sed -n 's/\([0-9]*\) packets transmitted, \([0-9]*\) received.*/\1 \2/p' "$PLACE/$1")
    LOST=$((sent - got))
    echo "  monitor to $1: $sent echoes, $LOST not answered"
}

trap tidy EXIT
trap 'exit 130' INT TERM
say "two hosts have one policy"
ovsfw db status
say "the truth, with every machine of both hosts"
ovsfw lab matrix
say "the monitor, here, talks to db and to the router, on the other host"
ping_from_here db "$DATABASE"
ping_from_here router "$ROUTER"
say "the rule goes by which it may ask db"
ovsfw db rule del "$RULE" --wait=hosts
sleep 2 # of echoes, for which the verdict is no
finish db
[ "$LOST" -ge 20 ] || die "it should have been cut"
finish router
[ "$LOST" -le 1 ] || die "it should have lost nothing" # the last may be on its way
say "the truth without the rule"
ovsfw db export > "$PLACE/policy.yaml"
ovsfw lab matrix --policy "$PLACE/policy.yaml" | tail -n 1
say "the rule is put back"
ovsfw db import ovsfw/lab/three-tier.yaml --wait=hosts
say "the truth"
ovsfw lab matrix | tail -n 1
