#!/usr/bin/env bash
# A real Neutron: server, database, queue, and two hosts with agents that filter with ovsfw; every case is tried with packets.
# Installs Neutron into .build/neutron (2 GB of memory and some 15 minutes the first time).

set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../../scripts/test-neutron" real
