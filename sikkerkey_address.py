"""Where the vault is: its URL, the certificate that is pinned with it, and what variables say about the way to it.

Nothing here opens a connection or loads TLS.
"""

from __future__ import annotations

import os
import re

from sikkerkey_core import NO, ConfigError, clean, is_yes

DEFAULT_API_URL = "https://api.sikkerkey.com"
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
# Exactly scheme, host and port: a path would be sent but not signed, and a user or a query could disguise the host.
BASE_URL = (
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
# A local vault's address with the certificate to pin, as its owner's commands print it.
PINNED_ADDRESS = r"(?P<url>[^#]*)#sha256=(?P<sha256>[0-9A-Fa-f]{64})"
CERTIFICATE_PEM = (
    r"-----BEGIN CERTIFICATE-----\r?\n((?:[A-Za-z0-9+/=]{1,80}\r?\n){1,200})-----END CERTIFICATE-----\s{0,2}"
)
# Checked here, because an error of urllib would quote the password. Other schemes are refused: for a proxy that expects
# TLS, the password would be sent in the clear.
PROXY_URL = r"(?:http://|(?![^@/]*:/))(?:.*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?/?"


def parse_base_url(url: str) -> str:
    """The vault's base URL without a trailing slash. Raises ConfigError unless it is https, or http to loopback."""
    match = re.fullmatch(BASE_URL, url)
    if not match or not 1 <= int(match["port"] or 443) <= 65_535:
        message = "the API URL must be https://HOST or https://HOST:PORT, without user, path or query"
        raise ConfigError(message, "check SIKKERKEY_API_URL or apiUrl in identity.json")
    if match["scheme"] == "http" and match["host"].lower() not in LOOPBACK_HOSTS:
        message = "the API URL is http:// to another computer, which would send secrets in the clear"
        raise ConfigError(message, f"use https://; http:// is for {', '.join(LOOPBACK_HOSTS)} only")
    return url.removesuffix("/")


def parse_address(text: str) -> tuple[str, str]:
    """The base URL, and the SHA-256 of the certificate to pin, in lower case, or empty. Raises ConfigError."""
    match = re.fullmatch(PINNED_ADDRESS, text)
    if not match:
        return parse_base_url(text), ""
    base_url = parse_base_url(match["url"])
    if not is_pinnable(base_url):
        message = "only https:// to this computer can have #sha256=, which pins the vault's certificate"
        raise ConfigError(message, f"remove #sha256=, or use https:// and one of: {', '.join(LOOPBACK_HOSTS)}")
    return base_url, match["sha256"].lower()


def is_pinnable(base_url: str) -> bool:
    """Whether a certificate can be pinned for a URL that `parse_base_url` accepts."""
    match = re.fullmatch(BASE_URL, base_url)
    return match is not None and match["scheme"] == "https" and match["host"].lower() in LOOPBACK_HOSTS


def pinned_address(base_url: str, sha256: str) -> str:
    """What `parse_address` reads."""
    return f"{base_url}#sha256={sha256}"


def certificate_sha256(certificate: str) -> str:
    """The SHA-256 of a certificate in PEM that `CERTIFICATE_PEM` matches, over its DER, in hexadecimal digits."""
    import base64  # not at the top: only few agents have a pinned certificate
    import hashlib

    match = re.fullmatch(CERTIFICATE_PEM, certificate)
    return hashlib.sha256(base64.b64decode(match[1] if match else "")).hexdigest()


def https_proxies(base_url: str) -> dict[str, str]:
    """The proxies for urllib's ProxyHandler, from the environment or the system. Raises ConfigError."""
    from urllib.request import getproxies, proxy_bypass  # not at the top: urllib takes 20 ms to load

    if base_url.startswith("http:"):  # to this computer
        return {}
    url = getproxies().get("https", "")
    if not url or proxy_bypass(base_url.partition("://")[2]):
        return {}
    match = re.fullmatch(PROXY_URL, url)
    if not match or not 0 < int(match["port"] or 80) < 65_536:
        rule = "HTTPS_PROXY must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
        raise ConfigError(rule, "proxies that expect TLS themselves, and SOCKS proxies, are not supported")
    return {"https": url}


def only_ca_bundle() -> bool:
    """Whether SIKKERKEY_CA_BUNDLE is the only file of certificates to trust. Raises ConfigError."""
    name = "SIKKERKEY_CA_BUNDLE_ONLY"
    only = is_yes(name, os.environ.get(name, "").strip() or NO[0])
    if only and not os.environ.get("SIKKERKEY_CA_BUNDLE"):
        raise ConfigError(f"{name} is set, but SIKKERKEY_CA_BUNDLE is not", "set SIKKERKEY_CA_BUNDLE to a PEM file")
    return only


def unusable_bundle(bundle: str) -> ConfigError:
    """The error for certificates that cannot be read: those of SIKKERKEY_CA_BUNDLE, or if it is empty, certifi's."""
    hint = f"check SIKKERKEY_CA_BUNDLE ({clean(bundle)})" if bundle else ""
    return ConfigError("the CA bundle cannot be read as PEM certificates", hint)


def check_network_settings(base_url: str) -> None:
    """Raises ConfigError for variables of proxies and certificates that are visibly wrong; calls check the rest."""
    bundle = os.environ.get("SIKKERKEY_CA_BUNDLE", "")
    only_ca_bundle()
    if bundle and not os.path.isfile(bundle) and base_url.startswith("https:"):
        raise unusable_bundle(bundle)
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        https_proxies(base_url)
