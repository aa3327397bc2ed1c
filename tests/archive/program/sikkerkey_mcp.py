"""A program for test_archive.py to put into archives: does what its arguments say and prints one JSON object."""

from __future__ import annotations

import json
import os
import sys
from importlib.resources import files

from sikkerkey_launch import report

VERSION = "0.0.0"


def main() -> int:
    result: dict[str, object] = {"argv0": sys.argv[0], "path": sys.path, "loaded at start": sorted(sys.modules)}
    for step in sys.argv[1:]:
        if step == "wait":
            print("ready", flush=True)
            sys.stdin.readline()
        if step == "no-memfd":
            vars(os).pop("memfd_create", None)
        if step == "stdin":
            result["stdin"] = is_open(0)
        if step == "fail":
            result["fail"] = fail()
        if step == "sign":
            result["sign"] = sign()
        if step == "ca":
            result["ca"] = (files("certifi") / "cacert.pem").read_bytes().count(b"BEGIN CERTIFICATE")
    print(json.dumps({**result, **report()}))
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


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def fail() -> str:
    try:
        return sign()
    except ImportError as error:
        return str(error)
