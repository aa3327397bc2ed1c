"""Revealing a value: the confirmation, its limits, its audit entries, and what forbids it."""

from __future__ import annotations

import re

import pytest

from tests.vault.support.dashboard import Browser, SignedIn, problem
from tests.vault.support.dashboard_data import by_owner, desk, make_project, make_secret, make_structured
from tests.vault.support.served_vault import Reply, Vault
from vault.dashboard import web
from vault.dashboard.pages import reveals
from vault.dashboard.sessions import MAX_WRONG, WRONG_WINDOW_MS
from vault.domains import secrets

PASSPHRASE = "several unrelated words"


@pytest.fixture
def project(vault: Vault) -> str:
    return make_project(vault)


def path_of(project: str, secret: str) -> str:
    return f"/projects/{project}/secrets/{secret}/reveal"


def question(page: str) -> dict[str, str]:
    """The fields of the form that asks."""
    return {
        name: found[1] for name in ("question", "version") if (found := re.search(rf'"{name}" value="([^"]*)"', page))
    }


def confirm(signed_in: SignedIn, path: str, typed: str, query: str = "", **changed: str) -> Reply:
    """The answer to a confirmation, after the question was asked."""
    fields = question(signed_in.text(path + query))
    return signed_in.send(path, {"csrf": signed_in.csrf, **fields, "confirm": typed, **changed})


def revealed(vault: Vault) -> list[tuple[str, bool]]:
    """The secrets that were shown, and whether it was version 1."""
    details = by_owner(vault, "secret_reveal")
    ids = [each["secret_id"] for each in vault.audited("secret_reveal")]
    return [(secret, "version 1" in detail) for secret, detail in zip(ids, details)]


def test_the_name_is_typed_and_the_value_shown_for_a_while(signed_in: SignedIn, project: str) -> None:
    secret = make_secret(signed_in.vault, project, "KEY", "line 1\r<b>&\u202e\n")
    path = path_of(project, secret)
    asked = signed_in.text(path)
    assert "line 1" not in asked
    reply = confirm(signed_in, path, "KEY")
    page = reply.raw.decode()
    assert reply.status == 200
    assert "\nline 1&#13;&lt;b&gt;&amp;\u202e\n</pre>" in page  # exactly as it is
    assert f'content="30; url=/dashboard/projects/{project}/secrets/{secret}"' in page
    assert reply.headers["cache-control"] == "no-store"
    assert revealed(signed_in.vault) == [(secret, True)]
    for other in (f"/projects/{project}", path.removesuffix("/reveal"), path):
        assert "line 1" not in signed_in.text(other), other


