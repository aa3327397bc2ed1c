"""The passphrase of an agent's key: how it protects the key's file, and where the operating system can keep it.

A key file without a passphrase is PKCS8 in PEM. One with a passphrase is encrypted PKCS8 in PEM, below a line with the
salt of scrypt: what PKCS8 does to a password by itself is too fast to withstand guessing. A random passphrase, which
the system's key store keeps, has no such line.

It imports no other module of this project but sikkerkey_core.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from sikkerkey_core import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MIN_CHARACTERS, MAX_CHARACTERS, MIN_DIFFERENT = 12, 1_024, 5
SALT_BYTES = 16
SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_PARALLEL = 2**16, 8, 1  # 64 MiB, 0.3 s
SCRYPT_LINE = re.compile(rb"scrypt-65536-8-1 ([0-9a-f]{32})\r?\n(?=-----BEGIN ENCRYPTED PRIVATE KEY-----)")

# ---------------------------------------------------------------------------------------------------------------------
# the file
# ---------------------------------------------------------------------------------------------------------------------


def problem_with(passphrase: str) -> str:
    """Why a new passphrase is too weak; empty if it is not."""
    if not MIN_CHARACTERS <= len(passphrase) <= MAX_CHARACTERS:
        return f"the passphrase must have {MIN_CHARACTERS} to {MAX_CHARACTERS:,} characters"
    if len(set(passphrase)) < MIN_DIFFERENT:
        return f"the passphrase must have at least {MIN_DIFFERENT} different characters"
    return ""


def encrypted(key: Ed25519PrivateKey, passphrase: str, *, is_random: bool) -> bytes:
    """The content of a key file. A random passphrase cannot be guessed, so it needs no scrypt."""
    from cryptography.hazmat.primitives import serialization  # not at the top: a store can be asked without it

    salt = b"" if is_random else os.urandom(SALT_BYTES)
    line = b"scrypt-65536-8-1 %s\n" % salt.hex().encode() if salt else b""
    protection = serialization.BestAvailableEncryption(_password(passphrase, salt))
    return line + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def password_of(key_pem: bytes, passphrase: str) -> bytes:
    """The password of the encrypted PKCS8 in a key file."""
    match = SCRYPT_LINE.match(key_pem)
    return _password(passphrase, bytes.fromhex(match[1].decode()) if match else b"")


def _password(passphrase: str, salt: bytes) -> bytes:
    secret = passphrase.encode("utf-8", "surrogatepass")
    if not salt:
        return secret
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # not hashlib's, which LibreSSL does not have

    return Scrypt(salt, 32, SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_PARALLEL).derive(secret).hex().encode()


# ---------------------------------------------------------------------------------------------------------------------
# the operating system's key store: keeps a random passphrase under an account, the hexadecimal hash of the public key
# ---------------------------------------------------------------------------------------------------------------------

SERVICE = "sikkerkey-mcp"
SECRET_TOOL, KEYCHAIN, DPAPI = "secret-tool", "keychain", "dpapi"
SECURITY = "/usr/bin/security"
DPAPI_FILE = "passphrase.dpapi"  # in the agent's slot
ANSWER_S = 60.0  # the system may ask the person to unlock its store
UI_FORBIDDEN = 0x1  # CRYPTPROTECT_UI_FORBIDDEN
PASSPHRASE = re.compile(r"[A-Za-z0-9_-]{40,100}")  # as `secrets.token_urlsafe` makes it


def store_of_this_system() -> str:
    """The name of the key store of this system. Raises ConfigError if there is none."""
    if sys.platform == "win32":
        return DPAPI
    if sys.platform == "darwin" and os.path.exists(SECURITY):
        return KEYCHAIN
    import shutil  # not at the top: it takes 5 ms to load, and only new keys need it

    if shutil.which(SECRET_TOOL):
        return SECRET_TOOL
    hint = "install secret-tool (package libsecret-tools or libsecret), or use --passphrase"
    raise ConfigError("this system has no key store that this program can use", hint)


def save(store: str, account: str, directory: str, passphrase: str) -> None:
    """Stores a passphrase and reads it back. `directory` is the agent's slot. Raises ConfigError."""
    if store == SECRET_TOOL:
        _run([SECRET_TOOL, "store", "--label=SikkerKey agent key", *_attributes(account)], passphrase)
    elif store == KEYCHAIN:  # in a command on standard input, because arguments can be seen by every process
        _run([SECURITY, "-i"], f"add-generic-password -U -s {SERVICE} -a {account} -w {passphrase}\n")
    else:
        _write(os.path.join(directory, DPAPI_FILE), _dpapi(passphrase.encode(), protect=True))
    if load(store, account, directory) != passphrase:
        raise _unusable(store)


