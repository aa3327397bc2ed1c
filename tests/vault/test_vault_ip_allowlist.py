"""The IP allowlist: its entries, its enabled flag, and whom it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vault.support.machines import TOKENS, enroll, enrolled_machine, token_body
from tests.vault.support.served_vault import START_MS, Agent, FakeClock, Vault
from vault.domains import ip_allowlist
from vault.domains.ip_allowlist import is_within, parse_network

LIST = "/v1/ai/ipallowlist"


def test_entries_are_normalized(agent: Agent, clock: FakeClock) -> None:
    added = []
    for given in ("203.0.113.7/24", "192.0.2.1", "2001:DB8::1/32", "::ffff:10.1.2.3/104"):
        added.append(agent.post(LIST, {"cidr": given, "label": given}))
        clock.advance(1)
    cidrs = ["203.0.113.0/24", "192.0.2.1/32", "2001:db8::/32", "10.0.0.0/8"]
    assert [entry["cidr"] for entry in added] == cidrs
    entries = [{**entry, "createdAt": START_MS + 1000 * place} for place, entry in enumerate(added)]
    assert agent.get(LIST) == {"enabled": False, "entries": entries}


def test_adding_a_listed_network_is_a_conflict(agent: Agent) -> None:
    agent.post(LIST, {"cidr": "10.0.0.0/8"})
    for again in ["10.0.0.0/8", "10.9.9.9/8", "::ffff:10.0.0.0/104", "10.0.0.0/255.0.0.0"]:
        reply = agent.send("POST", LIST, {"cidr": again})
        assert (reply.status, reply.error) == (409, "the network is already on the IP allowlist"), again
        assert len(agent.get(LIST)["entries"]) == 1, again


NO_NETWORKS = ["", "office", "10.0.0.0/33", "10.0.0/8", "2001:db8::/129", "fe80::1%eth0", "10.0.0.0/8/8"]


def test_an_invalid_network_is_refused(agent: Agent) -> None:
    for cidr in NO_NETWORKS:
        assert agent.send("POST", LIST, {"cidr": cidr}).status == 400, cidr
        assert agent.get(LIST)["entries"] == [], cidr


def test_the_number_of_entries_is_limited(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ip_allowlist, "MAX_ENTRIES", 2)
    for part in range(2):
        agent.post(LIST, {"cidr": f"10.0.{part}.0/24"})
    reply = agent.send("POST", LIST, {"cidr": "10.0.2.0/24"})
    assert (reply.status, reply.error) == (409, "the IP allowlist has 2 entries, which is the most")


def test_an_update_replaces_or_clears_the_label_and_nothing_else(vault: Vault, agent: Agent) -> None:
    entry = agent.post(LIST, {"cidr": "10.0.0.0/8", "label": "old"})
    path = f"{LIST}/{entry['id']}/update"
    assert agent.post(path, {"label": "new"}) == {**entry, "label": "new"}
    assert agent.get(LIST)["entries"] == [{**entry, "label": "new", "createdAt": START_MS}]
    assert agent.post(path, {"label": ""}) == agent.post(path, {}) == {**entry, "label": ""}
    assert agent.send("POST", path, {"cidr": "0.0.0.0/0"}).status == 400
    assert agent.get(LIST)["entries"] == [{**entry, "label": "", "createdAt": START_MS}]
    details = [row["detail"] for row in vault.audited("ip_allowlist_update")]
    assert details == ["label of 10.0.0.0/8 replaced", *["label of 10.0.0.0/8 cleared"] * 2]
    assert [row["detail"] for row in vault.audited("ip_allowlist_add")] == ["10.0.0.0/8 added"]


def test_deletes_remove_only_the_given_entries(vault: Vault, agent: Agent) -> None:
    one, two, three, four = (agent.post(LIST, {"cidr": f"10.0.{part}.0/24"}) for part in range(4))
    assert agent.post(f"{LIST}/{one['id']}/delete") == {"id": one["id"], "cidr": "10.0.0.0/24", "deleted": True}
    gone = agent.post(f"{LIST}/bulk-delete", {"entryIds": [three["id"], "ip_unknown", two["id"], three["id"]]})
    assert gone == {"deletedIds": [three["id"], two["id"]]}
    assert [entry["id"] for entry in agent.get(LIST)["entries"]] == [four["id"]]
    assert [row["detail"] for row in vault.audited("ip_allowlist_delete")] == [
        "10.0.0.0/24 removed",
        "10.0.2.0/24 removed",
        "10.0.1.0/24 removed",
    ]
    for tail in ("update", "delete"):
        assert agent.send("POST", f"{LIST}/{one['id']}/{tail}").error == "no such entry"


def test_enabling_and_disabling_is_audited_once(vault: Vault, agent: Agent) -> None:
    for path, state in (("enable", True), ("enable", True), ("disable", False), ("disable", False)):
        assert agent.post(f"{LIST}/{path}") == {"enabled": state}
        assert agent.get(LIST)["enabled"] is state
    assert [len(vault.audited(f"ip_allowlist_{action}")) for action in ("enable", "disable")] == [1, 1]


@pytest.mark.parametrize("entries", [[], ["203.0.113.0/24", "::1"]])
def test_an_enabled_list_refuses_machines_and_enrollments_from_other_addresses(
    vault: Vault, agent: Agent, entries: list[str]
) -> None:
    secret = agent.secret(agent.project(), "v")
    machine = enrolled_machine(vault, agent, [secret])
    token = agent.post(TOKENS, token_body())["token"]
    for cidr in entries:
        agent.post(LIST, {"cidr": cidr})
    assert machine.read(secret).status == 200
    agent.post(f"{LIST}/enable")
    for reply in (machine.read(secret), machine.send("GET", "/v1/secrets"), enroll(vault, token)):
        assert (reply.status, reply.json) == (403, {"error": "forbidden"})
    details = [row["detail"] for row in vault.audited("auth_failure")]
    assert len(details) == 3
    assert all(detail.endswith("the address is not on the IP allowlist") for detail in details)
    agent.post(f"{LIST}/disable")
    assert machine.read(secret).status == 200
    assert enroll(vault, token).status == 200


@pytest.mark.parametrize("cidr", ["127.0.0.0/8", "::ffff:127.0.0.1", "0.0.0.0/0"])
def test_an_enabled_list_admits_its_networks(vault: Vault, agent: Agent, cidr: str) -> None:
    secret = agent.secret(agent.project(), "v")
    machine = enrolled_machine(vault, agent, [secret])
    agent.post(LIST, {"cidr": cidr})
    agent.post(f"{LIST}/enable")
    assert machine.read(secret).json == {"value": "v"}


def test_an_agent_with_a_project_allowlist_is_refused(vault: Vault, agent: Agent) -> None:
    narrow = vault.agent(projects=[agent.project()])
    requests: list[tuple[str, str, Any]] = [
        ("GET", LIST, None),
        ("POST", LIST, {"cidr": "10.0.0.0/8"}),
        ("POST", f"{LIST}/x/update", {}),
        ("POST", f"{LIST}/x/delete", None),
        ("POST", f"{LIST}/enable", None),
        ("POST", f"{LIST}/disable", None),
        ("POST", f"{LIST}/bulk-delete", {"entryIds": []}),
    ]
    for method, path, body in requests:
        assert narrow.send(method, path, body).status == 403, path
    assert agent.get(LIST) == {"enabled": False, "entries": []}


def test_addresses_and_networks_are_normalized() -> None:
    for source_ip, cidr, expected in [
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "::ffff:10.0.0.0/104", True),
        ("10.1.2.3", "::/0", False),
        ("::1", "0.0.0.0/0", False),
        ("fe80::1%eth0", "fe80::/10", True),
        ("11.0.0.1", "10.0.0.0/8", False),
        ("testclient", "0.0.0.0/0", False),
        (None, "0.0.0.0/0", False),
    ]:
        assert is_within(source_ip, [parse_network(cidr)]) is expected, (source_ip, cidr, expected)
