"""Identity files that are almost valid.

A slot is either read, and then its key signs, or refused by a ConfigError that has a hint and shows nothing of the key.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest import mock

import sikkerkey_address
import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
from tests.fuzz.mutation import mutated, odd
from tests.support.harness import AGENT_ID, make_slot

MODES = (0o600,) * 12 + (0o400, 0o000, 0o644, 0o620, 0o700, 0o666)


def _write(rng: Random, path: Path, data: bytes) -> None:
    path.unlink()  # the file of an earlier case may be read-only
    path.write_bytes(data)
    path.chmod(rng.choice(MODES))


def check(key_pem: bytes) -> None:
    """Loads the slot like `serve` and the first call do."""
    secret = key_pem.split(b"\n")[1].decode()
    refusal = None
    try:
        identity = sikkerkey_identity.load_identity(AGENT_ID)
        signature = sikkerkey_keys.signer_of(identity)(b"text")
        assert len(signature) == 64
        assert sikkerkey_address.parse_base_url(identity.api_url) == identity.api_url.rstrip("/")
    except sikkerkey_mcp.ConfigError as error:
        refusal = error
    if refusal is not None:
        assert refusal.hint, "a refusal without a hint"
        assert secret not in f"{refusal}{refusal.hint}{refusal.__cause__!r}"


@contextmanager
def target() -> Iterator[Callable[[Random], None]]:
    """Writes and reads the same slot in each case."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        os.chmod(home, 0o700)
        make_slot(home, "https://vault.example")
        slot = home / ".sikkerkey" / "agents" / AGENT_ID
        key_pem, members = (slot / "private.pem").read_bytes(), json.loads((slot / "identity.json").read_bytes())

        def case(rng: Random) -> None:
            _write(rng, slot / "identity.json", mutated(rng, json.dumps(odd(rng, members)).encode()))
            _write(rng, slot / "private.pem", mutated(rng, key_pem))
            check(key_pem)

        with mock.patch.dict(os.environ, {"SIKKERKEY_HOME": str(home / ".sikkerkey")}):
            yield case
