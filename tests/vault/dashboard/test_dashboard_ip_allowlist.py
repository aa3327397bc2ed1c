"""The dashboard's page about the IP allowlist."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from tests.vault.support.dashboard import SignedIn
from tests.vault.support.dashboard_data import by_owner
from tests.vault.support.machines import Machine, granted_machine
from tests.vault.support.pages import HOSTILE, is_harmless, message
from tests.vault.support.served_vault import Agent, Vault
from vault.dashboard.queries.listings import PAGE_SIZE
from vault.domains.ip_allowlist import Networks

LIST = "/v1/ai/ipallowlist"


def seen_machine(vault: Vault, agent: Agent) -> tuple[Machine, str]:
    """A machine that has read a secret from 127.0.0.1, and the secret."""
    secret = agent.secret(agent.project(), "v")
    machine = granted_machine(vault, secret)
    machine.value(secret)
    return machine, secret


def entry(agent: Agent, cidr: str, **more: Any) -> str:
    return str(agent.post(LIST, {"cidr": cidr, **more})["id"])


def text(page: str) -> str:
    """The visible text, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_entries_are_added_labelled_and_deleted(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    assert "None yet." in signed_in.text("/ip-allowlist")
    assert signed_in.post("/ip-allowlist/add", {"cidr": " 10.1.2.3/8", "label": "office"}) == "/ip-allowlist"
    assert message(signed_in.text("/ip-allowlist")) == "Added 10.0.0.0/8."
    added = agent.get(LIST)["entries"][0]
    assert signed_in.post(f"/ip-allowlist/{added['id']}/update", {"label": "VPN"}) == "/ip-allowlist"
    assert 'value="VPN"' in signed_in.text("/ip-allowlist")
    assert signed_in.post(f"/ip-allowlist/{added['id']}/delete") == "/ip-allowlist"
    assert agent.get(LIST)["entries"] == []
    assert by_owner(vault, "ip_allowlist_add") == ["10.0.0.0/8 added"]
    assert by_owner(vault, "ip_allowlist_update") == ["label of 10.0.0.0/8 replaced"]
    assert by_owner(vault, "ip_allowlist_delete") == ["10.0.0.0/8 removed"]


def test_a_refused_entry_stays_in_the_form(signed_in: SignedIn, agent: Agent) -> None:
    entry(agent, "10.0.0.0/8")
    for cidr, problem in (
        ("here", "The network must be an IPv4 or IPv6 network such as 203.0.113.0/24."),
        ("10.0.0.0/8", "The network is already on the IP allowlist."),
    ):
        reply = signed_in.send("/ip-allowlist/add", {"csrf": signed_in.csrf, "cidr": cidr, "label": "lab"})
        page = reply.raw.decode()
        assert (reply.status, problem in page) == (400, True), cidr
        assert (f'value="{cidr}"' in page, 'value="lab"' in page) == (True, True), cidr


def test_enabling_asks_first_if_it_refuses_machines(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    machine, secret = seen_machine(vault, agent)
    entry(agent, "10.0.0.0/8")
    assert "it refuses these machines" in signed_in.text("/ip-allowlist")
    reply = signed_in.send("/ip-allowlist/enable", {"csrf": signed_in.csrf})
    assert reply.status == 409
    assert "Enable the list? The list would then refuse these machines" in text(reply.raw.decode())
    assert "web-1 from 127.0.0.1" in text(reply.raw.decode())
    assert not agent.get(LIST)["enabled"]
    assert signed_in.post("/ip-allowlist/enable", {"anyway": "yes"}) == "/ip-allowlist"
    assert machine.read(secret).status == 403
    assert "that the list refuses" in signed_in.text("/ip-allowlist")
    assert signed_in.post("/ip-allowlist/disable") == "/ip-allowlist"
    assert machine.read(secret).status == 200
    assert by_owner(vault, "ip_allowlist_enable") == ["IP allowlist enabled"]
    assert by_owner(vault, "ip_allowlist_disable") == ["IP allowlist disabled"]


def test_enabling_an_empty_list_asks_first(signed_in: SignedIn, agent: Agent) -> None:
    reply = signed_in.send("/ip-allowlist/enable", {"csrf": signed_in.csrf})
    assert (reply.status, "refuse every machine" in text(reply.raw.decode())) == (409, True)
    assert not agent.get(LIST)["enabled"]


def test_enabling_needs_no_question_if_every_machine_passes(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    seen_machine(vault, agent)
    entry(agent, "127.0.0.1")
    assert signed_in.post("/ip-allowlist/enable") == "/ip-allowlist"
    page = signed_in.text("/ip-allowlist")
    assert "The list is enabled" in message(page)
    assert "that the list refuses" not in page


def test_deleting_asks_first_if_it_refuses_machines(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    seen_machine(vault, agent)
    needed, spare = entry(agent, "127.0.0.0/8"), entry(agent, "10.0.0.0/8")
    agent.post(f"{LIST}/enable")
    assert signed_in.post(f"/ip-allowlist/{spare}/delete") == "/ip-allowlist"
    for _ in range(2):
        reply = signed_in.send(f"/ip-allowlist/{needed}/delete", {"csrf": signed_in.csrf})
        assert (reply.status, "Delete 127.0.0.0/8?" in reply.raw.decode()) == (409, True)
        entry(agent, f"10.0.{_}.0/24")  # the second time, the list would not be empty
    assert signed_in.post(f"/ip-allowlist/{needed}/delete", {"anyway": "yes"}) == "/ip-allowlist"
    assert needed not in [each["id"] for each in agent.get(LIST)["entries"]]
    assert signed_in.refused("/ip-allowlist/ip_x/delete")[0] == 404


def test_an_address_is_tried(signed_in: SignedIn, agent: Agent) -> None:
    entry(agent, "10.0.0.0/8", label="office")
    entry(agent, "2001:db8::/32")
    for address, verdict in (
        ("10.2.3.4", "passes 10.2.3.4 is in 10.0.0.0/8 (office)."),
        ("::ffff:10.2.3.4", "passes ::ffff:10.2.3.4 is in 10.0.0.0/8 (office)."),
        ("2001:DB8::1", "passes 2001:DB8::1 is in 2001:db8::/32 ."),
        ("11.2.3.4", "but the list is disabled"),
        ("10.0.0.0/8", "This is not an IP address."),
    ):
        assert verdict in text(signed_in.text(f"/ip-allowlist?address={address}")), address
    agent.post(f"{LIST}/enable")
    assert "refused 11.2.3.4 is in no entry." in text(signed_in.text("/ip-allowlist?address=11.2.3.4"))


def test_networks_know_their_addresses() -> None:
    networks = Networks(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "::ffff:198.51.100.0/120", "2001:db8::/32"])
    for address in ("10.255.255.255", "10.0.0.0", "192.0.2.1", "198.51.100.9", "2001:db8::1", "::ffff:10.0.0.1"):
        assert address in networks, address
    for address in ("9.255.255.255", "11.0.0.0", "192.0.2.2", "2001:db9::", "::", "here", ""):
        assert address not in networks, address
    assert "10.0.0.1" not in Networks([])


def test_entries_have_pages(signed_in: SignedIn, agent: Agent) -> None:
    for n in range(PAGE_SIZE + 1):
        entry(agent, f"10.0.{n}.0/24")
    assert signed_in.text("/ip-allowlist?page=2").count('<th scope="row">') == 1


def test_hostile_labels_and_names_are_only_text(vault: Vault, signed_in: SignedIn, agent: Agent) -> None:
    entry(agent, "10.0.0.0/8", label=HOSTILE)
    machine, _ = seen_machine(vault, agent)
    agent.post(f"/v1/ai/machines/{machine.id}/rename", {"name": HOSTILE})
    assert is_harmless(signed_in.text("/ip-allowlist?address=10.1.1.1"))
