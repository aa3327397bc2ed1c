"""The vault's own TLS certificate: self-signed, for the loopback addresses, pinned by agents when they are installed.

`tls.pem`, mode 0600, holds the private key and the certificate, so that both are always replaced together. It belongs
to the directory, not to the vault: a backup does not contain it, and a restored vault makes a new one.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from vault.errors import VaultError
from vault.files import create_private, quoted, read_private

NAME = "tls.pem"
LIFE = datetime.timedelta(days=3_650)
KEY_BITS = 2_048
EARLIER = datetime.timedelta(days=1)  # the certificate is valid on clocks that are behind, too
NAMES = [
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
]
KEY_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
# Forward secrecy: somebody who steals the key later cannot read recorded traffic. TLS 1.3 always has it.
TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def load_or_create(directory: Path, now_ms: int) -> x509.Certificate:
    """The certificate in the directory; a new one if there is none, or if it has expired. Raises VaultError."""
    path, now = directory / NAME, datetime.datetime.fromtimestamp(now_ms / 1000, datetime.timezone.utc)
    if os.path.lexists(path):
        try:
            found = x509.load_pem_x509_certificate(read_private(path))
        except ValueError:
            raise _unusable(path) from None
        if found.not_valid_after_utc > now:
            return found
    made, content = _create(now)
    create_private(path, content)
    return made


def tls_context(directory: Path) -> ssl.SSLContext:
    """The server's side of TLS 1.2 or newer. Raises VaultError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS_1_2_CIPHERS)
    try:
        context.load_cert_chain(directory / NAME)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise _unusable(directory / NAME) from None
    return context


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate in DER, as 64 hexadecimal digits."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _create(now: datetime.datetime) -> tuple[x509.Certificate, bytes]:
    """A certificate, and the content of its file.

    With RSA: Apple's Python does not know Ed25519, and the archive contains no ECDSA.
    """
    key = rsa.generate_private_key(65_537, KEY_BITS)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "SikkerKey local vault")])
    usage = {**dict.fromkeys(KEY_USES, False), "digital_signature": True}
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate, key_pem + certificate.public_bytes(Encoding.PEM)


def _unusable(path: Path) -> VaultError:
    complaint = f"file {quoted(path)} does not hold a private key and its certificate"
    aside = quoted(path.with_name(path.name + ".old"))
    hint = f"serve makes a new one, for which agents must be installed again: mv {quoted(path)} {aside}"
    return VaultError(complaint, hint)
