#!/usr/bin/env bash
# A rule is taken away while connections live: the one that it allowed is cut, the other loses nothing.  It comes back, and
# so does the connection.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=vagrant/demo/streams.sh
. vagrant/demo/streams.sh

# the_rule_is there|gone: writes the policy anew, as editors do, and waits until the switch holds it.
the_rule_is() {
    local pattern='port_range_min: 9000'
    [ "$1" = there ] || sed -i.new "/$pattern/d" "$POLICY"
    [ "$1" = gone ] || cp ovsfw/lab/three-tier.yaml "$POLICY"
    until_true 120 "the switch holds the new policy" verify
}

say "the shop, and the daemon that guards it"
lab_up
start_daemon
say "two connections: web1 asks app at tcp/9000, and lb asks web2 at tcp/8080"
serve app 10.9.0.31 9000
serve web2 10.9.0.22 8080
begin to-app web1 10.9.0.21 10.9.0.31 9000
begin to-web2 lb 10.9.0.11 10.9.0.22 8080
say "the rule goes that lets web in at app"
the_rule_is gone
ovsfw why --policy "$POLICY" --db "$DB" 'web1 -> app tcp/9000' | sed -n '/^policy/,/^switch/p' || true
sleep 2 # of packets, for which the verdict is no
insist_cut to-app
insist_whole to-web2
say "it comes back while a connection waits"
the_rule_is there
begin again web1 10.9.0.21 10.9.0.31 9000
the_rule_is gone
the_rule_is there
insist_whole again
no_streams
say "the truth"
lab matrix
