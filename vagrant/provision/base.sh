#!/usr/bin/env bash
# What a machine needs for the lab: Open vSwitch, Python, and ovsfw in .build/venv, as the command /usr/bin/ovsfw.
# May be run again.  Python packages are those of vagrant/constraints.txt.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=scripts/setup.sh
. scripts/setup.sh

export PIP_CONSTRAINT=$PWD/vagrant/constraints.txt
TOOLS=(ping=iputils-ping iptables)
need_root
need_python
install_packages
make_venv
[ ! -e /usr/bin/ovsfw ] || [ -L /usr/bin/ovsfw ] || die "/usr/bin/ovsfw is there already, of a package: remove that first"
ln -sfn "$(realpath -s "$VENV")/bin/ovsfw" /usr/bin/ovsfw
ovsfw --version
