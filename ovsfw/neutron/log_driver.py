"""Neutron's logging API on a host: `extensions = ovsfw_log` in openvswitch_agent.ini, in the place of `log`.

Neutron's extension always loads the driver that is called `ovs`, which knows only Neutron's own flows; this one loads
ours.  What is called and when: neutron/services/logapi/agent/log_extension.py.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from neutron.services.logapi.agent import log_extension
from neutron_lib.services.logapi import constants
from oslo_config import cfg
from oslo_log import handlers

from ovsfw.neutron.logbook import BOOK

# Lines that wait to be written.
WAITING = 1000


class OvsfwLoggingExtension(log_extension.LoggingExtension):  # type: ignore[misc]
    """Neutron's extension, with our driver."""

    def initialize(self, connection: Any, _driver_type: str) -> None:  # noqa: ANN401 - Neutron has no types
        """Begin."""
        super().initialize(connection, "ovsfw")


class OvsfwLoggingDriver(log_extension.LoggingDriver):  # type: ignore[misc]
    """Hands on to the log book what the server says; the firewall driver does the rest."""

    SUPPORTED_LOGGING_TYPES = (constants.SECURITY_GROUP,)

    def __init__(self, _agent_api: object) -> None:
        """Nothing is logged yet."""
        self._deferred = 0

    def initialize(self, resource_rpc: Any, **_more: object) -> None:  # noqa: ANN401
        """Begin; the firewall driver, which begins later, finds the book in use."""
        self._server = resource_rpc
        BOOK.write = writer(cfg.CONF)
        BOOK.rate, BOOK.burst = cfg.CONF.network_log.rate_limit, cfg.CONF.network_log.burst_limit
        BOOK.is_used = True

    def start_logging(self, context: Any, **asked: Any) -> None:  # noqa: ANN401
        """A port was plugged or changed (`port_id`), or there are log objects, new or changed (`log_resources`)."""
        kind = constants.SECURITY_GROUP
        if "port_id" in asked:
            port = asked["port_id"]
            BOOK.take_port(port, self._server.get_sg_log_info_for_port(context, resource_type=kind, port_id=port))
        elif logs := _ours(asked):
            BOOK.take(self._server.get_sg_log_info_for_log_resources(context, resource_type=kind, log_resources=logs))
        self._changed()

    def stop_logging(self, _context: object, **asked: Any) -> None:  # noqa: ANN401
        """A port is gone (`port_id`), or log objects are (`log_resources`)."""
        if "port_id" in asked:
            BOOK.drop_port(asked["port_id"])
        else:
            BOOK.drop(str(log["id"]) for log in _ours(asked))
        self._changed()

    def defer_apply_on(self) -> None:
        """Several calls follow that are one change."""
        self._deferred += 1

    def defer_apply_off(self) -> None:
        """That was the last of them."""
        self._deferred -= 1
        self._changed()

    def _changed(self) -> None:
        if self._deferred <= 0:
            BOOK.on_change()


def _ours(asked: dict[str, Any]) -> list[Any]:
    return [log for log in asked.get("log_resources", ()) if log["resource_type"] == constants.SECURITY_GROUP]


# --- Where lines go -------------------------------------------------------------------------------------------------


class _Waiting(logging.handlers.QueueHandler):
    """Lines that a thread of their own writes; too many are lost."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


def writer(conf: Any) -> Callable[[str], None]:  # noqa: ANN401
    """What writes a line where `[network_log]` says: into a file, the journal, or syslog."""
    place = _place(conf)
    place.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%Y-%m-%d %H:%M:%S"))
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(WAITING)
    log = logging.getLogger("ovsfw.neutron.decisions")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [_Waiting(waiting)]
    logging.handlers.QueueListener(waiting, place).start()
    return log.info


def _place(conf: Any) -> logging.Handler:  # noqa: ANN401
    if conf.network_log.local_output_log_base:
        return logging.handlers.WatchedFileHandler(conf.network_log.local_output_log_base)
    if conf.use_journal:
        return handlers.OSJournalHandler()  # type: ignore[no-any-return]
    return handlers.OSSysLogHandler()  # type: ignore[no-any-return]