def load(store: str, account: str, directory: str) -> str:
    """The passphrase of an account. Raises ConfigError."""
    if store == SECRET_TOOL:
        found = _run([SECRET_TOOL, "lookup", *_attributes(account)])
    elif store == KEYCHAIN:
        found = _run([SECURITY, "find-generic-password", "-s", SERVICE, "-a", account, "-w"])
    else:
        found = _dpapi(_read(os.path.join(directory, DPAPI_FILE)), protect=False).decode("ascii", "replace")
    found = found.rstrip("\r\n")
    if not PASSPHRASE.fullmatch(found):
        raise _unusable(store)
    return found


def delete(store: str, account: str, directory: str) -> None:
    """Removes what `save` has stored. Raises ConfigError."""
    if store == SECRET_TOOL:
        _run([SECRET_TOOL, "clear", *_attributes(account)])
    elif store == KEYCHAIN:
        _run([SECURITY, "delete-generic-password", "-s", SERVICE, "-a", account])
    else:
        try:
            os.unlink(os.path.join(directory, DPAPI_FILE))
        except OSError:
            raise _unusable(store) from None


def _attributes(account: str) -> list[str]:
    return ["service", SERVICE, "account", account]


def _unusable(store: str) -> ConfigError:
    hint = "unlock it, and start the client in your desktop session; or install a new agent with --passphrase"
    return ConfigError(f"the system's key store ({store}) does not give the passphrase of the agent's key", hint)


def _run(command: list[str], text: str = "") -> str:
    """Runs a program of the system's key store and returns what it prints. Raises ConfigError."""
    import subprocess  # not at the top: only keys whose passphrase a store keeps need it

    environment = dict(os.environ)
    runtime = f"/run/user/{os.getuid()}" if hasattr(os, "getuid") else ""
    if "XDG_RUNTIME_DIR" not in environment and os.path.isdir(runtime):  # MCP clients may leave out what finds D-Bus
        environment["XDG_RUNTIME_DIR"] = runtime
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, env=environment, check=False, timeout=ANSWER_S
        )
    except (OSError, subprocess.TimeoutExpired):
        raise _unusable(command[0]) from None
    if done.returncode != 0:
        raise _unusable(command[0])
    return done.stdout.decode("utf-8", "replace")


def _write(path: str, data: bytes) -> None:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(data)
    except OSError:
        raise _unusable(DPAPI) from None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(65_536)
    except OSError:
        raise _unusable(DPAPI) from None


def _dpapi(data: bytes, *, protect: bool) -> bytes:
    """Encrypts or decrypts with a key that Windows derives from the user's login. Raises ConfigError."""
    if sys.platform == "win32":
        import ctypes
        from ctypes import wintypes

        class Blob(ctypes.Structure):
            _fields_ = (("size", wintypes.DWORD), ("data", ctypes.c_void_p))

        buffer = ctypes.create_string_buffer(data, len(data))
        given, made = Blob(len(data), ctypes.cast(buffer, ctypes.c_void_p)), Blob()
        function = getattr(ctypes.WinDLL("crypt32"), "CryptProtectData" if protect else "CryptUnprotectData")
        function.argtypes = (*(ctypes.c_void_p,) * 5, wintypes.DWORD, ctypes.c_void_p)
        if function(ctypes.byref(given), None, None, None, None, UI_FORBIDDEN, ctypes.byref(made)):
            try:
                return ctypes.string_at(made.data, made.size)
            finally:
                free = ctypes.WinDLL("kernel32").LocalFree
                free.argtypes = (ctypes.c_void_p,)
                free(made.data)
    raise _unusable(DPAPI)
