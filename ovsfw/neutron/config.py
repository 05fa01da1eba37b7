"""The section `[ovsfw]` of Neutron's server configuration (ml2_conf.ini or neutron.conf)."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from ovsfw.errors import ConfigError
from ovsfw.store.client import WHERE, Remote, Tls

GROUP = "ovsfw"

OPTIONS = (
    cfg.StrOpt("connection", help=f"The policy database: {WHERE}. Without it, nothing is published."),
    cfg.StrOpt("private_key", help="The private key of this server, for connections with ssl:."),
    cfg.StrOpt("certificate", help="The certificate of this server, for connections with ssl:."),
    cfg.StrOpt("ca_cert", help="The certificate of who has signed that of the policy database."),
    cfg.FloatOpt(
        "retry_interval",
        default=5.0,
        min=0.1,
        help="The longest pause between two tries to reach the policy database, in seconds.",
    ),
    cfg.FloatOpt(
        "repair_interval",
        default=60.0,
        min=0.0,
        help="How often the policy database is compared with Neutron's, and differences are mended, in seconds. All "
        "servers share this work. 0 is never; ovsfw-neutron-sync does the same by hand.",
    ),
    cfg.BoolOpt(
        "wait_for_flows",
        default=True,
        help="A port becomes ACTIVE only when its flows are there, on hosts that take their policy from the policy "
        "database (ovsfw run). Where the agent filters, it says so itself.",
    ),
)


def list_opts() -> list[tuple[str, tuple[Any, ...]]]:
    """For oslo-config-generator."""
    return [(GROUP, OPTIONS)]


def register(conf: Any = cfg.CONF) -> Any:  # noqa: ANN401 - oslo.config has no types
    """Make the options known; the section."""
    conf.register_opts(OPTIONS, GROUP)
    return conf[GROUP]


def remote_of(section: Any) -> Remote | None:  # noqa: ANN401
    """The policy database that is configured.  Raises ConfigError."""
    if not section.connection:
        return None
    files = section.private_key, section.certificate, section.ca_cert
    if not all(files) and "ssl:" in section.connection:
        raise ConfigError(f"[ovsfw] connection = {section.connection} needs private_key, certificate and ca_cert")
    return Remote.parse(section.connection, Tls(*files) if all(files) else None)
