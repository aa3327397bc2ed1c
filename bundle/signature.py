"""Signatures of releases. OpenSSH's ssh-keygen makes and verifies them; it alone handles the key and its passphrase."""

from __future__ import annotations

import base64
import subprocess
import tempfile
from pathlib import Path

from bundle.members import BuildError
from bundle.wheels import ROOT

SIGNER = "sikkerkey-mcp"
NAMESPACE = "file"  # ssh-keygen's own for files
KEY_TYPES = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com")


def sign(path: Path, key: Path) -> str:
    """Write PATH.sig and return the signer's line for a file of allowed signers.

    ssh-keygen asks for the passphrase on the terminal. `key` may also be the public key of one that ssh-agent holds.
    Raises BuildError, and leaves no signature then.
    """
    if ROOT in key.resolve().parents:
        raise BuildError("the signing key is inside the checkout: keep it elsewhere")
    signature = path.with_name(f"{path.name}.sig")
    signature.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key.resolve()), str(path)]
    try:
        done = subprocess.run(command, check=False)
    except FileNotFoundError:
        raise BuildError("ssh-keygen was not found: install OpenSSH 8.1 or newer") from None
    if done.returncode or not signature.exists():
        raise BuildError("ssh-keygen did not sign: nothing is signed")
    try:
        signer = f'{SIGNER} namespaces="{NAMESPACE}" {public_key(signature.read_text(encoding="ascii"))}'
        verify(path, signer)
    except BuildError:
        signature.unlink()
        raise
    return signer


def public_key(signature: str) -> str:
    """The key in an armored signature, as in a .pub file. Raises BuildError unless it is an Ed25519 key."""
    blob = base64.b64decode("".join(line for line in signature.splitlines() if not line.startswith("-----")))
    # "SSHSIG", a version of four bytes, then the key, which begins with its type; both after a length of four bytes.
    key = length_and_bytes(blob[10:])
    kind = length_and_bytes(key).decode("ascii")
    if kind not in KEY_TYPES:
        raise BuildError(f"the signing key is {kind}, but releases are signed with Ed25519")
    return f"{kind} {base64.b64encode(key).decode()}"


def length_and_bytes(data: bytes) -> bytes:
    """The string at the beginning, as SSH encodes it."""
    return data[4 : 4 + int.from_bytes(data[:4], "big")]


def verify(path: Path, signer: str) -> None:
    """Verify PATH.sig as docs/platforms.md tells people to. Raises BuildError."""
    with tempfile.TemporaryDirectory() as directory:
        signers = Path(directory) / "allowed_signers"
        signers.write_text(f"{signer}\n", encoding="ascii")
        command = ["ssh-keygen", "-q", "-Y", "verify", "-f", str(signers), "-I", SIGNER, "-n", NAMESPACE]
        done = subprocess.run(
            [*command, "-s", f"{path}.sig"], input=path.read_bytes(), capture_output=True, check=False
        )
    if done.returncode:
        raise BuildError(f"the signature of {path.name} is not valid")
