"""A local vault's certificate, pinned: nobody else who listens at its address gets a byte of a request."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest

import sikkerkey_address
import sikkerkey_identity
import sikkerkey_mcp
import sikkerkey_tls
from tests.support import faulty_vault
from tests.support.faulty_vault import Authority, FaultyVault, message
from tests.support.harness import AGENT_ID, TIMEOUT_S, VAULT_ID, make_slot
from tests.support.shell import Shell
from vault import certificate
from vault.router import wall_clock

TOKEN = "c0ffee" * 10 + "cafe"
READ = sikkerkey_mcp.Request("GET", "/v1/ai/whoami", None)
WRITE = sikkerkey_mcp.Request("POST", "/v1/ai/projects", b'{"name":"canary"}')
NOT_PINNED = "its certificate is not the one that is pinned for this agent"


class OwnCertificate:
    """A local vault's certificate in a directory of its own."""

    def __init__(self, directory: Path, made_ms: int | None = None) -> None:
        directory.mkdir(mode=0o700)
        found = certificate.load_or_create(directory, made_ms or wall_clock())
        self.sha256 = certificate.fingerprint(found)
        content = (directory / certificate.NAME).read_text()
        self.pem = content[content.index("-----BEGIN CERT") :]
        self.tls = certificate.tls_context(directory)


@pytest.fixture
def own(tmp_path: Path) -> OwnCertificate:
    return OwnCertificate(tmp_path / "own")


@pytest.fixture
def other(tmp_path: Path) -> OwnCertificate:
    """Of another user, who listens at the port while the vault does not run."""
    return OwnCertificate(tmp_path / "other")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sikkerkey_mcp, "BACKOFF_S", 0.0)


def answering(tls: ssl.SSLContext | None, body: bytes = b"{}", status: int = 200) -> FaultyVault:
    return FaultyVault(faulty_vault.then_go_on(message(body, status)), tls=tls)


def pin(home: Path, url: str, pem: object) -> None:
    """Writes an agent whose identity pins a certificate."""
    make_slot(home, url)
    path = home / ".sikkerkey" / "agents" / AGENT_ID / "identity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "certificate": pem}))


def refused(request: sikkerkey_mcp.Request, *, safe: bool) -> sikkerkey_mcp.Error:
    api = sikkerkey_mcp.agent_api(sikkerkey_identity.load_identity(AGENT_ID))
    with contextlib.closing(api), pytest.raises(sikkerkey_mcp.Error) as raised:
        api.send(request, safe=safe, context=sikkerkey_mcp.Context())
    return raised.value


# calls


