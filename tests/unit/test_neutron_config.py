"""The section [ovsfw] of Neutron's configuration: its sample, and what it means."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from oslo_config import cfg

from ovsfw.errors import ConfigError
from ovsfw.neutron import config
from ovsfw.store.client import Remote, Tls
from tests.test_house import ROOT

ENTRY_POINTS = "[oslo.config.opts]\novsfw.neutron = ovsfw.neutron.config:list_opts\n"
SAMPLE = ROOT / "share" / "neutron-ovsfw.conf.sample"


def section(tmp_path: Path, text: str) -> cfg.ConfigOpts.GroupAttr:
    file = tmp_path / "neutron.conf"
    file.write_text(f"[ovsfw]\n{text}")
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(file)])
    return config.register(conf)


def test_the_sample_is_what_the_options_say(tmp_path: Path) -> None:
    """scripts/regen-docs writes it anew."""
    # As an installed ovsfw is found.
    about = tmp_path / "ovsfw-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ovsfw\nVersion: 0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "XDG_CACHE_HOME": str(tmp_path)}
    command = (sys.executable, "-m", "oslo_config.generator", "--namespace", "ovsfw.neutron")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == SAMPLE.read_text()


def test_the_entry_point_is_that_of_the_package() -> None:
    assert '"ovsfw.neutron" = "ovsfw.neutron.config:list_opts"' in (ROOT / "pyproject.toml").read_text()


def test_without_a_connection_nothing_is_published(tmp_path: Path) -> None:
    assert config.remote_of(section(tmp_path, "")) is None


def test_the_policy_database(tmp_path: Path) -> None:
    text = "connection = ssl:10.0.0.1:6642,ssl:10.0.0.2:6642\nprivate_key = k\ncertificate = c\nca_cert = ca\n"
    addresses = ("ssl:10.0.0.1:6642", "ssl:10.0.0.2:6642")
    assert config.remote_of(section(tmp_path, text)) == Remote(addresses, Tls("k", "c", "ca"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("connection = 10.0.0.1:6642\n", "is not the address of a policy database"),
        ("connection = ssl:10.0.0.1:6642\n", "needs private_key, certificate and ca_cert"),
        (
            "connection = ssl:10.0.0.1:6642\nprivate_key = k\ncertificate = c\n",
            "needs private_key, certificate and ca_cert",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.remote_of(section(tmp_path, text))
