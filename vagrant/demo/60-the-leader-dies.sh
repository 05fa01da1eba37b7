#!/usr/bin/env bash
# The leader of a policy database of three is killed while the policy changes and packets flow.

set -euo pipefail
# shellcheck source=vagrant/demo/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

lab cluster
