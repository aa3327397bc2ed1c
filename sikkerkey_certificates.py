"""Certificates: the system's store of authorities, and what is said about a certificate that was refused."""

from __future__ import annotations

import os
import re
import ssl
import sys

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


def remedy(error: BaseException | None) -> str:
    """What fixes a refused certificate; empty for other errors."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ""
    return REMEDIES.get(error.verify_code, UNKNOWN_AUTHORITY)


def issuer(certificate: bytes) -> str:
    """Who signed a certificate (DER), or claims to have: only its letters, digits and a few signs. Empty if unknown."""
    try:
        from cryptography import x509  # here, because only this message needs it

        found = x509.load_der_x509_certificate(certificate).issuer
        oids = (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME)
        name = next((str(one.value) for oid in oids for one in found.get_attributes_for_oid(oid)), "")
    except Exception:  # the library raises many kinds of errors
        return ""
    return re.sub(r"[^\w .,&()-]", "", name)
