#!/usr/bin/env bash
# Somebody deletes every flow of the bridge: the daemon is told by the switch, and puts them back.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

say "the shop, and the daemon that guards it"
lab_up
start_daemon
say "ovs-ofctl del-flows br-int"
lab exec switch ovs-ofctl del-flows br-int
until_true 120 "the flows have come back" verify
say "the truth"
lab matrix
