"""The pages of projects, and the search over all projects."""

from __future__ import annotations

import re

from tests.vault.support.dashboard import SignedIn
from tests.vault.support.dashboard_data import HOSTILE, SHOWN, by_owner, make_project, make_secret
from vault.dashboard.queries.listings import PAGE_SIZE


def test_a_vault_without_projects_says_how_to_make_one(signed_in: SignedIn) -> None:
    page = signed_in.text("/projects")
    assert "No projects yet" in page
    assert 'href="/dashboard/projects/new"' in page


def test_a_project_is_created_and_listed(signed_in: SignedIn) -> None:
    path = signed_in.post("/projects/new", {"name": " Webshop ", "description": "Payments"})
    page = signed_in.text(path)
    assert "Created Webshop." in page
    assert "No secrets yet" in page
    assert "Payments" in signed_in.text("/projects")
    assert by_owner(signed_in.vault, "project_create") == [f"project {path.rpartition('/')[2]} created as Webshop"]
    status, message = signed_in.refused("/projects/new", {"name": "x" * 101, "description": "kept"})
    assert (status, message) == (400, "Name must be a string of 1 to 100 characters.")
    reply = signed_in.send("/projects/new", {"csrf": signed_in.csrf, "name": "", "description": "kept"})
    assert "kept</textarea>" in reply.raw.decode()


def test_a_project_is_renamed(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault)
    path = signed_in.post(f"/projects/{project}/settings", {"name": "Shop", "description": "New"})
    page = signed_in.text(path)
    assert "Saved Shop." in page
    assert 'value="Shop"' in page
    assert len(by_owner(signed_in.vault, "project_update")) == 1
    status, message = signed_in.refused(f"/projects/{project}/settings", {"name": "", "description": "New"})
    assert (status, message) == (400, "Name must be a string of 1 to 100 characters.")


def test_a_project_is_deleted_after_its_name_is_typed(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault, HOSTILE)
    make_secret(signed_in.vault, project)
    page = signed_in.text(f"/projects/{project}/settings")
    assert "<li>1 secret</li>" in page
    assert "<li>1 version</li>" in page
    status, message = signed_in.refused(f"/projects/{project}/delete", {"confirm": "Webshop"})
    assert (status, message) == (400, "This is not the name of the project: nothing was deleted.")
    # Nobody can type a hidden character, so the name counts as the page shows it.
    path = signed_in.post(f"/projects/{project}/delete", {"confirm": HOSTILE.replace("\u202e", "\\u202e")})
    assert "with everything in it" in signed_in.text(path)
    assert signed_in.get(f"/projects/{project}").status == 404
    assert len(by_owner(signed_in.vault, "project_delete")) == 1


def test_secrets_are_listed_by_name_fifty_a_page_and_found_by_a_part_of_it(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault)
    for number in range(PAGE_SIZE + 1):
        make_secret(signed_in.vault, project, f"key_{number:02}")
    first = signed_in.text(f"/projects/{project}")
    names = re.findall(r">(key_\d\d)</a>", first)
    assert names == [f"key_{number:02}" for number in range(PAGE_SIZE)]
    assert "Page 1 of 2" in first
    for page in ("2", "99"):
        assert re.findall(r">(key_\d\d)</a>", signed_in.text(f"/projects/{project}?page={page}")) == ["key_50"]
    for page in ("0", "-1", "x", "1" * 30, "%D9%A1"):
        assert signed_in.get(f"/projects/{project}?page={page}").status == 200, page
    assert re.findall(r">(key_\d\d)</a>", signed_in.text(f"/projects/{project}?name=Y_1")) == [
        f"key_{number}" for number in range(10, 20)
    ]
    assert "No secret matches" in signed_in.text(f"/projects/{project}?name=nothing")


def test_the_search_covers_all_projects(signed_in: SignedIn) -> None:
    for name in ("Shop", "Mail"):
        make_secret(signed_in.vault, make_project(signed_in.vault, name), f"{name}_TOKEN")
    page = signed_in.text("/search?name=token")
    assert "2 secrets in all projects" in page
    assert page.index("Mail_TOKEN") < page.index("Shop_TOKEN")
    assert "No secret matches" in signed_in.text("/search?name=%25")
    assert "Type part of a name" in signed_in.text("/search")
    assert "&lt;script&gt;" in signed_in.text("/search?name=%3Cscript%3E")


def test_hostile_names_are_shown_as_text(signed_in: SignedIn) -> None:
    project = make_project(signed_in.vault, HOSTILE, description=HOSTILE)
    secret = make_secret(signed_in.vault, project, HOSTILE)
    for path in ("/projects", f"/projects/{project}", f"/projects/{project}/settings", "/search?name=script"):
        page = signed_in.text(path)
        assert SHOWN in page, path
        assert "<script>" not in page, path
    assert f'/secrets/{secret}"' in page


def test_what_does_not_exist_is_not_found(signed_in: SignedIn) -> None:
    for path in ("/projects/proj_x", "/projects/proj_x/settings", "/projects/%00", "/projects/proj_x%2f..%2fy"):
        assert signed_in.get(path).status == 404, path
    assert signed_in.refused("/projects/proj_x/delete", {"confirm": ""})[0] == 404
    assert signed_in.refused("/projects/proj_x/unfreeze")[0] == 404
