"""The lab with `mechanism_drivers = ovsfw`: a policy database over TLS, and hosts that are filtered by `ovsfw run`.

A host whose driver is called `daemon` has an agent with `firewall_driver = noop`, and the daemon beside it; hosts with
another driver are as in `lab`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.neutron.lab import SERVER, Host, Lab, run, until

DAEMON = "daemon"
HOSTS_PORT, SERVERS_PORT = 6641, 6642
# The trunk plugin refuses to start without the mechanism driver `openvswitch`.
_POLICY_CONF = """
[DEFAULT]
service_plugins = log,qos
[ml2]
mechanism_drivers = ovsfw
[ovsfw]
connection = ssl:127.0.0.1:{port}
private_key = {keys}/neutron.key
certificate = {keys}/neutron.crt
ca_cert = {keys}/ca.crt
retry_interval = 1
repair_interval = {repair}
"""
_NOOP_CONF = """
[securitygroup]
firewall_driver = noop
[agent]
extensions = ovsfw
"""


class PolicyLab(Lab):
    """Its state is the processes, as with any lab."""

    def __init__(self, directory: Path, drivers: tuple[str, ...], repair: float = 60.0) -> None:
        """`repair` is the time between two comparisons of the databases, in seconds."""
        super().__init__(directory, drivers)
        self.keys = self.directory / "keys"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._repair = repair

    @property
    def tls(self) -> tuple[str, ...]:
        """Options of `ovsfw` for the server's key."""
        return self._tls_of("neutron")

    @property
    def policy(self) -> str:
        """The address of the policy database, for who may write it."""
        return f"ssl:127.0.0.1:{SERVERS_PORT}"

    def start(self) -> None:
        """Everything; the policy database has to listen before the server starts."""
        self.keys.mkdir(parents=True)
        self._make_keys("db", "neutron", *(host.name for host in self.hosts))
        super().start()
        for host in self.hosts:
            if host.driver == DAEMON:
                self.start_daemon(host)

    def ovsfw(self, *words: str, check: bool = True) -> str:
        """What a command of ovsfw prints."""
        return run(sys.executable, "-m", "ovsfw", *words, check=check)

    # --- The policy database ------------------------------------------------------------------------------------------

    def start_policy(self) -> None:
        """Start its server."""
        listen = ("--hosts", f"pssl:{HOSTS_PORT}:{SERVER}", "--listen", f"pssl:{SERVERS_PORT}:127.0.0.1")
        self.ovsfw("db", "start", "--directory", str(self.directory / "policy"), *listen, *self._tls_of("db"))
        until(lambda: self._listens(SERVERS_PORT), "the policy database")

    def stop_policy(self) -> None:
        """End it; what it has stays."""
        self.ovsfw("db", "stop", "--directory", str(self.directory / "policy"))

    def _make_keys(self, *names: str) -> None:
        """As docs/operations.md says."""

        def openssl(*words: str) -> None:
            subprocess.run(["openssl", *words], cwd=self.keys, check=True, capture_output=True)

        key = ("req", "-newkey", "rsa:2048", "-nodes")
        openssl(*key, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
        for name in names:
            openssl(*key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
            signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.crt")
            openssl("x509", "-req", "-days", "2", "-in", f"{name}.csr", *signed)

    def _tls_of(self, name: str) -> tuple[str, ...]:
        files = {"--private-key": f"{name}.key", "--certificate": f"{name}.crt", "--ca-cert": "ca.crt"}
        return tuple(word for option, file in files.items() for word in (option, str(self.keys / file)))

    # --- What differs -------------------------------------------------------------------------------------------------

    def _configure(self, mysql: Path) -> None:
        super()._configure(mysql)
        with (self.directory / "conf/neutron.conf").open("a") as file:
            file.write(_POLICY_CONF.format(port=SERVERS_PORT, keys=self.keys, repair=self._repair))
        self.start_policy()

    def _host(self, host: Host) -> None:
        super()._host(host)
        if host.driver == DAEMON:
            with (host.directory / "agent.conf").open("a") as file:
                file.write(_NOOP_CONF)

    # --- Daemons ------------------------------------------------------------------------------------------------------

    def start_daemon(self, host: Host) -> None:
        """Start `ovsfw run` on a host."""
        source = ("--policy", f"ssl:{SERVER}:{HOSTS_PORT}", "--host", host.name, *self._tls_of(host.name))
        command = (sys.executable, "-m", "ovsfw", "run", *source, "--hook", "neutron", "--log-level", "debug")
        inside = ("ip", "netns", "exec", host.netns)
        self.daemons[host.name] = self.spawn(f"{host.name}-ovsfw", *inside, *command, env=host.environment)

    def kill_daemon(self, host: Host) -> None:
        """End it; it has no say."""
        daemon = self.daemons.pop(host.name)
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
