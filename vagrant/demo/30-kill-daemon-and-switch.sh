#!/usr/bin/env bash
# The daemon is killed: the filter stays as it was.  Open vSwitch is killed: nothing new passes; when it is back, all is as
# before.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

say "the shop, and the daemon that guards it"
lab_up
start_daemon
reaches monitor 10.9.0.41 > /dev/null || die "the monitor may ping db, and cannot"
say "kill -9 of the daemon: nobody is there, and the filter holds"
kill_daemon
verify
say "a daemon starts: what it would change first"
ovsfw diff --policy "$POLICY" --db "$DB"
start_daemon
say "kill -9 of ovs-vswitchd: nobody is let in"
kill -9 "$(cat "$PLACE/ovs-vswitchd.pid")"
! reaches monitor 10.9.0.31 > /dev/null || die "a new connection got through without a switch"
echo "  the monitor, who may ping everybody, gets no answer from app"
say "Open vSwitch is started again; the daemon puts everything back"
in_space switch ovs-vswitchd "$DB" --pidfile --log-file -vconsole:off --detach
until_true 120 "the flows are back" verify
until_true 120 "the daemon is in sync" is_well
reaches monitor 10.9.0.31 > /dev/null || die "the monitor may ping app, and still cannot"
say "the truth"
lab matrix
