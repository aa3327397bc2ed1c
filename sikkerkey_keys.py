"""An agent's key: loaded, unlocked and turned into a function that signs.

This module is imported only when a key is needed: hashlib loads OpenSSL, and the native library takes 30 ms.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import sikkerkey_identity
import sikkerkey_passphrase
from sikkerkey_core import ConfigError, clean
from sikkerkey_identity import Identity, KeyLocked, WrongPassphrase, is_encrypted, load_identity, replacement

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Sign = Callable[[bytes], bytes]


def load_signer(key_pem: bytes) -> Sign:
    """The signing function of an Ed25519 key in PKCS8 PEM. Raises ConfigError."""
    return _load_key(key_pem).sign


def signer_of(identity: Identity) -> Sign:
    """The signing function of an agent. Raises ConfigError."""
    return _usable_key(identity).sign


def _usable_key(identity: Identity) -> Ed25519PrivateKey:
    try:
        key = _unlocked_key(identity) if is_encrypted(identity.key_pem) else _load_key(identity.key_pem)
        if identity.public_key and key.public_key().public_bytes_raw() != identity.public_key:
            raise ConfigError("private.pem and the publicKey in identity.json do not belong together")
        return key
    except ConfigError as error:
        error.hint = error.hint or replacement(identity.agent_id, identity.address)
        raise


def _load_key(key_pem: bytes, password: bytes | None = None) -> Ed25519PrivateKey:
    try:
        # Not at the top: a damaged library is reported in words.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        hint = "`sikkerkey-mcp doctor` says more; download a damaged file again"
        raise ConfigError(f"the signing library cannot be loaded: {clean(str(error))}", hint) from None
    if not _signs_correctly(Ed25519PrivateKey):
        hint = "download the archive again, or reinstall cryptography"
        raise ConfigError("the signing library fails the Ed25519 test of RFC 8032", hint)
    try:
        key = load_pem_private_key(key_pem, password)
    except Exception:  # the library raises many kinds of errors, and any of them may quote the key
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        if password is not None:
            raise WrongPassphrase("this is not the passphrase of the agent's key")
        raise ConfigError("private.pem does not contain an unencrypted Ed25519 key in PKCS8 PEM")
    return key


@functools.cache
def _signs_correctly(key_class: type[Ed25519PrivateKey]) -> bool:
    """Signs the message of test 2 in section 7.1 of RFC 8032, once per process."""
    private_key = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    try:
        return key_class.from_private_bytes(private_key).sign(b"\x72") == signature
    except Exception:  # an OpenSSL in FIPS mode may not have Ed25519
        return False


def fingerprint(public_key: bytes) -> str:
    """The fingerprint of a public key of 32 raw bytes, as OpenSSH writes it: `SHA256:` and base64 without padding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode("ascii").rstrip("=")


def fingerprint_of(identity: Identity) -> str:
    """The fingerprint of the public half of an agent's key. One with a passphrase is not unlocked for it.

    Raises ConfigError.
    """
    if is_encrypted(identity.key_pem) and identity.public_key:
        return fingerprint(identity.public_key)
    return fingerprint(_usable_key(identity).public_key().public_bytes_raw())


# ---------------------------------------------------------------------------------------------------------------------
# locked keys: a key with a passphrase is decrypted once, and then stays in the memory of the process.
# ---------------------------------------------------------------------------------------------------------------------


_unlocked_keys: dict[bytes, Ed25519PrivateKey] = {}  # for the life of the process, by the SHA-256 of the key file


def store_account(identity: Identity) -> str:
    """Where the operating system's key store keeps the passphrase of an agent's key."""
    return hashlib.sha256(identity.public_key).hexdigest()


def unlock(identity: Identity, passphrase: str) -> Ed25519PrivateKey:
    """Decrypts the key of an agent and keeps it in memory. Raises WrongPassphrase, or ConfigError."""
    key = _load_key(identity.key_pem, sikkerkey_passphrase.password_of(identity.key_pem, passphrase))
    _unlocked_keys[hashlib.sha256(identity.key_pem).digest()] = key
    return key


def unlock_agent(agent_id: str, passphrase: str) -> None:
    """Decrypts the key of an installed agent and keeps it in memory. Raises ConfigError."""
    unlock(load_identity(agent_id), passphrase)


def _unlocked_key(identity: Identity) -> Ed25519PrivateKey:
    known = _unlocked_keys.get(hashlib.sha256(identity.key_pem).digest())
    if known is not None:
        return known
    if identity.key_store:
        stored = sikkerkey_passphrase.load(identity.key_store, store_account(identity), identity.directory)
        return unlock(identity, stored)
    for _ in range(sikkerkey_identity.PASSPHRASE_TRIES):
        typed = sikkerkey_identity.ask_passphrase(identity)
        if typed is None:
            raise KeyLocked(identity)
        with suppress(WrongPassphrase):
            return unlock(identity, typed)
    raise WrongPassphrase("this is not the passphrase of the agent's key", "run the command again")
