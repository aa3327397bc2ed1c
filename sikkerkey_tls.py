"""TLS with the vault: which certificates are trusted, and what is said about one that was refused.

It takes 20 ms to import, so the server does that only for a call.
"""

from __future__ import annotations

import os
import re
import ssl
import sys

import sikkerkey_http
from sikkerkey_address import only_ca_bundle, unusable_bundle
from sikkerkey_core import ConfigError, clean

# Forward secrecy: who steals the server's key later cannot read what was recorded before. TLS 1.3 always has it.
TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

# Where Linux distributions keep their bundle. A Python that was built elsewhere may look in another place.
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
)

# What fixes a refused certificate, by OpenSSL's number of the reason.
ADDRESS = "check the vault's address, and whether a portal or proxy answers in its place"
REMEDIES = {
    9: "check this computer's clock",  # not yet valid
    10: "check this computer's clock; if it is right, the vault's operator must renew the certificate",  # expired
    62: ADDRESS,  # for another host
    64: ADDRESS,  # for another IP address
}
UNKNOWN_AUTHORITY = (
    "if a company proxy or a private authority issued it, set SIKKERKEY_CA_BUNDLE to a PEM file with that issuer's "
    "certificate"
)
PINNED_HINT = (
    "start your vault, since another program may listen at its address; if it was restored or its certificate has "
    "expired, it has a new one: revoke this agent and install another"
)
ISSUER_MAX_CHARACTERS = 64


def tls_context(certificate: str = "") -> ssl.SSLContext:
    """TLS 1.2 or newer with forward secrecy, certificates and host names checked.

    Trusts `certificate`, in PEM, alone if it is given; else certifi's bundle, the system's store and
    SIKKERKEY_CA_BUNDLE, or with SIKKERKEY_CA_BUNDLE_ONLY that file alone. Raises ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS_1_2_CIPHERS)
    context.hostname_checks_common_name = False  # name constraints do not apply to common names
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # some builds set it; absent before OpenSSL 3
    if certificate:
        try:
            context.load_verify_locations(cadata=certificate)
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            raise ConfigError("the pinned certificate in identity.json cannot be read", PINNED_HINT) from None
        return context
    bundle = os.environ.get("SIKKERKEY_CA_BUNDLE", "")
    only_bundle = only_ca_bundle()
    try:
        if bundle and not os.path.isfile(bundle):  # OpenSSL would wait for a FIFO and read a device without end
            raise OSError
        if bundle:
            context.load_verify_locations(cafile=bundle)
        if not only_bundle:
            context.load_verify_locations(cadata=_certifi_bundle())
            load_system_store(context)
    except (OSError, ValueError):
        raise unusable_bundle(bundle) from None
    return context


def _certifi_bundle() -> str:
    try:
        import certifi  # here, because it may be absent
    except ImportError:
        hint = "pip install certifi, or set SIKKERKEY_CA_BUNDLE and SIKKERKEY_CA_BUNDLE_ONLY=1"
        raise ConfigError("certifi is not installed", hint) from None
    return certifi.contents()


def load_system_store(context: ssl.SSLContext) -> None:
    """Makes `context` trust what the system trusts. Files that cannot be read are skipped; `doctor` reports them."""
    if sys.platform == "win32":
        context.load_default_certs()
    files, directories = system_store()
    for place in [*({"cafile": path} for path in files), *({"capath": path} for path in directories)]:
        try:
            context.load_verify_locations(**place)
        except (OSError, ValueError):  # not PEM
            continue


def system_store() -> tuple[list[str], list[str]]:
    """The system's files and directories of certificates that exist. SSL_CERT_FILE and SSL_CERT_DIR replace them.

    A directory holds the same certificates as the file beside it, and only those that are needed are read from it.
    """
    paths = ssl.get_default_verify_paths()
    listed = os.environ.get(paths.openssl_capath_env) or paths.openssl_capath
    directories = [path for path in listed.split(os.pathsep) if _has_certificates(path)]
    chosen = os.environ.get(paths.openssl_cafile_env)
    usual = () if directories else (paths.openssl_cafile, *SYSTEM_BUNDLES)
    files = [path for path in ((chosen,) if chosen else usual) if os.path.isfile(path)]
    return files[:1], directories


def _has_certificates(directory: str) -> bool:
    """OpenSSL finds a certificate in a directory only by the hash of its name, as in 5ed36f99.0."""
    try:
        return any(name.endswith(".0") for name in os.listdir(directory))
    except OSError:
        return False


def explain_unreachable(error: sikkerkey_http.Unreachable, *, pinned: bool = False) -> tuple[str, str]:
    """The reason, with the issuer of a refused certificate, and what fixes that; empty for other reasons."""
    refused = error.__cause__
    if not isinstance(refused, ssl.SSLCertVerificationError):
        return error.reason, ""
    remedy = REMEDIES.get(refused.verify_code, UNKNOWN_AUTHORITY)
    if pinned:
        expired = remedy not in (UNKNOWN_AUTHORITY, ADDRESS)
        return error.reason if expired else "its certificate is not the one that is pinned for this agent", PINNED_HINT
    issuer = clean(issuer_of(error.certificate), ISSUER_MAX_CHARACTERS)
    return f'{error.reason} (issuer: "{issuer}")' if issuer else error.reason, remedy


def issuer_of(certificate: bytes) -> str:
    """Who signed a certificate (DER), or claims to have: only its letters, digits and a few signs. Empty if unknown."""
    try:
        from cryptography import x509  # here, because only this message needs it

        found = x509.load_der_x509_certificate(certificate).issuer
        oids = (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME)
        name = next((str(one.value) for oid in oids for one in found.get_attributes_for_oid(oid)), "")
    except Exception:  # the library raises many kinds of errors
        return ""
    return re.sub(r"[^\w .,&()-]", "", name)
