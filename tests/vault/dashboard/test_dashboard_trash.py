"""The trash: of all projects, and of one."""

from __future__ import annotations

from tests.vault.support.dashboard import SignedIn
from tests.vault.support.dashboard_data import HOSTILE, SHOWN, by_owner, desk, make_project, make_secret
from tests.vault.support.machines import granted_machine
from vault.domains.secrets import TRASH_MS


def trashed(signed_in: SignedIn, project: str, name: str = "OLD") -> str:
    """The id of a secret that is in the trash."""
    secret = make_secret(signed_in.vault, project, name)
    desk(signed_in.vault).call("POST", f"/v1/ai/projects/{project}/secrets/{secret}/delete")
    return secret


def test_an_empty_trash(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault)
    assert "The trash is empty" in signed_in.text("/trash")
    assert "No secrets of this project" in signed_in.text(f"/projects/{project}/trash")


def test_a_secret_is_restored(signed_in: SignedIn) -> None:
    project, other = make_project(signed_in.vault), make_project(signed_in.vault, "Other")
    secret = trashed(signed_in, project)
    trashed(signed_in, other, "ELSEWHERE")
    page = signed_in.text("/trash")
    assert "OLD" in page
    assert "ELSEWHERE" in page
    assert "in 30 days, <time" in page
    assert "ELSEWHERE" not in signed_in.text(f"/projects/{project}/trash")
    path = signed_in.post(f"/trash/{secret}/restore")
    assert path == f"/projects/{project}/secrets/{secret}"
    assert "Restored OLD." in signed_in.text(path)
    assert by_owner(signed_in.vault, "secret_restore") == ["OLD restored from the trash"]
    assert signed_in.refused(f"/trash/{secret}/restore")[0] == 404


def test_a_secret_is_purged(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault)
    for field, path in (({"to": "trash"}, "/trash"), ({}, f"/projects/{project}/trash")):
        secret = trashed(signed_in, project)
        assert signed_in.post(f"/trash/{secret}/purge", field) == path
        assert "Purged OLD with all its versions." in signed_in.text(path)
        assert signed_in.refused(f"/trash/{secret}/purge")[0] == 404
    assert len(by_owner(signed_in.vault, "secret_purge")) == 2
    secret = make_secret(signed_in.vault, project)
    assert signed_in.refused(f"/trash/{secret}/purge")[0] == 404  # only what is in the trash


def test_a_secret_that_is_overdue(signed_in: SignedIn) -> None:
    trashed(signed_in, make_project(signed_in.vault))
    signed_in.vault.clock.advance(TRASH_MS // 1000)
    assert "now, <time" in SignedIn(signed_in.vault).text("/trash")


def test_nothing_is_restored_into_a_frozen_project(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    secret = trashed(signed_in, project)
    canary = desk(vault).call("POST", "/v1/ai/canaries", {"projectId": project, "name": "AWS"})["id"]
    granted_machine(vault, canary).read(canary)
    assert signed_in.refused(f"/trash/{secret}/restore")[0] == 423


def test_hostile_names_are_shown_as_text(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault, HOSTILE)
    trashed(signed_in, project, HOSTILE)
    for path in ("/trash", f"/projects/{project}/trash"):
        page = signed_in.text(path)
        assert SHOWN in page, path
        assert "<script>" not in page, path