def test_a_confirmation_works_once_for_one_secret_and_version_and_a_minute(signed_in: SignedIn, project: str) -> None:
    vault, first = signed_in.vault, make_secret(signed_in.vault, project, "KEY")
    second = make_secret(vault, project, "SECOND")
    desk(vault).call("POST", f"/v1/ai/projects/{project}/secrets/{first}/update", {"value": "value-2"})
    path = path_of(project, first)
    fields = {**question(signed_in.text(path)), "confirm": "KEY", "csrf": signed_in.csrf}
    assert "value-2" in signed_in.send(path, fields).raw.decode()
    again = signed_in.send(path, fields)
    assert (again.status, "answered before" in problem(again)) == (409, True)
    other = question(signed_in.text(path))
    for place, changed in ((path, {"version": "1"}), (path_of(project, second), {"confirm": "SECOND", "version": "1"})):
        signed_in.text(path)
        assert signed_in.send(place, {**fields, **other, **changed}).status == 409, place
    for token in ("", "x", other["question"]):
        signed_in.text(path)
        assert confirm(signed_in, path, "KEY", question=token).status == 409, token
    signed_in.text(path)
    late = question(signed_in.text(path))
    vault.clock.advance(reveals.QUESTION_LIFE_MS // 1000)
    assert signed_in.send(path, {**fields, **late}).status == 409
    assert len(by_owner(vault, "secret_reveal")) == 1


def test_another_session_cannot_answer(signed_in: SignedIn, project: str) -> None:
    path = path_of(project, make_secret(signed_in.vault, project, "KEY"))
    fields = question(signed_in.text(path))
    other = SignedIn(signed_in.vault)
    assert other.send(path, {"csrf": other.csrf, **fields, "confirm": "KEY"}).status == 409


def test_an_old_version(signed_in: SignedIn, project: str) -> None:
    secret = make_secret(signed_in.vault, project, "KEY")
    desk(signed_in.vault).call("POST", f"/v1/ai/projects/{project}/secrets/{secret}/update", {"value": "value-2"})
    path = path_of(project, secret)
    assert "value-1" in confirm(signed_in, path, "KEY", "?version=1").raw.decode()
    assert revealed(signed_in.vault) == [(secret, True)]
    assert confirm(signed_in, path, "KEY", "?version=9").status == 404
    assert signed_in.get(f"{path}?version=x").status == 404


def test_wrong_confirmations_are_audited_and_limited(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project, "KEY")
    path = path_of(project, secret)
    for number in range(1, MAX_WRONG):
        reply = confirm(signed_in, path, "key")
        assert (reply.status, problem(reply)) == (403, "That is not the secret's name."), number
        assert "value-1" not in reply.raw.decode()
    assert confirm(signed_in, path, "").status == 429
    entries = vault.audited("secret_reveal_denied")
    assert [each["secret_id"] for each in entries] == [secret] * MAX_WRONG
    assert by_owner(vault, "secret_reveal_denied")[0] == "version 1 not shown: wrong confirmation"
    other = SignedIn(vault)  # a new session does not help
    reply = confirm(other, path, "KEY")
    assert (reply.status, problem(reply)) == (
        429,
        "Too many wrong confirmations: you cannot reveal values for 15 minutes.",
    )
    assert len(vault.audited("secret_reveal_denied")) == MAX_WRONG
    vault.clock.advance(WRONG_WINDOW_MS // 1000)
    assert confirm(other, path, "KEY").status == 200


def test_a_vault_with_a_passphrase_asks_for_it(signed_in: SignedIn, project: str) -> None:
    vault = signed_in.vault
    path = path_of(project, make_secret(vault, project, "KEY"))
    vault.store.rekey(vault.clock(), PASSPHRASE)
    assert 'type="password"' in signed_in.text(path)
    for wrong in ("KEY", "", PASSPHRASE + "x", "x" * 2000):
        assert confirm(signed_in, path, wrong).status == 403, wrong
    assert "value-1" in confirm(signed_in, path, PASSPHRASE).raw.decode()


def test_each_field_of_a_structured_secret(signed_in: SignedIn, project: str) -> None:
    path = path_of(project, make_structured(signed_in.vault, project))
    page = confirm(signed_in, path, "smtp").raw.decode()
    assert page.index("user</h2>") < page.index("value-u") < page.index("password</h2>") < page.index("value-p")


def test_what_forbids_it(signed_in: SignedIn, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project, "KEY")
    path = path_of(project, secret)
    fields = question(signed_in.text(path))

    def assert_forbidden() -> None:
        assert signed_in.get(path).status == 403
        assert signed_in.refused(path, {**fields, "confirm": "KEY"})[0] == 403
        assert "Reveal" not in signed_in.text(path.removesuffix("/reveal"))
        assert not vault.audited("secret_reveal")

    with monkeypatch.context() as patched:
        patched.setattr(web.Visit, "reveals", False)
        assert_forbidden()
    with vault.store.transaction() as db:
        secrets.forbid_reveal(db, vault.clock())
    assert_forbidden()


def test_revealing_a_canary_is_no_trigger(signed_in: SignedIn, project: str) -> None:
    vault = signed_in.vault
    canary = desk(vault).call("POST", "/v1/ai/canaries", {"projectId": project, "name": "AWS"})["id"]
    path = path_of(project, canary)
    assert "does not trigger it" in signed_in.text(path)
    assert vault.value(canary) in confirm(signed_in, path, "AWS").raw.decode()
    assert not vault.audited("canary_triggered")


def test_a_changed_value_is_not_shown(signed_in: SignedIn, project: str) -> None:
    vault, secret = signed_in.vault, make_secret(signed_in.vault, project, "KEY")
    with vault.store.transaction() as db:
        db.execute("UPDATE secret_versions SET ciphertext = zeroblob(40)")
    assert confirm(signed_in, path_of(project, secret), "KEY").status == 500
    assert [each["secret_id"] for each in vault.audited("integrity_failure")] == [secret]
    assert not vault.audited("secret_reveal")


def test_a_person_reveals_a_value_and_hides_it(browser: Browser, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(vault)
    secret = make_secret(vault, project, "KEY", "value-1")
    browser.open(path_of(project, secret))
    browser.type("confirm", "KEY")
    monkeypatch.setattr(reveals, "SHOWN_S", 1)
    browser.press("Reveal")
    browser.until(lambda: browser.all("#value") and browser.one("#value").text == "value-1")
    assert [button.text for button in browser.all("main button") if button.is_displayed()] == ["Copy"]
    browser.until(lambda: browser.driver.current_url.endswith(secret))  # by itself
    assert "value-1" not in browser.driver.page_source
    assert revealed(vault) == [(secret, True)]
    assert "secret reveal" in browser.main
