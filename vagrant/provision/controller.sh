#!/usr/bin/env bash
# The policy database, and in it the policy of a shop in three tiers.  May be run again: then the policy is that once more.
#
#   controller.sh ADDRESS    hosts come to port 6641 there, those who change the policy to 6642

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
address=$1

vagrant/provision/base.sh
ovsfw db start --hosts "ptcp:6641:$address" --listen "ptcp:6642:$address"
ovsfw db import ovsfw/lab/three-tier.yaml
