"""What tests of the dashboard put into a vault as its owner, and how they look at its audit log."""

from __future__ import annotations

from typing import Any

from tests.vault.support.served_vault import Vault
from vault.desk import Desk

PROJECTS = "/v1/ai/projects"
# Markup, quotes, a character that reorders text, and what templates replace; and the same as a page shows it.
HOSTILE = "\"><script>alert(1)</script>\u202e'{{ 7 * 7 }}"
SHOWN = "&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u202e&#39;{{ 7 * 7 }}"


def desk(vault: Vault) -> Desk:
    """The owner's way to the API."""
    return Desk(vault.store, vault.clock)


def make_project(vault: Vault, name: str = "Webshop", **more: Any) -> str:
    """The id of a new project."""
    return str(desk(vault).call("POST", PROJECTS, {"name": name, **more})["id"])


def make_secret(vault: Vault, project_id: str, name: str = "DATABASE_URL", value: str = "value-1", **more: Any) -> str:
    """The id of a new secret."""
    body = {"name": name, "value": value, **more}
    return str(desk(vault).call("POST", f"{PROJECTS}/{project_id}/secrets", body)["id"])


def make_structured(vault: Vault, project_id: str, name: str = "smtp") -> str:
    """The id of a new secret with the fields user and password, which are value-u and value-p."""
    value = '{"user": "value-u", "password": "value-p"}'
    return make_secret(vault, project_id, name, value, fieldNames=["user", "password"])


def by_owner(vault: Vault, action: str) -> list[str]:
    """The details of the owner's entries with an action, from the browser's address."""
    found = vault.audited(action)
    return [each["detail"] for each in found if (each["user_id"], each["source_ip"]) == ("owner", "127.0.0.1")]
