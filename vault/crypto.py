"""Envelope encryption, identifiers and nothing else: no SQL, no files, no clock.

    passphrase  --Argon2id-->  root key  --wraps-->  project key  --wraps-->  data key  --encrypts-->  value

The passphrase is there if the owner wants one; each version has a data key of its own. Every layer is AES-256-GCM with
a random 96-bit nonce in front of the ciphertext. The associated data says what the bytes belong to, so that a row moved
to another secret, version or project does not decrypt.
"""

from __future__ import annotations

import os
import secrets
import string
import unicodedata
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

KEY_BYTES = 32
NONCE_BYTES = 12
ID_CHARACTERS = string.ascii_lowercase + string.digits
ID_LENGTH = 16  # the contract asks for 10 or more; 36**16 leaves guessing hopeless


class Stretch(NamedTuple):
    """How a passphrase becomes a key: a salt, and what one guess costs."""

    salt: bytes
    memory_kib: int
    iterations: int
    lanes: int

    def key(self, passphrase: str) -> bytes:
        """The key, after Argon2id. The same characters typed on another keyboard are the same passphrase."""
        return Argon2id(
            salt=self.salt,
            length=KEY_BYTES,
            iterations=self.iterations,
            lanes=self.lanes,
            memory_cost=self.memory_kib,
        ).derive(unicodedata.normalize("NFC", passphrase).encode())


class Sealed(NamedTuple):
    """One encrypted value: its data key, wrapped, and the ciphertext."""

    wrapped_key: bytes
    ciphertext: bytes


class Envelope(NamedTuple):
    """Where a value lives; everything that its associated data is made of."""

    project_id: str
    wrapped_project_key: bytes
    secret_id: str
    version: int

    def label(self, layer: str) -> bytes:
        """The associated data of one layer."""
        return f"{layer}:{self.secret_id}:{self.version}".encode()


class Keyring:
    """Holds the root key and makes, wraps and opens every key below it."""

    def __init__(self, root_key: bytes) -> None:
        self._root_key = root_key

    def new_project_key(self, project_id: str) -> bytes:
        """A fresh project key, wrapped by the root key."""
        return self.wrap(_project_label(project_id), os.urandom(KEY_BYTES))

    def wrap(self, label: str, secret: bytes) -> bytes:
        """Encrypt under the root key. The label ends in the row's id: `kind:id`; `surface.WRAPPED` lists the column."""
        return encrypt(self._root_key, secret, label.encode())

    def unwrap(self, label: str, wrapped: bytes) -> bytes:
        """The inverse of `wrap`."""
        return decrypt(self._root_key, wrapped, label.encode())

    def seal(self, place: Envelope, value: bytes) -> Sealed:
        """Encrypt under a new data key, which nothing else ever uses."""
        data_key = os.urandom(KEY_BYTES)
        return Sealed(
            encrypt(self._project_key(place), data_key, place.label("data-key")),
            encrypt(data_key, value, place.label("value")),
        )

    def open(self, place: Envelope, sealed: Sealed) -> bytes:
        """The plaintext of one version."""
        data_key = decrypt(self._project_key(place), sealed.wrapped_key, place.label("data-key"))
        return decrypt(data_key, sealed.ciphertext, place.label("value"))

    def under(self, passphrase: str, stretch: Stretch, vault_id: str) -> bytes:
        """The root key, encrypted under a passphrase."""
        return encrypt(stretch.key(passphrase), self._root_key, _root_label(vault_id))

    @classmethod
    def from_passphrase(cls, passphrase: str, stretch: Stretch, vault_id: str, sealed: bytes) -> Keyring:
        """The inverse of `under`; raises InvalidTag when the passphrase is another."""
        return cls(decrypt(stretch.key(passphrase), sealed, _root_label(vault_id)))

    def proof(self, vault_id: str) -> bytes:
        """What a vault keeps to recognise its root key again."""
        return self.wrap(_proof_label(vault_id), b"")

    def fits(self, vault_id: str, proof: bytes) -> bool:
        """Whether this is the root key that the vault was made with."""
        try:
            self.unwrap(_proof_label(vault_id), proof)
        except InvalidTag:
            return False
        return True

    def _project_key(self, place: Envelope) -> bytes:
        return self.unwrap(_project_label(place.project_id), place.wrapped_project_key)


def encrypt(key: bytes, plaintext: bytes, label: bytes) -> bytes:
    """Nonce and ciphertext in one piece."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, label)


def decrypt(key: bytes, blob: bytes, label: bytes) -> bytes:
    """The inverse of `encrypt`; raises InvalidTag when key, bytes or label differ."""
    return AESGCM(key).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], label)


def new_id(prefix: str) -> str:
    """An identifier such as `sk_9f3k...`, as unguessable as a password."""
    return prefix + "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))


def _root_label(vault_id: str) -> bytes:
    return f"root-key:{vault_id}".encode()


def _project_label(project_id: str) -> str:
    return f"project-key:{project_id}"


def _proof_label(vault_id: str) -> str:
    return f"root-key-proof:{vault_id}"
