"""A real Neutron in a sandbox: RabbitMQ, MariaDB, the API, the RPC server, and hosts with an agent each.

The whole of it lives in mount, network and process namespaces of its own (see `scripts/test-neutron`), so that nothing
of the machine is touched and its end takes everything with it.  A host is a network namespace with an Open vSwitch of
its own; a VM is a network namespace plugged in by a veth pair.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

API = "http://127.0.0.1:9696"
SERVER, PROJECT = "10.199.0.1", "fake_project_id"
START_TIMEOUT = 120.0
BIN = Path(sys.executable).parent
Json = dict[str, Any]


class LabError(Exception):
    """Something did not start, or did not happen in time."""


def until(ready: Callable[[], object], what: str, seconds: float = START_TIMEOUT) -> float:
    """Poll; how long it took in seconds.  Raises LabError."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > seconds:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - began


def run(*command: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """What a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=300)
    if check and done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def succeeds(*command: str) -> bool:
    """Whether a command ends well."""
    return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode == 0


def api(method: str, path: str, body: Json | None = None) -> Any:
    """One call of the Neutron API.  Raises LabError."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "X-Project-Id": PROJECT}
    request = urllib.request.Request(f"{API}/v2.0/{path}", data, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=180) as answer:  # noqa: S310
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise LabError(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from None
    return json.loads(text) if text else None


def create(kind: str, **values: Any) -> Json:
    """An object of the API: `create("security-group", name="web")`."""
    key = kind.rpartition("/")[2].replace("-", "_")
    plural = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    found: Json = api("POST", plural, {key: {"project_id": PROJECT, **values}})[key]
    return found


@dataclass
class Host:
    """A hypervisor; `driver` is its firewall driver."""

    name: str
    number: int
    driver: str
    directory: Path
    agent: subprocess.Popen[bytes] | None = None

    @property
    def netns(self) -> str:
        """Its network namespace."""
        return self.name

    @property
    def decisions(self) -> Path:
        """Where its agent logs what the logging API asks for."""
        return self.directory / "decisions.log"

    @property
    def tunnel(self) -> str:
        """The address of its tunnels."""
        return f"10.198.0.{10 + self.number}"

    @property
    def environment(self) -> dict[str, str]:
        """Where the tools of Open vSwitch find its switch."""
        rundir = str(self.directory)
        return {**os.environ, **dict.fromkeys(("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"), rundir)}

    def ovs(self, *command: str) -> str:
        """A tool of Open vSwitch, on this host."""
        return run(*command, env=self.environment)


@dataclass
class Vm:
    """A machine with one port."""

    name: str
    host: Host
    port: Json
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return str(self.port["fixed_ips"][0]["ip_address"])

    def execute(self, *command: str) -> bool:
        """Whether a command in it ends well."""
        return succeeds("ip", "netns", "exec", self.name, *command)


class Lab:
    """All of it; its state is the processes."""

    def __init__(self, directory: Path, drivers: tuple[str, ...], *, distributed: bool = False) -> None:
        """`distributed`: agents also have l2population, distributed routing and explicitly_egress_direct."""
        self._distributed = distributed
        self.directory = directory.resolve()
        self.logs = self.directory / "log"
        self.hosts = [
            Host(f"host{n}-{driver}", n, driver, self.directory / f"host{n}") for n, driver in enumerate(drivers, 1)
        ]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Everything; returns when all agents have reported."""
        for name in ("log", "state/lock", "rabbitmq/mnesia", "conf"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        run("ip", "link", "set", "lo", "up")
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        self._networks()
        self.start_queue(wait=False)
        self._database()
        until(lambda: self._listens(5672), "RabbitMQ")
        self.start_server()
        for host in self.hosts:
            self._host(host)
        for host in self.hosts:
            self.start_agent(host)
        for host in self.hosts:
            until(partial(self._is_alive, host.name), f"the agent on {host.name}")

    def spawn(self, name: str, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A process that goes on; what it says goes to a log of its name."""
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONWARNINGS": "ignore", **(env or {})},
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    # --- The server ---------------------------------------------------------------------------------------------------

    def _networks(self) -> None:
        """The server's address is on a bridge; hosts reach it, and one another, by it."""
        run("ip", "link", "add", "control", "type", "bridge", "mcast_snooping", "0")
        run("ip", "addr", "add", f"{SERVER}/24", "dev", "control")
        run("ip", "link", "set", "control", "mtu", "1600", "up")
        for host in self.hosts:
            run("ip", "netns", "add", host.netns)
            run("ip", "link", "add", f"c{host.number}", "type", "veth", "peer", "name", "eth0", "netns", host.netns)
            run("ip", "link", "set", f"c{host.number}", "master", "control", "mtu", "1600", "up")
            run("ip", "-n", host.netns, "addr", "add", f"10.199.0.{10 + host.number}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                run("ip", "-n", host.netns, "link", "set", link, "up")
            run("ip", "-n", host.netns, "link", "set", "eth0", "mtu", "1600")
            run("ip", "link", "add", f"d{host.number}", "type", "veth", "peer", "name", "phy", "netns", host.netns)
            run("ip", "link", "set", f"d{host.number}", "master", "control", "mtu", "1600", "up")
            run("ip", "-n", host.netns, "link", "set", "phy", "mtu", "1600", "up")
            run("ip", "netns", "exec", host.netns, "ethtool", "-K", "phy", "tx", "off", "rx", "off", check=False)

    def kill(self, *names: str) -> None:
        """End processes with all that they have started; they have no say."""
        for name in names:
            process = self._processes.pop(name)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start_queue(self, *, wait: bool = True) -> None:
        """Start the message queue; with `wait` it listens when this returns."""
        home = self.directory / "rabbitmq"
        (home / "enabled_plugins").write_text("[].\n")
        (home / "env.conf").touch()
        (home / "rabbitmq.conf").write_text(
            "listeners.tcp.any = 0.0.0.0:5672\nloopback_users = none\ndisk_free_limit.absolute = 50MB\n"
        )
        found = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin")
        if found is None:
            raise LabError("rabbitmq-server is not installed")
        environment = {
            "HOME": str(home),
            "RABBITMQ_NODENAME": "ovsfw@localhost",
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        self.spawn("rabbitmq", found, env=environment)
        if wait:
            until(lambda: self._listens(5672), "RabbitMQ")

    def _database(self) -> None:
        home = self.directory / "mysql"
        home.mkdir(exist_ok=True)
        run(
            "mariadb-install-db", "--no-defaults", f"--datadir={home}/data", "--user=root",
            "--auth-root-authentication-method=normal", "--skip-test-db",
        )  # fmt: skip
        self.spawn(
            "mysql", "mariadbd", "--no-defaults", "--user=root", f"--datadir={home}/data", f"--socket={home}/sock",
            f"--pid-file={home}/pid", "--skip-networking", "--character-set-server=utf8mb3",
            "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        client = ("mariadb", "--no-defaults", "-u", "root", "-S", f"{home}/sock")
        until(lambda: succeeds(*client, "-e", "select 1"), "MariaDB")
        run(*client, "-e", "create database neutron character set utf8mb3")
        self._configure(home)
        run(
            str(BIN / "neutron-db-manage"),
            "--config-file",
            str(self.directory / "conf/neutron.conf"),
            "upgrade",
            "heads",
        )

    def _configure(self, mysql: Path) -> None:
        conf, state = self.directory / "conf", self.directory / "state"
        paste = BIN.parent / "etc/neutron/api-paste.ini"
        shutil.copy(paste, conf / "api-paste.ini")
        (conf / "neutron.conf").write_text(
            _SERVER_CONF.format(
                state=state,
                transport=_transport("127.0.0.1"),
                database=f"mysql+pymysql://root@localhost/neutron?unix_socket={mysql}/sock&charset=utf8mb3",
            )
        )
        if self._distributed:
            with (conf / "neutron.conf").open("a") as file:
                file.write(_DISTRIBUTED_SERVER)
        (conf / "uwsgi.ini").write_text(_UWSGI_CONF)

    def start_server(self) -> None:
        """Start the API and the RPC server; the API answers when this returns."""
        conf = self.directory / "conf"
        environment = {"OS_NEUTRON_CONFIG_DIR": str(conf), "OS_NEUTRON_CONFIG_FILES": str(conf / "neutron.conf")}
        uwsgi = (str(BIN / "uwsgi"), "--ini", str(conf / "uwsgi.ini"), "--virtualenv", str(BIN.parent))
        self.spawn("neutron-api", *uwsgi, env=environment)
        self.spawn("neutron-rpc", str(BIN / "neutron-rpc-server"), "--config-file", str(conf / "neutron.conf"))
        until(self._answers, "the Neutron API")

    def _answers(self) -> bool:
        try:
            api("GET", "networks")
        except (LabError, OSError):
            return False
        return True

    def _listens(self, port: int) -> bool:
        return f":{port:04X} " in Path("/proc/net/tcp").read_text()

    # --- Hosts --------------------------------------------------------------------------------------------------------

    def _host(self, host: Host) -> None:
        directory = host.directory
        (directory / "state/lock").mkdir(parents=True)
        database = str(directory / "conf.db")
        run("ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema")
        inside = ("ip", "netns", "exec", host.netns)
        remotes = (f"--remote=punix:{directory}/db.sock", "--remote=ptcp:6640:127.0.0.1")
        common = ("--pidfile", "-vconsole:off", "--log-file")
        self.spawn(f"{host.name}-ovsdb", *inside, "ovsdb-server", database, *remotes, *common, env=host.environment)
        until((directory / "db.sock").exists, "ovsdb-server")
        host.ovs("ovs-vsctl", "--no-wait", "init")
        self.spawn(
            f"{host.name}-vswitchd", *inside, "ovs-vswitchd", f"unix:{directory}/db.sock", *common, env=host.environment
        )
        self._underlay(host)
        # Where the agent, as root, must not ask for passwords.
        helper = f"{BIN}/privsep-helper --config-file {directory}/agent.conf"
        sections = ("", "_ovs_vsctl", "_namespace", "_conntrack", "_link", "_dhcp_release")
        (directory / "agent.conf").write_text(
            _AGENT_CONF.format(
                host=host.name,
                transport=_transport(SERVER),
                state=directory / "state",
                driver=host.driver,
                address=host.tunnel,
                extensions="ovsfw_log,qos,ovsfw_local_ip" if host.driver == "ovsfw" else "log,qos,local_ip",
                decisions=host.decisions,
            )
            + (_DISTRIBUTED_AGENT if self._distributed else "")
            + "".join(f"[privsep{section}]\nhelper_command = {helper}\n" for section in sections)
        )

    def _underlay(self, host: Host) -> None:
        """The userspace datapath finds the other ends of tunnels by addresses of its own bridges alone."""
        bridge = ("--may-exist", "add-br", "br-phys", "--", "set", "bridge", "br-phys", "datapath_type=netdev")
        host.ovs("ovs-vsctl", *bridge, "--", "add-port", "br-phys", "phy")
        inside = ("ip", "-n", host.netns)
        until(lambda: succeeds(*inside, "link", "show", "br-phys"), "br-phys")
        run(*inside, "addr", "add", f"{host.tunnel}/24", "dev", "br-phys")
        run(*inside, "link", "set", "br-phys", "mtu", "1600", "up")

    def start_agent(self, host: Host) -> None:
        """Start the L2 agent of a host."""
        agent = (str(BIN / "neutron-openvswitch-agent"), "--config-file", str(host.directory / "agent.conf"))
        environment = {**host.environment, "PATH": f"{BIN}:{os.environ['PATH']}"}
        host.agent = self.spawn(f"{host.name}-agent", "ip", "netns", "exec", host.netns, *agent, env=environment)

    def kill_agent(self, host: Host) -> None:
        """End it with all that it has started; it has no say."""
        assert host.agent is not None
        os.killpg(host.agent.pid, signal.SIGKILL)
        host.agent.wait()

    def log(self, name: str) -> str:
        """What the processes of a name have said, all their lives long."""
        return (self.logs / f"{name}.log").read_text()

    def agent_log(self, host: Host) -> str:
        """The same of a host's agent."""
        return self.log(f"{host.name}-agent")

    def heard_of(self, host: Host) -> str:
        """When the server has last heard of an agent."""
        (agent,) = api("GET", f"agents?host={host.name}")["agents"]
        return str(agent["heartbeat_timestamp"])

    def _is_alive(self, name: str) -> bool:
        return any(agent["alive"] for agent in api("GET", f"agents?host={name}")["agents"])

    # --- VMs ----------------------------------------------------------------------------------------------------------

    def boot(self, host: Host, name: str, network: Json, groups: list[str], **more: Any) -> Vm:
        """A VM, plugged in and active."""
        values = {"network_id": network["id"], "security_groups": groups, "device_owner": "compute:nova", **more}
        if not more.get("port_security_enabled", True):
            del values["security_groups"]
        values["device_id"] = name
        port = create("port", **values, **{"binding:host_id": host.name})
        machine = Vm(name, host, port)
        self._plug(machine, network["mtu"])
        until(lambda: api("GET", f"ports/{port['id']}")["port"]["status"] == "ACTIVE", f"{name} active", 60)
        return machine

    def _plug(self, machine: Vm, mtu: int) -> None:
        port, host = machine.port, machine.host
        tap = f"tap{port['id'][:11]}"
        run("ip", "netns", "add", machine.name)
        run("ip", "-n", machine.name, "link", "set", "lo", "up")
        run("ip", "-n", host.netns, "link", "add", tap, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
        inside = ("ip", "-n", machine.name)
        run(*inside, "link", "set", "eth0", "address", port["mac_address"], "mtu", str(mtu), "up")
        run("ip", "netns", "exec", machine.name, "ethtool", "-K", "eth0", "tx", "off", check=False)
        run(*inside, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        run("ip", "-n", host.netns, "link", "set", tap, "up")
        ids = {"iface-id": port["id"], "iface-status": "active", "attached-mac": port["mac_address"]}
        settings = [f"external_ids:{key}={json.dumps(value)}" for key, value in ids.items()]
        host.ovs("ovs-vsctl", "add-port", "br-int", tap, "--", "set", "interface", tap, *settings)


def _transport(address: str) -> str:
    return f"rabbit://guest:guest@{address}:5672/"


_SERVER_CONF = """
[DEFAULT]
core_plugin = ml2
service_plugins = log,qos,trunk,local_ip
auth_strategy = noauth
transport_url = {transport}
state_path = {state}
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
rpc_workers = 1
rpc_state_report_workers = 0
agent_down_time = 20
[database]
connection = {database}
[oslo_concurrency]
lock_path = {state}/lock
[quotas]
default_quota = -1
quota_network = -1
quota_subnet = -1
quota_port = -1
quota_security_group = -1
quota_security_group_rule = -1
quota_address_group = -1
[ml2]
type_drivers = vxlan
# Its old name, which every release understands.
tenant_network_types = vxlan
mechanism_drivers = openvswitch
extension_drivers = port_security,qos
[ml2_type_vxlan]
vni_ranges = 1000:1999
"""
# The routers of the server have no L3 agent, but agents ask for what distributed ones need.
_DISTRIBUTED_SERVER = """
[DEFAULT]
service_plugins = log,qos,trunk,local_ip,router
[ml2]
mechanism_drivers = openvswitch,l2population
"""
_DISTRIBUTED_AGENT = """
[agent]
l2_population = true
arp_responder = true
enable_distributed_routing = true
explicitly_egress_direct = true
"""
_UWSGI_CONF = """
[uwsgi]
module = neutron.wsgi.api:application
http-socket = 127.0.0.1:9696
master = true
processes = 1
threads = 2
enable-threads = true
lazy-apps = true
die-on-term = true
need-app = true
buffer-size = 65535
disable-logging = true
start-time = %t
"""
_AGENT_CONF = """
[DEFAULT]
host = {host}
transport_url = {transport}
state_path = {state}
[agent]
report_interval = 5
polling_interval = 1
tunnel_types = vxlan
extensions = {extensions}
root_helper = env
[ovs]
ovsdb_connection = tcp:127.0.0.1:6640
datapath_type = netdev
local_ip = {address}
of_connect_timeout = 60
of_request_timeout = 60
[oslo_concurrency]
lock_path = {state}/lock
[securitygroup]
firewall_driver = {driver}
[network_log]
local_output_log_base = {decisions}
[LOCAL_IP]
# Neutron's own driver wants it so.
static_nat = True
"""
