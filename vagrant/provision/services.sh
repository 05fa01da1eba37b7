# shellcheck shell=bash
# Sourced: starts Open vSwitch and the daemon, as services where there is systemd, else in the background.

RUNDIR=/run/ovsfw
LOG=/var/log/ovsfw.log # where there is no systemd

has_systemd() {
    [ -d /run/systemd/system ]
}

start_switch() {
    if has_systemd; then
        systemctl enable --quiet --now openvswitch-switch
    else
        /usr/share/openvswitch/scripts/ovs-ctl start --system-id="$(hostname)" --no-monitor > /dev/null
    fi
}

what_the_daemon_says() {
    if has_systemd; then journalctl --unit ovsfw --no-pager --lines 20; else tail -n 20 "$LOG"; fi
}

# start_daemon SOURCE: of the policy.  Returns when this host's bridge holds it.
start_daemon() {
    local patience=${OVSFW_PATIENCE:-120} end
    end=$((SECONDS + patience))
    if has_systemd; then
        printf 'OVSFW_POLICY=%s\n' "$1" > /etc/default/ovsfw
        install -D -m 644 share/ovsfw.service /etc/systemd/system/ovsfw.service
        install -D -m 644 packaging/debian/user.conf /etc/systemd/system/ovsfw.service.d/user.conf
        systemctl daemon-reload
        systemctl enable --quiet ovsfw
        systemctl restart --no-block ovsfw
    else
        stop_daemon
        mkdir -p "$RUNDIR"
        setsid ovsfw run --policy "$1" --rundir "$RUNDIR" < /dev/null >> "$LOG" 2>&1 &
    fi
    until ovsfw status --rundir "$RUNDIR" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || {
            ovsfw status --rundir "$RUNDIR" >&2 || true
            what_the_daemon_says >&2
            echo "the daemon is not in sync after $patience seconds" >&2
            return 1
        }
        sleep 0.2
    done
}

stop_daemon() {
    local pid
    pid=$(cat "$RUNDIR/ovsfw.pid" 2> /dev/null) || return 0
    kill "$pid" 2> /dev/null || return 0
    while [ -d "/proc/$pid" ]; do sleep 0.1; done
}
