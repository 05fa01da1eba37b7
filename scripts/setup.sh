# shellcheck shell=bash
# Sourced by demo and test, in the directory of the repository: what a fresh Debian or Ubuntu lacks, and a virtual
# environment in .build/venv.  Needs nothing but root and Python.

PYTHON=${PYTHON:-python3}
BUILD=.build
VENV=${OVSFW_VENV:-$BUILD/venv}
POLICY_RC_D=/usr/sbin/policy-rc.d
# Commands are started thousands of times: each would compile all its modules anew.
unset PYTHONDONTWRITEBYTECODE
# Programs or files that are wanted too, each in a package of its name, or WHAT=PACKAGE.
TOOLS=()

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "network namespaces and Open vSwitch need root: run 'sudo $0'"
}

need_python() {
    mkdir -p "$BUILD"
    command -v "$PYTHON" > /dev/null || die "$PYTHON not found: install Python 3.10 or newer, or name one: PYTHON=... $0"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "$PYTHON is too old: Python 3.10 is needed"
}

# The Debian packages that this machine lacks, one a line.
missing_packages() {
    command -v ovs-vswitchd > /dev/null && command -v ovs-vsctl > /dev/null || echo openvswitch-switch
    command -v ip > /dev/null || echo iproute2
    command -v ethtool > /dev/null || echo ethtool
    "$PYTHON" -c 'import ensurepip, venv' 2> /dev/null || echo python3-venv
    local tool
    for tool in "${TOOLS[@]}"; do
        command -v "${tool%%=*}" > /dev/null || [ -e "${tool%%=*}" ] || echo "${tool#*=}"
    done
}

# offered PACKAGE: does this distribution have it?
offered() {
    apt-cache show "$1" > /dev/null 2>&1
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get > /dev/null || die "please install: ${missing[*]}"
    echo "installing ${missing[*]} ..."
    keep_services_down
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get -qq update && apt-get -qq install -y --no-install-recommends "${missing[@]}"
    } > "$BUILD/apt.log" 2>&1 || {
        tail -n 20 "$BUILD/apt.log" >&2
        die "apt-get could not install ${missing[*]} (all of it: $BUILD/apt.log)"
    }
    let_services_start
}

# Where this machine's Debian packages come from.
debian_sources() {
    local file=/etc/apt/sources.list.d/debian.sources
    [ -s "$file" ] || file=/etc/apt/sources.list
    echo "$file"
}

# make_debian SUITE TARGET [OPTION...]: a new Debian, by mmdebstrap.  What this machine's apt needs to reach its packages (a
# proxy, perhaps), the new one has, too.
make_debian() {
    local suite=$1 target=$2 options
    shift 2
    mapfile -t options < <(apt-config dump | grep -E '^Acquire::(Check-Valid-Until|Check-Date|[a-z]+::[Pp]roxy)' | grep -v '""')
    # In a mount namespace of its own: whoever looks into the directory meanwhile must not keep /proc mounted there.
    unshare --mount mmdebstrap --quiet --aptopt='APT::Install-Recommends "false"' "${options[@]/#/--aptopt=}" "$@" \
        "$suite" "$target" "$(debian_sources)"
}

# The release of this machine's Debian.
debian_suite() {
    (. /etc/os-release && echo "$VERSION_CODENAME")
}

# We bring our own switch: installing Open vSwitch must not start one on the machine (invoke-rc.d(8)).
keep_services_down() {
    [ -e "$POLICY_RC_D" ] && return
    trap let_services_start EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\n# made by %s\nexit 101\n' "$PWD" > "$POLICY_RC_D"
    chmod 755 "$POLICY_RC_D"
}

let_services_start() {
    if grep -qsF "# made by $PWD" "$POLICY_RC_D"; then
        rm -f "$POLICY_RC_D"
    fi
    trap - EXIT INT TERM HUP
}

# ovsfw, editable; re-used until pyproject.toml, Python or the place changes.
make_venv() {
    is_installed ovsfw && return
    echo "installing ovsfw into $VENV ..."
    "$PYTHON" -m venv --clear "$VENV" || die "cannot make a virtual environment in $VENV"
    pip_install --editable .
    what_we_have > "$VENV/has-ovsfw"
}

# add_to_venv NAME REQUIREMENT...: more packages, under a name to remember them by.
add_to_venv() {
    local name=$1
    shift
    is_installed "$name" && return
    echo "installing what $name needs into $VENV ..."
    pip_install "$@"
    what_we_have > "$VENV/has-$name"
}

is_installed() {
    [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/has-$1" 2> /dev/null)" = "$(what_we_have)" ]
}

what_we_have() {
    pwd
    "$PYTHON" -c 'import sys; print(sys.version, sys.prefix)'
    cat pyproject.toml
}

pip_install() {
    "$VENV/bin/pip" install --disable-pip-version-check "$@" > "$BUILD/pip.log" 2>&1 || {
        tail -n 20 "$BUILD/pip.log" >&2
        die "pip could not install $* (does this machine reach a package index?)"
    }
}

# The requirements of a dependency group, one a line; `pip install --group` is too new for Debian's pip.
dependency_group() {
    "$PYTHON" - "$1" << 'PYTHON_END'
import re
import sys

try:
    import tomllib
    with open("pyproject.toml", "rb") as file:
        group = tomllib.load(file)["dependency-groups"][sys.argv[1]]
except ImportError:  # Python 3.10
    with open("pyproject.toml") as file:
        section = file.read().split("[dependency-groups]")[1]
    body = re.search(rf"^{sys.argv[1]} = \[\n(.*?)^\]", section, re.MULTILINE | re.DOTALL).group(1)
    group = re.findall(r'^ *"([^"]+)"', body, re.MULTILINE)
print("\n".join(group))
PYTHON_END
}

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # where the switch is, in case root has a user's path
