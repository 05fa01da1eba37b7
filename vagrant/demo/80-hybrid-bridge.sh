#!/usr/bin/env bash
# Out of the hybrid bridge, as Neutron's iptables_hybrid has it: app and db are behind a Linux bridge each, where iptables
# filter.  ovsfw takes over and moves both into the switch, back, and out again; the connections that live lose nothing.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=vagrant/demo/streams.sh
. vagrant/demo/streams.sh

# behind_a_hybrid_bridge NAME: its tap into a Linux bridge of its own, from which a veth pair leads to br-int (nova's os-vif)
behind_a_hybrid_bridge() {
    # shellcheck disable=SC2016 # the shell in there expands it
    in_space switch sh -ec '
        ovs-vsctl del-port "$1"
        ip link set "$1" down
        ip link set "$1" name "tap$1" up
        ip link add "qbr$1" type bridge
        ip link add "qvb$1" type veth peer name "qvo$1"
        ip link set "tap$1" master "qbr$1"
        ip link set "qvb$1" master "qbr$1"
        for device in qbr qvb qvo; do ip link set "$device$1" up; done
        ovs-vsctl add-port br-int "qvo$1" -- set interface "qvo$1" "external_ids:iface-id=$1"
    ' sh "$1"
}

# guard PROGRAM NAME RULE...: what the agent of before has left in iptables: answers get in, and what the rules say.
guard() {
    local program=$1 tap=tap$2 rule
    shift 2
    for rule in "-m conntrack --ctstate ESTABLISHED -j ACCEPT" "$@" "-j DROP"; do
        # shellcheck disable=SC2086 # a rule is several words
        in_space switch "$program" -A FORWARD -m physdev --physdev-is-bridged --physdev-out "$tap" $rule
    done
}

# Where the network devices of the host are.
migrate() {
    lab exec switch ovsfw migrate "$@"
}

command -v iptables > /dev/null || die "this needs iptables"
say "the shop; app and db as iptables_hybrid plugs them, and a switch that only forwards"
lab_up
behind_a_hybrid_bridge app
behind_a_hybrid_bridge db
guard iptables app "-p tcp --dport 9000 -s 10.9.0.21,10.9.0.22 -j ACCEPT" "-p tcp --dport 22 -s 10.9.0.51 -j ACCEPT"
guard iptables db "-p tcp --dport 5432 -s 10.9.0.31 -j ACCEPT" "-p tcp --dport 22 -s 10.9.0.51 -j ACCEPT"
for name in app db; do
    guard ip6tables $name "-p ipv6-icmp --icmpv6-type 135 -j ACCEPT" "-p ipv6-icmp --icmpv6-type 136 -j ACCEPT"
done
in_space switch tee /proc/sys/net/bridge/bridge-nf-call-{iptables,ip6tables} <<< 1 > /dev/null
lab exec switch ovs-ofctl add-flow br-int priority=0,actions=NORMAL
serve app 10.9.0.31 9000
serve db 10.9.0.41 5432
begin web1-to-app web1 10.9.0.21 10.9.0.31 9000
begin app-to-db app 10.9.0.31 10.9.0.41 5432
! reaches web1 10.9.0.41 > /dev/null || die "web1 must not reach db, and does"
migrate plan --policy "$POLICY"
say "ovsfw takes over: both filter now, and iptables do not hear of the monitor, which comes later"
start_daemon
migrate plan --policy "$POLICY" | grep -A 1 ': hybrid'
! reaches monitor 10.9.0.31 > /dev/null || die "iptables should keep the monitor from app"
echo "  the monitor may ping app, and cannot"
say "out of their bridges, into the switch"
migrate run
reaches monitor 10.9.0.31 > /dev/null || die "the monitor may ping app, and still cannot"
echo "  the monitor may ping app, and can"
say "back, and out again: nothing is lost on the way"
migrate back
! reaches monitor 10.9.0.31 > /dev/null || die "iptables should keep the monitor from app"
migrate run
insist_whole web1-to-app
insist_whole app-to-db
no_streams
say "the truth"
lab matrix
