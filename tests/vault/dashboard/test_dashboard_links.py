"""One-time links: made, shown once, destroyed."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tests.vault.support.dashboard import SignedIn
from tests.vault.support.dashboard_data import HOSTILE, SHOWN, by_owner, make_project
from tests.vault.support.served_vault import Reply, exchange


def opened(signed_in: SignedIn, page: str) -> Reply:
    """What the person sees who got the link and the passphrase."""
    found = dict(re.findall(r'id="(url|passphrase)"[^>]*>([^<]+)<', page))
    body = f"passphrase={found['passphrase']}".encode()
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    return exchange(signed_in.vault.port, "POST", urlsplit(found["url"]).path, body, headers)


def make(signed_in: SignedIn, project: str, **changed: str) -> str:
    """The page that shows a new link."""
    form = {"kind": "typed", "project": project, "name": "Wifi", "value": "secret-1\r\n", "life": "3600", **changed}
    reply = signed_in.send("/links/new", {"csrf": signed_in.csrf, **form})
    assert reply.status == 200, reply
    return reply.raw.decode()


def test_without_projects_and_without_links(signed_in: SignedIn) -> None:
    assert "No one-time links" in signed_in.text("/links")
    assert 'href="/dashboard/projects/new"' in signed_in.text("/links/new")
    project = make_project(signed_in.vault)
    assert "No one-time links in this project" in signed_in.text(f"/projects/{project}/links")
    assert f'<option value="{project}" selected>' in signed_in.text(f"/links/new?project={project}")


def test_a_link_is_shown_once_and_opens_once(signed_in: SignedIn) -> None:
    vault, project = signed_in.vault, make_project(signed_in.vault)
    page = make(signed_in, project)
    assert f"http://127.0.0.1:{vault.port}/s/" in page
    assert "secret-1" not in page
    assert "White space at the ends of the value was removed" in page
    listed = signed_in.text("/links")
    assert "in 1 hour" in listed
    assert "/s/" not in listed
    assert b"\nsecret-1</pre>" in opened(signed_in, page).raw
    assert opened(signed_in, page).status == 410
    assert "viewed" in signed_in.text(f"/projects/{project}/links")
    assert len(by_owner(vault, "temporary_secret_create")) == 1


def test_a_value_that_the_vault_generates(signed_in: SignedIn) -> None:
    page = make(signed_in, make_project(signed_in.vault), kind="generated", length="30", charset="numbers", value="")
    assert re.search(rb"\n[0-9]{30}</pre>", opened(signed_in, page).raw)


def test_a_link_is_destroyed(signed_in: SignedIn) -> None:
    vault = signed_in.vault
    page = make(signed_in, make_project(vault))
    found = re.search(r'action="/dashboard(/links/[^/]+/destroy)"', signed_in.text("/links"))
    assert found
    signed_in.post(found[1])
    assert "Destroyed Wifi." in signed_in.text("/links")
    assert opened(signed_in, page).status == 410
    assert signed_in.refused(found[1])[0] == 409
    assert signed_in.refused("/links/ts_x/destroy")[0] == 404
    assert len(by_owner(vault, "temporary_secret_destroy")) == 1


def test_what_a_link_refuses(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault)
    for changed, status, said in (
        ({"name": ""}, 400, "Name must be"),
        ({"value": " "}, 400, "The value is empty"),
        ({"value": "secret-1\0x"}, 400, "must not contain the character NUL"),
        ({"kind": "generated", "length": "0"}, 400, "Length must be an integer from 1"),
        ({"life": "59"}, 400, "The time until it ends, in seconds, must be"),
        ({"life": ""}, 400, "The time until it ends, in seconds, must be"),
        ({"project": "proj_x"}, 404, "No such project"),
        ({"project": "../x"}, 404, "Not found"),
    ):
        form = {"kind": "typed", "project": project, "name": "Wifi", "value": "secret-1", "life": "3600", **changed}
        reply = signed_in.send("/links/new", {"csrf": signed_in.csrf, **form})
        assert (reply.status, said in reply.raw.decode()) == (status, True), (changed, reply)
        assert b"secret-1" not in reply.raw, changed


def test_hostile_names_are_shown_as_text(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault, HOSTILE)
    pages = [make(signed_in, project, name=HOSTILE)]
    pages += [signed_in.text(path) for path in ("/links", f"/projects/{project}/links", "/links/new")]
    for page in pages:
        assert SHOWN in page
        assert "<script>" not in page
