#!/usr/bin/env bash
# A shop in three tiers: only what its security groups allow gets through, and a rule that is taken away is felt.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

lab demo --datapath "$DATAPATH"
