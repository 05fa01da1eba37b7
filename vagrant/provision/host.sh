#!/usr/bin/env bash
# A host: Open vSwitch with the kernel's datapath, the daemon, and its share of the lab's machines.  May be run again.
#
#   host.sh ADDRESS PEER CONTROLLER MACHINES

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=vagrant/provision/services.sh
. vagrant/provision/services.sh
address=$1 peer=$2 controller=$3 machines=$4

vagrant/provision/base.sh
start_switch
ovsfw lab down
ovsfw lab up --host "$address" --peer "$peer" --machines "$machines"
start_daemon "tcp:$controller:6641"
ovsfw status --rundir "$RUNDIR"
