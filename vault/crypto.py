"""Envelope encryption and identifiers, without SQL, files or clocks.

    passphrase  --Argon2id-->  root key  --wraps-->  project key  --wraps-->  data key  --encrypts-->  value

The passphrase is optional. Each version of a secret has its own data key. Every layer is AES-256-GCM with a random
96-bit nonce in front of the ciphertext. The associated data names the row that the bytes belong to, so a ciphertext
that is moved to another secret, version or project does not decrypt.
"""

from __future__ import annotations

import hashlib
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
ID_LENGTH = 16  # the contract requires 10 or more; 36**16 ids cannot be guessed


class Argon2Parameters(NamedTuple):
    """The parameters that derive a key from a passphrase: the salt and the cost of one guess."""

    salt: bytes
    memory_kib: int
    iterations: int
    lanes: int

    def derive_key(self, passphrase: str) -> bytes:
        """The key for a passphrase. Unicode normalization makes equal characters from different keyboards equal."""
        return Argon2id(
            salt=self.salt,
            length=KEY_BYTES,
            iterations=self.iterations,
            lanes=self.lanes,
            memory_cost=self.memory_kib,
        ).derive(unicodedata.normalize("NFC", passphrase).encode())


class Sealed(NamedTuple):
    """One encrypted value: the wrapped data key and the ciphertext."""

    wrapped_key: bytes
    ciphertext: bytes


class Envelope(NamedTuple):
    """The row that a value belongs to: the source of its associated data."""

    project_id: str
    wrapped_project_key: bytes
    secret_id: str
    version: int

    def label(self, layer: str) -> bytes:
        """The associated data of one layer."""
        return f"{layer}:{self.secret_id}:{self.version}".encode()


class Keyring:
    """Holds the root key, and creates, wraps and unwraps all keys below it.

    It also holds the key of the seals, which the proof of the root key contains. Vaults of earlier versions have none.
    """

    def __init__(self, root_key: bytes) -> None:
        self._root_key = root_key
        self._seal_key = b""

    def new_project_key(self, project_id: str) -> bytes:
        """A new project key, wrapped by the root key."""
        return self.wrap(_project_label(project_id), os.urandom(KEY_BYTES))

    def wrap(self, label: str, secret: bytes) -> bytes:
        """Encrypt with the root key. The label is `kind:id` of the row; `schema.WRAPPED` must list the column."""
        return encrypt(self._root_key, secret, label.encode())

    def unwrap(self, label: str, wrapped: bytes) -> bytes:
        """The inverse of `wrap`. Raises InvalidTag."""
        return decrypt(self._root_key, wrapped, label.encode())

    def seal(self, envelope: Envelope, value: bytes) -> Sealed:
        """Encrypt a value with a new data key."""
        data_key = os.urandom(KEY_BYTES)
        return Sealed(
            encrypt(self._project_key(envelope), data_key, envelope.label("data-key")),
            encrypt(data_key, value, envelope.label("value")),
        )

    def open(self, envelope: Envelope, sealed: Sealed) -> bytes:
        """The plaintext of one version. Raises InvalidTag."""
        data_key = decrypt(self._project_key(envelope), sealed.wrapped_key, envelope.label("data-key"))
        return decrypt(data_key, sealed.ciphertext, envelope.label("value"))

    def encrypt_root_key(self, passphrase: str, parameters: Argon2Parameters, vault_id: str) -> bytes:
        """The root key, encrypted with a passphrase."""
        return encrypt(parameters.derive_key(passphrase), self._root_key, _root_label(vault_id))

    @classmethod
    def from_passphrase(cls, passphrase: str, parameters: Argon2Parameters, vault_id: str, sealed: bytes) -> Keyring:
        """The inverse of `encrypt_root_key`. Raises InvalidTag if the passphrase is wrong."""
        return cls(decrypt(parameters.derive_key(passphrase), sealed, _root_label(vault_id)))

    def proof(self, vault_id: str) -> bytes:
        """A token that the vault stores to recognize its root key. It contains the key of the seals."""
        return self.wrap(_proof_label(vault_id), self._seal_key)

    def matches(self, vault_id: str, proof: bytes) -> bool:
        """Whether this is the root key that belongs to the proof. If so, the key of the seals is taken from it."""
        try:
            self._seal_key = self.unwrap(_proof_label(vault_id), proof)
        except InvalidTag:
            return False
        return True

    @property
    def can_seal(self) -> bool:
        """Whether there is a key of the seals."""
        return bool(self._seal_key)

    def make_seal_key(self) -> None:
        """Make the key of the seals, which the next proof stores."""
        self._seal_key = os.urandom(KEY_BYTES)

    def keep_seals_of(self, other: Keyring) -> None:
        """Take the key of the seals from the keyring that this one replaces, so that they stay valid."""
        self._seal_key = other._seal_key

    def seal_row(self, parts: tuple[object, ...]) -> bytes | None:
        """The MAC, a keyed BLAKE2b, of the values of a row, or None without a key of the seals."""
        if not self._seal_key:
            return None
        # ascii() shows different values differently, in every version of Python. This runs several times per request.
        return hashlib.blake2b(ascii(parts).encode(), key=self._seal_key, digest_size=KEY_BYTES).digest()

    def _project_key(self, envelope: Envelope) -> bytes:
        return self.unwrap(_project_label(envelope.project_id), envelope.wrapped_project_key)


def encrypt(key: bytes, plaintext: bytes, label: bytes) -> bytes:
    """The nonce followed by the ciphertext."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, label)


def decrypt(key: bytes, blob: bytes, label: bytes) -> bytes:
    """The inverse of `encrypt`. Raises InvalidTag if the key, the bytes or the label differ."""
    if (
        not isinstance(blob, bytes) or len(blob) < NONCE_BYTES
    ):  # the column may hold anything after a change from outside
        raise InvalidTag
    return AESGCM(key).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], label)


def new_id(prefix: str) -> str:
    """An unguessable identifier such as `sk_9f3k...`."""
    return prefix + "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))


def hash_token(token: str) -> bytes:
    """The SHA-256 hash under which the vault stores a token."""
    return hashlib.sha256(token.encode()).digest()


def _root_label(vault_id: str) -> bytes:
    return f"root-key:{vault_id}".encode()


def _project_label(project_id: str) -> str:
    return f"project-key:{project_id}"


def _proof_label(vault_id: str) -> str:
    return f"root-key-proof:{vault_id}"
