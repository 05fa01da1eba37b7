"""The lab with `mechanism_drivers = ovsfw`: a policy database over TLS, and hosts that are filtered by `ovsfw run`.

A host whose driver is called `daemon` has an agent with `firewall_driver = noop`, and the daemon beside it; hosts with
another driver are as in `lab`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.neutron.lab import BIN, SERVER, Host, Lab, LabError, api, run, until

DAEMON = "daemon"
HOSTS_PORT, SERVERS_PORT = 6641, 6642
_POLICY_CONF = """
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
extensions = ovsfw,qos,ovsfw_local_ip
"""


class PolicyLab(Lab):
    """Its state is the processes, as with any lab."""

    def __init__(self, directory: Path, drivers: tuple[str, ...], repair: float = 60.0) -> None:
        """`repair` is the time between two comparisons of the databases, in seconds."""
        super().__init__(directory, drivers)
        self.keys = self.directory / "keys"
        self._repair = repair

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

    def ovsfw(self, *words: str) -> str:
        """What a command of ovsfw prints."""
        return run(sys.executable, "-m", "ovsfw", *words)

    def edit(self, kind: str, verb: str, *words: str) -> None:
        """Change the policy database behind Neutron's back."""
        self.ovsfw("db", kind, verb, *words, "--store", self.policy, *self._tls_of("neutron"))

    def row(self, kind: str, name: str) -> str:
        """An object of the policy database as JSON; empty when it is not there."""
        found = json.loads(
            self.ovsfw("db", "export", "--format", "json", "--store", self.policy, *self._tls_of("neutron"))
        )
        return next((json.dumps(each) for each in found[f"{kind}s"] if each["id"] == name), "")

    def sync(self, what: str) -> tuple[int, str]:
        """How `ovsfw-neutron-sync` ends, and what it prints."""
        command = (str(BIN / "ovsfw-neutron-sync"), what, "--config-file", str(self.directory / "conf/neutron.conf"))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def start_server(self) -> None:
        """Each of its processes answers for the core of the API before it does for all extensions."""
        super().start_server()
        until(lambda: all(self._has_groups() for _ in range(10)), "the API has security groups in all processes")

    def _has_groups(self) -> bool:
        try:
            api("GET", "security-groups?name=none")
        except (LabError, OSError):
            return False
        return True

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
        uwsgi = self.directory / "conf/uwsgi.ini"
        uwsgi.write_text(uwsgi.read_text().replace("processes = 1", "processes = 2"))
        self.start_policy()

    def _host(self, host: Host) -> None:
        super()._host(host)
        if host.driver == DAEMON:
            with (host.directory / "agent.conf").open("a") as file:
                file.write(_NOOP_CONF)

    # --- Daemons ------------------------------------------------------------------------------------------------------

    def start_daemon(self, host: Host) -> None:
        """Start `ovsfw run` on a host."""
        self.spawn(f"{host.name}-ovsfw", *self._daemon(host), env=host.environment)

    def daemon_once(self, host: Host) -> str:
        """What `ovsfw run` says where it must not begin.  Raises LabError when it does."""
        command = self._daemon(host)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=30, env=host.environment
            )
        except subprocess.TimeoutExpired:
            raise LabError("a daemon that must not begin does") from None
        if done.returncode != 1:
            raise LabError(f"ends with {done.returncode}: {done.stderr}")
        return done.stderr

    def _daemon(self, host: Host) -> tuple[str, ...]:
        source = ("--policy", f"ssl:{SERVER}:{HOSTS_PORT}", "--host", host.name, *self._tls_of(host.name))
        command = (sys.executable, "-m", "ovsfw", "run", *source, "--hook", "neutron", "--log-level", "debug")
        return ("ip", "netns", "exec", host.netns, *command)

    @contextmanager
    def changed_agent(self, host: Host, more: str) -> Iterator[None]:
        """For an agent that is started meanwhile: `more` comes last in its configuration."""
        path = host.directory / "agent.conf"
        before = path.read_text()
        path.write_text(before + more)
        try:
            yield
        finally:
            path.write_text(before)

    # --- What is told -------------------------------------------------------------------------------------------------

    def has_extension(self, host: Host, name: str) -> bool:
        """Whether the server has heard of an extension of an agent, which is alive."""
        (agent,) = api("GET", f"agents?host={host.name}")["agents"]
        return agent["alive"] and name in agent["configurations"]["extensions"]

    def comparisons(self) -> int:
        """How often the servers have found a difference by comparing."""
        return self.log("neutron-api").count("database differed") + self.log("neutron-rpc").count("database differed")
