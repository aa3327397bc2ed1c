"""Importing a `.env` file: the preview, what stays where, and the import itself. Exporting names."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from tests.vault.support.dashboard import Browser, SignedIn
from tests.vault.support.dashboard_data import (
    HOSTILE,
    SHOWN,
    by_owner,
    desk,
    make_project,
    make_secret,
    make_structured,
)
from tests.vault.support.served_vault import Vault
from vault.dashboard.pages import imports

TEXT = 'NEW="secret-1"\n# comment\nSAME=secret-2\nOTHER=secret-3\nsmtp=secret-4\n'


@pytest.fixture
def project(vault: Vault) -> str:
    project = make_project(vault)
    make_secret(vault, project, "SAME", "secret-2")
    make_secret(vault, project, "OTHER", "before")
    make_structured(vault, project)
    return project


def paste(signed_in: SignedIn, project: str, text: str = TEXT) -> str:
    """The preview of a text."""
    return signed_in.text(signed_in.post(f"/projects/{project}/import", {"text": text}))


def token(page: str) -> dict[str, str]:
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found
    return {"token": found[1]}


def test_a_preview_says_what_each_line_does_and_shows_no_value(signed_in: SignedIn, project: str) -> None:
    page = paste(signed_in, project)
    rows = re.findall(r"<tr><td>(\d+)</td>.*?>(\w+)(?:</a>)?</th><td><span[^>]*>(\w+)</span>(.*?)</td>", page)
    assert [row[:3] for row in rows] == [
        ("1", "NEW", "new"),
        ("3", "SAME", "unchanged"),
        ("4", "OTHER", "replaced"),
        ("5", "smtp", "refused"),
    ]
    assert "structured secret" in rows[3][3]
    assert "1 new secret, 1 value replaced, 1 unchanged, 1 refused" in page
    assert "Import 2 secrets" in page
    assert "secret-1" not in page
    assert not by_owner(signed_in.vault, "secret_create")
    assert b"secret-1" not in b"".join(each.read_bytes() for each in signed_in.vault.directory.iterdir())


def test_an_import_changes_what_the_preview_said(signed_in: SignedIn, project: str) -> None:
    vault, page = signed_in.vault, paste(signed_in, project)
    path = signed_in.post(f"/projects/{project}/import/apply", token(page))
    assert path == f"/projects/{project}"
    assert "Imported the text: 1 new, 1 replaced, 1 unchanged, 1 refused." in signed_in.text(path)
    values = {
        row["name"]: vault.value(row["id"]) for row in desk(vault).call("GET", f"/v1/ai/projects/{project}/secrets")
    }
    assert (values["NEW"], values["SAME"], values["OTHER"]) == ("secret-1", "secret-2", "secret-3")
    assert by_owner(vault, "secret_create") == ["secret created as NEW"]
    assert by_owner(vault, "secret_update") == ["value replaced, now version 2"]
    # Once only: a second press of the button, or going back, imports nothing.
    again = signed_in.post(f"/projects/{project}/import/apply", token(page))
    assert again == f"/projects/{project}/import"
    assert "paste it again" in signed_in.text(again)


def test_an_import_waits_if_the_project_has_changed(signed_in: SignedIn, project: str) -> None:
    page = paste(signed_in, project)
    make_secret(signed_in.vault, project, "NEW", "somebody else's")
    reply = signed_in.send(f"/projects/{project}/import/apply", {"csrf": signed_in.csrf, **token(page)})
    again = reply.raw.decode()
    assert (reply.status, "has changed since the preview" in again) == (409, True)
    assert "0 new secrets, 2 values replaced" in again
    assert not by_owner(signed_in.vault, "secret_update")
    signed_in.post(f"/projects/{project}/import/apply", token(again))
    assert len(by_owner(signed_in.vault, "secret_update")) == 2


def test_a_failing_import_changes_nothing(signed_in: SignedIn, project: str) -> None:
    vault, page = signed_in.vault, paste(signed_in, project)
    with vault.store.transaction() as db:  # the second change fails
        db.execute(
            "CREATE TEMP TRIGGER broken BEFORE INSERT ON secret_versions WHEN NEW.version = 2"
            " BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    assert signed_in.refused(f"/projects/{project}/import/apply", token(page))[0] == 500
    assert not by_owner(vault, "secret_create")
    assert "NEW" not in signed_in.text(f"/projects/{project}/names.txt")


def test_the_text_is_forgotten(signed_in: SignedIn, project: str) -> None:
    vault, preview = signed_in.vault, f"/projects/{project}/import/preview"
    page = paste(signed_in, project)
    assert SignedIn(vault).get(preview).status == 303  # not in another session
    assert signed_in.get(f"/projects/{make_project(vault, 'Other')}/import/preview").status == 303
    paste(signed_in, project, "ONLY=x")  # the latest one replaces the one before
    assert signed_in.post(f"/projects/{project}/import/apply", token(page)).endswith("/import")
    paste(signed_in, project)
    vault.clock.advance(imports.DRAFT_LIFE_MS // 1000)
    assert signed_in.get(preview).status == 303
    paste(signed_in, project)
    signed_in.post(f"/projects/{project}/import/cancel")
    assert signed_in.get(preview).status == 303
    paste(signed_in, project)
    session = vault.sessions.find(signed_in.cookie.partition("=")[2])
    assert session is not None
    vault.clock.advance(imports.DRAFT_LIFE_MS // 1000)
    vault.sessions.find("anything")  # a request of somebody else
    assert not session._kept
    paste(signed_in, project)
    vault.store.seal(vault.clock())
    signed_in.get("")
    vault.store.unseal(vault.clock(), None)
    assert signed_in.get(preview).status == 303


def test_lines_that_cannot_be_read_are_named_by_number(signed_in: SignedIn, project: str) -> None:
    wrong = 'GOOD=secret-1\nno-equals-secret-2\nQ="secret-3\nGOOD=secret-4\n'
    reply = signed_in.send(f"/projects/{project}/import", {"csrf": signed_in.csrf, "text": wrong})
    page = reply.raw.decode()
    assert reply.status == 400
    assert "Line 2 is not NAME=value." in page
    assert "secret-" not in page
    for text, said in (("", "no NAME=value"), ("# x\n", "no NAME=value"), ("A1=x\n", "")):
        reply = signed_in.send(f"/projects/{project}/import", {"csrf": signed_in.csrf, "text": text})
        assert (reply.status == 303) if not said else said in reply.raw.decode(), text
    many = "".join(f"N{number}=x\n" for number in range(imports.MAX_ENTRIES + 1))
    assert "at most 1,000" in signed_in.refused(f"/projects/{project}/import", {"text": many})[1]
    assert signed_in.refused(f"/projects/{project}/import", {"text": "x" * 300_000})[0] == 413


def test_names_are_exported_and_no_values(signed_in: SignedIn, project: str) -> None:
    make_secret(signed_in.vault, project, "=cmd()|x", "secret-9")
    make_secret(signed_in.vault, project, "two\nlines\u202e", "secret-9")
    text = signed_in.get(f"/projects/{project}/names.txt")
    assert text.headers["content-disposition"] == 'attachment; filename="secrets.txt"'
    assert text.raw.decode().splitlines() == ["=cmd()|x", "OTHER", "SAME", "smtp", "two\\nlines\\u202e"]
    table = signed_in.get(f"/projects/{project}/names.csv").raw.decode()
    rows = list(csv.reader(io.StringIO(table)))
    assert rows[0] == ["name", "type", "version", "id"]
    assert rows[1][:3] == ["'=cmd()|x", "secret", "1"]
    assert len(rows) == 6
    assert "secret-" not in table


def test_hostile_names_are_shown_as_text(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault, HOSTILE)
    for page in (signed_in.text(f"/projects/{project}/import"), paste(signed_in, project, "A=<script>")):
        assert SHOWN in page
        assert "<script>" not in page


def test_a_person_imports_a_file(browser: Browser, vault: Vault, project: str, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(TEXT)
    browser.open(f"/projects/{project}/import")
    browser.one("#file").send_keys(str(file))
    browser.until(lambda: browser.one("#text").get_attribute("value") == TEXT)
    browser.press("Preview")
    browser.until(lambda: "Preview of the import" in browser.main)
    assert "secret-" not in browser.driver.page_source
    browser.press("Import 2 secrets")
    browser.until(lambda: "1 new, 1 replaced" in browser.main)
    assert by_owner(vault, "secret_create") == ["secret created as NEW"]
