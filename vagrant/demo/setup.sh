# shellcheck shell=bash
# Sourced by the demos on one machine: ovsfw, and a lab of their own that goes when they end.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
# shellcheck source=vagrant/demo/telling.sh
. vagrant/demo/telling.sh
PATH="${OVSFW_VENV:-$PWD/.build/venv}/bin:$PATH:/usr/sbin:/sbin"
LAB=${OVSFW_LAB:-story}
PLACE=/run/ovsfw-$LAB
DB=unix:$PLACE/db.sock
# A copy, which the stories may change.
POLICY=$PLACE.policy.yaml
# The kernel's datapath, as operators have it, where there is one.
DATAPATH=netdev
! modprobe -q openvswitch 2> /dev/null || DATAPATH=system
DAEMON=

lab() {
    local verb=$1
    shift
    ovsfw lab "$verb" --name "$LAB" "$@"
}

lab_up() {
    cp ovsfw/lab/three-tier.yaml "$POLICY"
    lab up --policy "$POLICY" --datapath "$DATAPATH" > /dev/null
}

is_well() {
    ovsfw status --db "$DB" --rundir "$PLACE"
}

verify() {
    ovsfw verify --policy "$POLICY" --db "$DB"
}

# The lab's switch is in a namespace and its sockets are in the lab's directory.
start_daemon() {
    ovsfw run --policy "$POLICY" --db "$DB" --rundir "$PLACE" --log-level warn &
    DAEMON=$!
    until_true 120 "the daemon is in sync" is_well
}

kill_daemon() {
    kill -9 "$DAEMON"
    wait "$DAEMON" 2> /dev/null || true
    DAEMON=
}

# in_space NAME COMMAND...: in a machine's namespace or the switch's, also where the switch has been killed.
in_space() {
    ip netns exec "ovsfw-$LAB.$1" env OVS_RUNDIR="$PLACE" OVS_LOGDIR="$PLACE" "${@:2}"
}

# reaches SENDER ADDRESS: does an echo request get an answer?
reaches() {
    in_space "$1" ping -n -c 1 -W 2 "$2"
}

tidy() {
    if [ -n "$DAEMON" ]; then
        kill "$DAEMON" 2> /dev/null || true
        wait "$DAEMON" || true
    fi
    lab down > /dev/null
    rm -rf "$POLICY" "$PLACE.streams"
}

trap tidy EXIT
trap 'exit 130' INT TERM
