"""The signed text, the headers and the key, compared with the vectors of RFC 8032 and of the wire contract."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519

import sikkerkey_identity
import sikkerkey_keys
import sikkerkey_mcp
from tests.support.harness import AGENT_ID
from tests.support.table_calls import for_each

VECTORS = Path(__file__).parent / "vectors"
RFC_8032: list[dict[str, str]] = json.loads((VECTORS / "rfc8032.json").read_text("utf-8"))
CONTRACT: dict[str, Any] = json.loads((VECTORS / "requests.json").read_text("utf-8"))
EMPTY_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


def pem_of_seed(seed: str) -> bytes:
    """The PKCS8 PEM of a raw Ed25519 private key in hex."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    return key.private_bytes(PEM, PKCS8, PLAIN)


def vector_request(vector: dict[str, Any]) -> sikkerkey_mcp.Request:
    """The request that a vector of the contract describes."""
    body = vector["body"]
    return sikkerkey_mcp.Request(vector["method"], vector["path"], None if body is None else body.encode("utf-8"))


@for_each(RFC_8032)
def test_signer_makes_the_signatures_of_rfc_8032(vector: dict[str, str]) -> None:
    sign = sikkerkey_keys.load_signer(pem_of_seed(vector["seed"]))
    assert sign(bytes.fromhex(vector["message"])).hex() == vector["signature"]


@for_each(RFC_8032)
def test_vector_of_rfc_8032_verifies_with_its_public_key(vector: dict[str, str]) -> None:
    public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["public"]))
    public.verify(bytes.fromhex(vector["signature"]), bytes.fromhex(vector["message"]))


@for_each(CONTRACT["requests"])
def test_signed_text_is_method_path_timestamp_nonce_and_body_hash(vector: dict[str, Any]) -> None:
    text = sikkerkey_mcp.string_to_sign(vector_request(vector), CONTRACT["timestamp"], CONTRACT["nonce"])
    parts = (vector["method"], vector["path"], CONTRACT["timestamp"], CONTRACT["nonce"], vector["body_hash"])
    assert text == ":".join(map(str, parts)).encode("ascii")


@for_each(CONTRACT["requests"])
def test_headers_are_those_of_the_contract(vector: dict[str, Any]) -> None:
    sign = sikkerkey_keys.load_signer(pem_of_seed(CONTRACT["seed"]))
    headers = sikkerkey_mcp.signed_headers(
        AGENT_ID, sign, vector_request(vector), CONTRACT["timestamp"], CONTRACT["nonce"]
    )
    assert headers == {
        "X-Agent-Id": AGENT_ID,
        "X-Machine-Id": AGENT_ID,
        "X-Timestamp": "1767225600",
        "X-Nonce": CONTRACT["nonce"],
        "X-Signature": vector["signature"],
    }


def test_vectors_of_the_contract_verify_with_its_public_key() -> None:
    public = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(CONTRACT["public_key"]))
    for vector in CONTRACT["requests"]:
        text = sikkerkey_mcp.string_to_sign(vector_request(vector), CONTRACT["timestamp"], CONTRACT["nonce"])
        public.verify(base64.b64decode(vector["signature"]), text)


def test_json_writer_produces_the_body_of_the_contract() -> None:
    """Writer and vector agree to the byte: no escapes for `<`, `>` or letters beyond ASCII."""
    body = CONTRACT["requests"][1]["body"]
    assert sikkerkey_mcp.to_json({"name": "søger <nøgle>", "value": "hunter2"}) == body


def test_no_body_and_an_empty_body_have_the_hash_of_the_empty_string() -> None:
    for body in (None, b""):
        assert (
            sikkerkey_mcp.string_to_sign(sikkerkey_mcp.Request("GET", "/p", body), 0, "n")
            == f"GET:/p:0:n:{EMPTY_HASH}".encode()
        )


def test_every_part_of_a_request_changes_the_signed_text() -> None:
    request = sikkerkey_mcp.Request("POST", "/p", b"{}")
    changed = [
        (request._replace(method="GET"), 1, "n"),
        (request._replace(path="/q"), 1, "n"),
        (request._replace(body=b"{ }"), 1, "n"),
        (request._replace(body=None), 1, "n"),
        (request, 2, "n"),
        (request, 1, "m"),
    ]
    texts = {sikkerkey_mcp.string_to_sign(*parts) for parts in [(request, 1, "n"), *changed]}
    assert len(texts) == 1 + len(changed)


def test_library_that_signs_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(data: bytes) -> ed25519.Ed25519PrivateKey:
        return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(reversed(data)))

    def unsupported(_data: bytes) -> ed25519.Ed25519PrivateKey:
        raise UnsupportedAlgorithm("this OpenSSL has no Ed25519")

    pem = pem_of_seed(RFC_8032[0]["seed"])
    real = ed25519.Ed25519PrivateKey
    for broken in (wrong, unsupported):
        sikkerkey_keys._signs_correctly.cache_clear()
        monkeypatch.setattr(ed25519, "Ed25519PrivateKey", type("Key", (), {"from_private_bytes": broken}))
        with pytest.raises(sikkerkey_mcp.ConfigError, match="the signing library fails the Ed25519 test"):
            sikkerkey_keys.load_signer(pem)
        monkeypatch.setattr(ed25519, "Ed25519PrivateKey", real)
    sikkerkey_keys._signs_correctly.cache_clear()
    sikkerkey_keys.load_signer(pem)


def foreign_keys() -> dict[str, bytes]:
    """Keys that load, and that are not Ed25519."""
    keys: list[Any] = [
        x25519.X25519PrivateKey.generate(),
        ed448.Ed448PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
    ]
    return {type(key).__name__: key.private_bytes(PEM, PKCS8, PLAIN) for key in keys}


def broken_keys() -> dict[str, bytes]:
    """Files in which no Ed25519 key can be read."""
    key = ed25519.Ed25519PrivateKey.generate()
    good = key.private_bytes(PEM, PKCS8, PLAIN)
    return {
        "encrypted": key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"pw")),
        "cut OpenSSH": key.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, PLAIN)[:-60],
        "public half": key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "DER": key.private_bytes(serialization.Encoding.DER, PKCS8, PLAIN),
        "half a file": good[: len(good) // 2],
        "damaged": good.replace(b"MC4C", b"MC4D"),
        "empty": b"",
        "not PEM": b"canary-in-a-key-file\x00\xff",
        "not base64": b"-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n",
    }


def test_unusable_key_is_refused_without_showing_its_content() -> None:
    for name, pem in {**foreign_keys(), **broken_keys()}.items():
        with pytest.raises(sikkerkey_mcp.ConfigError) as refused:
            sikkerkey_keys.load_signer(pem)
        assert str(refused.value) == "private.pem does not contain an unencrypted Ed25519 key in PKCS8 PEM", name
        assert refused.value.__cause__ is None, name
        assert refused.value.__suppress_context__ or refused.value.__context__ is None, name
        lines = [line for line in pem.decode("latin-1").splitlines() if len(line) >= 4]
        assert not any(line in f"{refused.value} {refused.value.hint}" for line in lines), name


def test_identity_does_not_show_its_key() -> None:
    members = {"agentId": AGENT_ID, "name": "name", "vaultId": "vault_1", "apiUrl": "https://vault.test"}
    identity = sikkerkey_identity.Identity(members, b"canary-key")
    assert "canary" not in f"{identity} {identity!r} {[identity]}"
