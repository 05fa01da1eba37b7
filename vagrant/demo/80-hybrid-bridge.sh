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

# What the agent of before has left in iptables: answers, and who may ask.  Nobody has told it of the monitor.
filter_by_iptables() {
    in_space switch sh -ec '
        for table in iptables ip6tables; do
            echo 1 > "/proc/sys/net/bridge/bridge-nf-call-$table"
            "$table-restore" < "$1.$table"
        done
    ' sh "$STREAMS/rules"
}

write_rules() {
    local to='-A FORWARD -m physdev --physdev-is-bridged --physdev-out'
    cat > "$STREAMS/rules.iptables" << END
*filter
$to tapapp -m conntrack --ctstate ESTABLISHED -j ACCEPT
$to tapapp -p tcp --dport 9000 -m iprange --src-range 10.9.0.21-10.9.0.22 -j ACCEPT
$to tapapp -p tcp --dport 22 -s 10.9.0.51 -j ACCEPT
$to tapapp -j DROP
$to tapdb -m conntrack --ctstate ESTABLISHED -j ACCEPT
$to tapdb -p tcp --dport 5432 -s 10.9.0.31 -j ACCEPT
$to tapdb -p tcp --dport 22 -s 10.9.0.51 -j ACCEPT
$to tapdb -j DROP
COMMIT
END
    cat > "$STREAMS/rules.ip6tables" << END
*filter
$to tapapp -p ipv6-icmp --icmpv6-type neighbour-solicitation -j ACCEPT
$to tapapp -p ipv6-icmp --icmpv6-type neighbour-advertisement -j ACCEPT
$to tapapp -m conntrack --ctstate ESTABLISHED -j ACCEPT
$to tapapp -j DROP
COMMIT
END
    sed 's/tapapp/tapdb/; /filter/d' "$STREAMS/rules.ip6tables" > "$STREAMS/more"
    sed -i "/COMMIT/{r $STREAMS/more
d}" "$STREAMS/rules.ip6tables"
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
write_rules
filter_by_iptables
lab exec switch ovs-ofctl add-flow br-int priority=0,actions=NORMAL
serve app 10.9.0.31 9000
serve db 10.9.0.41 5432
begin web1-to-app web1 10.9.0.21 10.9.0.31 9000
begin app-to-db app 10.9.0.31 10.9.0.41 5432
! reaches web1 10.9.0.41 > /dev/null || die "web1 must not reach db, and does"
migrate plan --policy "$POLICY"
say "ovsfw takes over: both filter now, and nobody keeps iptables up to date any more"
start_daemon
migrate plan --policy "$POLICY" | grep -A 1 hybrid
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
