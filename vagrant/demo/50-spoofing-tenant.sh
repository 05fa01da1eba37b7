#!/usr/bin/env bash
# A tenant forges frames from inside its machine: addresses of others, ARP, neighbour discovery, VLAN tags, DHCP.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

say "the shop, and the daemon that guards it"
lab_up
start_daemon
say "the tenant tries everything; each attempt must be stopped"
lab selftest
say "and everybody else can still do what they may"
lab matrix
