"""What keeps a port of Neutron from becoming ACTIVE before its flows are there: a provisioning block of our own."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from neutron.db import models_v2, provisioning_blocks
from neutron.db.models.provisioning_block import ProvisioningBlock
from neutron.plugins.ml2.models import PortBinding
from neutron_lib import constants, context
from neutron_lib.callbacks import resources
from neutron_lib.db import api

ENTITY = "OVSFW"


def block(asked: Any, port: str) -> None:  # noqa: ANN401 - Neutron has no types
    """Let a port wait; in the transaction of the request `asked`."""
    provisioning_blocks.add_provisioning_component(asked, port, resources.PORT, ENTITY)


def complete(port: str) -> bool:
    """Let it go on; whether it is ACTIVE now, or gone.

    To be done again where it is not: when two complete a port at the same time, each may see the other's block, and
    none is the last, for Neutron deletes the one and looks for others in one transaction.
    """
    admin = context.get_admin_context()
    provisioning_blocks.provisioning_complete(admin, port, resources.PORT, ENTITY)
    with api.CONTEXT_READER.using(admin):
        query = sqlalchemy.select(models_v2.Port.status).where(models_v2.Port.id == port)
        return admin.session.execute(query).scalar() in (None, constants.PORT_STATUS_ACTIVE)


def blocked() -> dict[str, str]:
    """The ports that wait, and the hosts that they are bound to."""
    admin = context.get_admin_context()
    query = sqlalchemy.select(models_v2.Port.id, PortBinding.host).where(
        ProvisioningBlock.entity == ENTITY,
        ProvisioningBlock.standard_attr_id == models_v2.Port.standard_attr_id,
        PortBinding.port_id == models_v2.Port.id,
        PortBinding.status == constants.ACTIVE,
    )
    with api.CONTEXT_READER.using(admin):
        return dict(admin.session.execute(query).all())
