#!/usr/bin/env bash
# The daemon is killed: the filter stays as it was, and the daemon that comes back has nothing to change.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

say "the shop, and the daemon that guards it"
lab up > /dev/null
start_daemon
say "kill -9: nobody is there, and the filter holds"
kill -9 "$DAEMON"
wait "$DAEMON" || true
DAEMON=
ovsfw verify --policy "$POLICY" --db "unix:$PLACE/db.sock"
say "a daemon starts: what it would change first"
ovsfw diff --policy "$POLICY" --db "unix:$PLACE/db.sock"
start_daemon
say "the truth"
lab matrix