def test_only_the_pinned_certificate_is_trusted(
    home: Path, own: OwnCertificate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a proxy, and whatever the variables for certificates say."""
    for name, text in (("HTTPS_PROXY", "http://127.0.0.1:1"), ("SIKKERKEY_CA_BUNDLE", "/no/such/file")):
        monkeypatch.setenv(name, text)
    with answering(own.tls) as vault:
        pin(home, vault.url, own.pem)
        api = sikkerkey_mcp.agent_api(sikkerkey_identity.load_identity(AGENT_ID))
        with contextlib.closing(api):
            assert api.send(WRITE, safe=False, context=sikkerkey_mcp.Context()).status == 200
        assert [seen.path for seen in vault.seen] == [WRITE.path]
        monkeypatch.delenv("HTTPS_PROXY")
        monkeypatch.delenv("SIKKERKEY_CA_BUNDLE")
        make_slot(home, vault.url)  # and without the pin, it is not trusted
        assert "certificate is not trusted" in str(refused(WRITE, safe=False))
        assert len(vault.seen) == 1


def test_somebody_else_at_the_address_gets_no_request(
    home: Path, own: OwnCertificate, other: OwnCertificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with a certificate that everybody else trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SIKKERKEY_CA_BUNDLE", str(authority.bundle))
    for tls in (other.tls, authority.server("127.0.0.1")):
        with answering(tls) as stranger:
            pin(home, stranger.url, own.pem)
            for request, safe in ((READ, True), (WRITE, False)):
                error = refused(request, safe=safe)
                assert str(error) == f"the vault at {stranger.url} cannot be reached: {NOT_PINNED}"
                assert error.hint == f"nothing was changed; {sikkerkey_tls.PINNED_HINT}"
            assert stranger.seen == []


class RawListener:
    """Another user's listener that answers nothing and keeps every byte that it receives."""

    def __init__(self, family: int, host: str, port: int = 0) -> None:
        self._listener = socket.create_server((host, port), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> RawListener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT_S)
        self._listener.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                with connected:
                    self.received.append(connected.recv(65_536))


def test_a_listener_gets_a_handshake_and_nothing_of_the_request(home: Path, own: OwnCertificate) -> None:
    families = [(socket.AF_INET, "127.0.0.1")]
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        families.append((socket.AF_INET6, "::1"))
    for family, host in families:
        with RawListener(family, host) as listener:
            pin(home, f"https://{f'[{host}]' if ':' in host else host}:{listener.port}", own.pem)
            assert "cannot be reached" in str(refused(WRITE, safe=False))
        received = b"".join(listener.received)
        assert received[:2] == b"\x16\x03"  # the start of TLS
        assert [word for word in (b"canary", b"/v1/", AGENT_ID.encode()) if word in received] == []


def test_the_other_loopback_address_is_not_tried(home: Path, own: OwnCertificate) -> None:
    try:
        listener = RawListener(socket.AF_INET6, "::1")
    except OSError:
        pytest.skip("this system has no IPv6 on loopback")
    with listener:
        pin(home, f"https://127.0.0.1:{listener.port}", own.pem)
        assert "cannot be reached" in str(refused(WRITE, safe=False))
    assert listener.received == []


def test_an_expired_certificate_is_refused(home: Path, tmp_path: Path) -> None:
    expired = OwnCertificate(tmp_path / "expired", made_ms=1_000_000_000_000)
    with answering(expired.tls) as vault:
        pin(home, vault.url, expired.pem)
        assert "certificate has expired" in str(refused(WRITE, safe=False))
        assert vault.seen == []


def test_a_running_server_uses_the_certificate_of_the_present_file(home: Path, own: OwnCertificate) -> None:
    with answering(own.tls) as vault:
        pin(home, vault.url, own.pem)
        connection = sikkerkey_mcp.AgentConnection()
        first = connection.api()
        make_slot(home, vault.url)
        key = (home / ".sikkerkey" / "agents" / AGENT_ID / "private.pem").read_bytes()
        second = connection.api()
        pin(home, vault.url, own.pem)
        (home / ".sikkerkey" / "agents" / AGENT_ID / "private.pem").write_bytes(key)
        third = connection.api()
        assert first is not second is not third
        third.close()


# identities and addresses


@pytest.mark.parametrize(
    ("url", "change", "message"),
    [
        ("http://127.0.0.1:1", "", "certificate is for https:// to this computer only"),
        ("https://vault.example", "", "certificate is for https:// to this computer only"),
        ("https://127.0.0.1.example", "", "certificate is for https:// to this computer only"),
        ("https://127.0.0.1:1", "twice", "certificate is not one certificate in PEM"),
        ("https://127.0.0.1:1", "list", "certificate is not one certificate in PEM"),
        ("https://127.0.0.1:1", "key", "certificate is not one certificate in PEM"),
    ],
)
def test_a_pin_that_cannot_count_is_refused(
    home: Path, own: OwnCertificate, url: str, change: str, message: str
) -> None:
    changed = {"": own.pem, "twice": own.pem * 2, "list": [own.pem], "key": own.pem.replace("CERTIFICATE", "KEY")}
    pin(home, url, changed[change])
    with pytest.raises(sikkerkey_mcp.ConfigError, match=message):
        sikkerkey_identity.load_identity(AGENT_ID)


def test_a_certificate_that_openssl_cannot_read_is_refused(home: Path, own: OwnCertificate) -> None:
    lines = own.pem.splitlines(keepends=True)
    pin(home, "https://127.0.0.1:1", "".join([lines[0], *lines[2:]]))
    error = refused_identity()
    assert str(error) == "the pinned certificate in identity.json cannot be read"


def refused_identity() -> sikkerkey_mcp.ConfigError:
    with pytest.raises(sikkerkey_mcp.ConfigError) as raised:
        sikkerkey_mcp.agent_api(sikkerkey_identity.load_identity(AGENT_ID))
    return raised.value


def test_addresses_with_a_fingerprint(home: Path, own: OwnCertificate) -> None:
    parse = sikkerkey_address.parse_address
    assert parse(f"https://127.0.0.1:8301#sha256={own.sha256.upper()}") == ("https://127.0.0.1:8301", own.sha256)
    assert parse("https://vault.example/") == ("https://vault.example", "")
    for refused in ("https://vault.example", "http://127.0.0.1:8301"):
        with pytest.raises(sikkerkey_mcp.ConfigError, match="only https:// to this computer can have #sha256="):
            parse(f"{refused}#sha256={own.sha256}")
    for malformed in (f"https://127.0.0.1#sha256={own.sha256[1:]}", "https://127.0.0.1#", f"#sha256={own.sha256}"):
        with pytest.raises(sikkerkey_mcp.ConfigError, match="the API URL must be"):
            parse(malformed)
    pin(home, "https://127.0.0.1:8301", own.pem)
    address = f"https://127.0.0.1:8301#sha256={own.sha256}"
    assert sikkerkey_identity.load_identity(AGENT_ID).address == address
    assert address in sikkerkey_identity.replacement(AGENT_ID, address)


# install


REGISTERED = json.dumps({"agentId": AGENT_ID, "name": "x", "vaultId": VAULT_ID}).encode()


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_the_lines_of_agent_token_pin_the_vaults_certificate(
    shell: Shell, home: Path, own: OwnCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(own.tls, REGISTERED, 201) as vault:
        type_in(monkeypatch, TOKEN, f"{vault.url}#sha256={own.sha256}")
        ran = shell("install", "-")
        assert ran.status == 0, ran.err
        assert f"it trusts only the vault at {vault.url} with the certificate {own.sha256}" in ran.out
        assert [seen.path for seen in vault.seen] == ["/v1/ai-bootstrap/register"]
    members = json.loads((home / ".sikkerkey" / "agents" / AGENT_ID / "identity.json").read_text())
    assert (members["apiUrl"], members["certificate"]) == (vault.url, own.pem)
    assert f"{vault.url}  (pinned certificate)  SHA256:" in shell("whoami").out


def test_the_variable_takes_precedence(
    shell: Shell, home: Path, own: OwnCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named, installs in (("{}#sha256={}", True), ("{}", False)):
        with answering(own.tls, REGISTERED, 201) as vault:
            monkeypatch.setenv("SIKKERKEY_API_URL", named.format(vault.url, own.sha256))
            type_in(monkeypatch, TOKEN, f"https://127.0.0.1:1#sha256={own.sha256}")
            assert (shell("install", "-").status == 0) is installs
            assert len(vault.seen) == installs
        shell("revoke", AGENT_ID, "--yes")


def test_the_token_is_not_sent_to_somebody_else(
    shell: Shell, home: Path, own: OwnCertificate, other: OwnCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(other.tls, REGISTERED, 201) as stranger:
        type_in(monkeypatch, TOKEN, f"{stranger.url}#sha256={own.sha256}")
        ran = shell("install", "-")
        assert (ran.status, ran.out, stranger.seen) == (1, "", [])
        assert f"the certificate at {stranger.url} is not the one that was given; the token was not used" in ran.err
    with answering(None) as stranger:  # without TLS
        stranger.greet = lambda wire: wire.send(message(b"canary", 400))
        type_in(monkeypatch, TOKEN, f"{stranger.url.replace('http:', 'https:')}#sha256={own.sha256}")
        ran = shell("install", "-")
        assert (ran.status, stranger.seen) == (1, [])
        assert "no vault answers with TLS" in ran.err
    for line in ("https://vault.example", "canary"):
        type_in(monkeypatch, TOKEN, line)
        ran = shell("install", "-")
        assert ran.status in (1, 2)
        assert "canary" not in ran.err
    assert not (home / ".sikkerkey").exists()


# doctor


def test_doctor_checks_against_the_pinned_certificate(
    shell: Shell, home: Path, own: OwnCertificate, other: OwnCertificate
) -> None:
    body = b'{"scopes":["projects.read"],"approved":true,"enabled":true}'
    with answering(own.tls, body) as vault:
        pin(home, vault.url, own.pem)
        shown = shell("doctor", "--json").out
        lines = {line["check"]: line for line in json.loads(shown)}
        assert lines["proxy"]["detail"] == "none: a pinned certificate never uses a proxy"
        assert lines["tls"]["detail"].endswith("checked against the pinned certificate")
        assert (lines["tls"]["state"], lines["api"]["state"]) == ("ok", "ok")
    with answering(other.tls, body) as stranger:
        pin(home, stranger.url, own.pem)
        (tls,) = [line for line in json.loads(shell("doctor", "--json").out) if line["check"] == "tls"]
        assert (tls["state"], tls["remedy"]) == ("fail", sikkerkey_tls.PINNED_HINT)
        assert tls["detail"] == f"{stranger.url}: {NOT_PINNED}; trusted: the pinned certificate"
        assert stranger.seen == []
