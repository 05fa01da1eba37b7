"""A small certificate authority in a directory, for the servers and the hosts of one policy database; openssl does it.

A certificate is good for a server and for a client.  Its CN is the name of a host, exactly, for by that the database
decides whose row it may write.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from pathlib import Path

from ovsfw.errors import ConfigError, StoreError

CA_DAYS, DAYS = 3650, 730
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")  # 64 is the limit of X.520 for a CN
_CA = "ca"
_CONFIG = """\
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth, clientAuth
"""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_COMMAND_TIMEOUT = 60.0


class Authority:
    """Keys and certificates as NAME.key and NAME.crt; the authority's own are ca.key and ca.crt."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def exists(self) -> bool:
        """Whether there is an authority, whole or not."""
        return any(path.exists() for path in self.files(_CA))

    def files(self, name: str) -> tuple[Path, Path]:
        """The key and the certificate of a name, whether they are there or not."""
        return self.directory / f"{name}.key", self.directory / f"{name}.crt"

    def create(self) -> None:
        """Make the authority.  Raises StoreError."""
        key, certificate = self.files(_CA)
        output = ("-keyout", str(key), "-out", str(certificate))
        days = ("-days", str(CA_DAYS))
        self._openssl("req", "-x509", *_NEW_KEY, *days, "-subj", "/CN=ovsfw-ca", "-extensions", "ca", *output)
        certificate.chmod(0o644)

    def issue(self, name: str, days: int = DAYS) -> bool:
        """Make a key and a certificate; whether there was none.  Raises ConfigError for a bad name, and StoreError."""
        if not _NAME.fullmatch(name) or name == _CA:
            raise ConfigError(f"{name!r} is no name for a certificate; use that of a host, up to 64 characters")
        key, certificate = self.files(name)
        if certificate.exists():
            return False
        request = self.directory / f"{name}.csr"
        self._openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
        ca_key, ca_certificate = map(str, self.files(_CA))
        signed = ("-CA", ca_certificate, "-CAkey", ca_key, "-set_serial", f"0x{secrets.randbits(127):x}")
        words = ("-in", str(request), *signed, "-days", str(days), "-extensions", "leaf", "-out", str(certificate))
        self._openssl("x509", "-req", *words)
        request.unlink()
        certificate.chmod(0o644)
        return True

    def _openssl(self, command: str, *words: str) -> None:
        config = self.directory / "openssl.cnf"
        option = "-config" if command == "req" else "-extfile"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            config.write_text(_CONFIG)
            done = subprocess.run(  # noqa: S603 - names are checked
                ["openssl", command, option, str(config), *words],  # noqa: S607 - as PATH has it
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_COMMAND_TIMEOUT,
                umask=0o077,  # keys are for their owner
            )
        except FileNotFoundError:
            raise StoreError("openssl not found: install it (apt-get install openssl)") from None
        except OSError as error:
            raise StoreError(f"{self.directory}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise StoreError(f"openssl {command}: not done within {_COMMAND_TIMEOUT:.0f} s") from None
        if done.returncode:
            raise StoreError(f"openssl {command}: {done.stderr.strip()}")
