"""A program for test_archive.py to put into archives: does what its arguments say and prints one JSON object."""

from __future__ import annotations

import gc
import json
import os
import sys
from importlib.util import find_spec

VERSION = "0.0.0"


def main() -> int:
    result: dict[str, object] = {"argv0": sys.argv[0], "loaded at start": sorted(sys.modules)}
    result["garbage is collected"] = gc.isenabled()
    for step in sys.argv[1:]:
        if step == "wait":
            # The library is read aside during the first milliseconds; what happens after that is what is tested.
            if aside := vars(sys.meta_path[0])["library"].aside:
                aside.result()
            print("ready", flush=True)
            sys.stdin.readline()
        if step == "no-memfd":
            vars(os).pop("memfd_create", None)
        if step == "fail":
            result["fail"] = fail()
        if step == "sign":
            result["sign"] = sign()
        if step == "ca":
            result["ca"] = ca()
    print(json.dumps({**result, **sys.modules["sikkerkey_native"].report()}))
    return 0


def sign() -> str:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    try:
        key.public_key().verify(bytes(64), b"")
    except InvalidSignature:
        return key.sign(b"").hex()
    raise AssertionError("a bad signature was accepted")


def fail() -> str:
    try:
        return sign()
    except ImportError as error:
        return str(error)


def ca() -> int:
    spec = find_spec("certifi")
    assert spec is not None
    assert spec.submodule_search_locations
    path = os.path.join(spec.submodule_search_locations[0], "cacert.pem")
    data: bytes = spec.loader.get_data(path)  # type: ignore[union-attr]  # every loader from an archive has it
    return data.count(b"BEGIN CERTIFICATE")
