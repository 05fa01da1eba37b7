#!/usr/bin/env bash
# Somebody deletes every flow of the bridge: the daemon is told by the switch, and puts them back.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

say "the shop, and the daemon that guards it"
lab up > /dev/null
start_daemon
say "ovs-ofctl del-flows br-int"
lab exec switch ovs-ofctl del-flows br-int
end=$((SECONDS + 30))
until ovsfw verify --policy "$POLICY" --db "unix:$PLACE/db.sock" 2> /dev/null; do
    [ "$SECONDS" -lt "$end" ] || die "the flows have not come back"
    sleep 0.1
done
say "the truth"
lab matrix
