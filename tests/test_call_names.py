"""`call` with names in place of ids: what they mean, what is refused, and what a person is asked and told in names."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

import sikkerkey_identity
import sikkerkey_mcp
from sikkerkey_actions import path_parameters
from sikkerkey_cli import names, questions, terminal
from sikkerkey_cli.matching import Thing, choose, replace_agent_names
from sikkerkey_cli.terminal import UsageError
from tests.support.harness import AGENT_ID, CannedResponse, ReceivedRequest, Recorder, make_slot
from tests.support.rows import each_of
from tests.support.shell import Shell
from tests.support.table_calls import ROWS

USAGE = 2
WEBSHOP, BILLING = "proj_0000000000000001", "proj_0000000000000002"
DATABASE, STRIPE, OTHER = "sk_0000000000000001", "sk_0000000000000002", "sk_1111111111111111"
WEB, WORKER = "00000000-0000-4000-8000-000000000001", "10000000-0000-4000-8000-000000000001"
POLICY = "pol_0000000000000001"
LISTS: dict[str, Any] = {
    "projects": [{"id": WEBSHOP, "name": "Webshop"}, {"id": BILLING, "name": "Billing & more"}],
    f"projects/{WEBSHOP}/secrets": [
        {"id": DATABASE, "name": "DATABASE_PASSWORD"},
        {"id": STRIPE, "name": "STRIPE_API_KEY"},
        {"id": OTHER, "name": "stripe_api_key"},
        {"id": "sk_2222222222222222", "name": "app_databasepassword"},
    ],
    f"projects/{BILLING}/secrets": [{"id": OTHER, "name": "DATABASE_PASSWORD"}],
    f"projects/{WEBSHOP}/policies": [{"id": POLICY, "name": "Office hours"}],
    f"projects/{WEBSHOP}/machines/query": {"machines": [{"id": WEB, "name": "web-1"}], "total": 1},
    "machines": [{"id": WEB, "name": "web-1"}, {"id": WORKER, "name": "worker-1"}],
    "trash": [{"id": OTHER, "name": "OLD"}],
    "team": {"members": [{"memberId": "mem_0000000000000001", "email": "kim@example.com"}], "invites": []},
    "ticket-categories": [{"id": "bug", "name": "Something does not work"}],
    "ai-agents": [{"id": AGENT_ID, "name": "my laptop"}, {"id": "nameless"}],
}


@pytest.fixture
def vault(home: Path, recorder: Recorder) -> Recorder:
    """A vault with LISTS; every other request is answered with an object."""

    def answer(seen: ReceivedRequest) -> CannedResponse:
        found = LISTS.get(seen.path.removeprefix("/v1/ai/"), {"ok": True})
        return CannedResponse(body=json.dumps(found).encode())

    make_slot(home, recorder.url, name="my laptop")
    recorder.answer = answer
    return recorder


def sent(vault: Recorder) -> tuple[str, Any]:
    """The path of the last request below /v1/ai, and its body."""
    last = vault.seen[-1]
    return last.path.removeprefix("/v1/ai/"), last.json() if last.body else None


# which list


def test_each_id_argument_is_looked_up_where_the_table_says() -> None:
    without = {"attachmentId"}  # nothing lists attachments
    for row in ROWS:
        for arg in filter(names.is_id_argument, row.action.args):
            listing = names.listing_for(row.action, arg)
            assert (listing is None) is (arg.name in without), (row, arg.name)
            if listing:
                assert listing.action.effect == "read", (row, arg.name)
                assert listing.action.rows, (row, arg.name)
                assert set(path_parameters(listing.action.path)) <= {"projectId"}, (row, arg.name)


def test_lists_are_the_nearest_ones() -> None:
    for tool, action, argument, found in (
        ("manage_secrets", "delete", "secretId", "manage_secrets.list"),
        ("manage_secrets", "dynamic_update", "secretId", "manage_secrets.dynamic_list"),
        ("manage_secrets", "dynamic_create", "existingSecretId", "manage_secrets.list"),
        ("manage_trash", "restore", "secretId", "manage_trash.list"),
        ("manage_policies", "binding_bind", "policyId", "manage_policies.list"),
        ("manage_policies", "create", "coSignMachineId", "manage_machines.list"),
        ("manage_canaries", "disable", "canaryId", "manage_canaries.list"),
        ("manage_project_machines", "attach", "machineId", "manage_machines.list"),
        ("manage_project_machines", "detach", "machineId", "manage_project_machines.query"),
        ("manage_enrollment", "create", "secretIds", "manage_secrets.list"),
        ("manage_team", "permissions_set", "memberId", "manage_team.list"),
        ("manage_ipallowlist", "bulk_delete", "entryIds", "manage_ipallowlist.list"),
        ("support", "reply", "ticketId", "support.list"),
        ("review", "coverage", "projectId", "manage_projects.list"),
    ):
        row = sikkerkey_mcp.find_row(tool, action)[1]
        listing = names.listing_for(row, next(arg for arg in row.args if arg.name == argument))
        assert listing, (tool, action)
        assert f"{listing.tool.name}.{listing.action.name}" == found, (tool, action)


def test_short_words_hide_no_argument() -> None:
    for row in ROWS:
        words = names.arguments_by_word(row.action)
        for arg in row.action.args:
            assert words.get(arg.name, arg) == arg, (row, arg.name)


# what a name means


def test_names_and_beginnings_of_ids_stand_for_ids(shell: Shell, vault: Recorder) -> None:
    for words, path in (
        (("get", "project=Webshop", "secret=DATABASE_PASSWORD"), f"projects/{WEBSHOP}/secrets/{DATABASE}"),
        (("get", "projectId=Webshop", "secretId=DATABASE_PASSWORD"), f"projects/{WEBSHOP}/secrets/{DATABASE}"),
        (("get", "project=billing & MORE", "secret=database_password"), f"projects/{BILLING}/secrets/{OTHER}"),
        (("get", "project=Webshop", "secret=STRIPE_API_KEY"), f"projects/{WEBSHOP}/secrets/{STRIPE}"),
        (("get", "project=Webshop", "secret=stripe_api_key"), f"projects/{WEBSHOP}/secrets/{OTHER}"),
        (("get", "project=Webshop", "secret=sk_11"), f"projects/{WEBSHOP}/secrets/{OTHER}"),
        (("get", f"project={WEBSHOP}", f"secret={OTHER}"), f"projects/{WEBSHOP}/secrets/{OTHER}"),
    ):
        ran = shell("call", "manage_secrets", *words)
        assert (ran.status, ran.err, sent(vault)[0]) == (0, "", path), words


def test_complete_ids_are_not_looked_up(shell: Shell, vault: Recorder) -> None:
    assert shell("call", "manage_secrets", "get", f"projectId={WEBSHOP}", f"secretId={DATABASE}").status == 0
    assert len(vault.seen) == 1


def test_a_name_in_the_form_of_an_id_is_looked_up(shell: Shell, vault: Recorder) -> None:
    assert shell("call", "manage_secrets", "get", f"projectId={WEBSHOP}", "secret=app_databasepassword").status == 0
    assert sent(vault)[0] == f"projects/{WEBSHOP}/secrets/sk_2222222222222222"


def test_each_list_is_read_once(shell: Shell, vault: Recorder) -> None:
    words = ("project=Webshop", "machine=web-1", "secrets=STRIPE_API_KEY,DATABASE_PASSWORD")
    ran = shell("call", "manage_project_machines", "grants_set", *words, "--yes")
    assert ran.err == "Replaced the secrets that the machine web-1 may read in Webshop.\n"
    path = f"projects/{WEBSHOP}/machines/{WEB}/grants"
    assert sent(vault) == (path, {"secretIds": [STRIPE, DATABASE]})
    paths = [seen.path for seen in vault.seen]
    assert sorted(set(paths[:3])) == sorted(paths[:3])


def test_lists_of_names_may_be_json(shell: Shell, vault: Recorder) -> None:
    words = (f"project={WEBSHOP}", f"machine={WEB}", "--yes")
    for given in (f'secrets=["STRIPE_API_KEY", "{OTHER}"]', f"secretIds=STRIPE_API_KEY, {OTHER}"):
        assert shell("call", "manage_project_machines", "grants_set", *words, given).status == 0, given
        assert sent(vault)[1] == {"secretIds": [STRIPE, OTHER]}, given
    assert shell("call", "manage_project_machines", "grants_set", *words, "secrets=[]").status == 0
    assert sent(vault)[1] == {"secretIds": []}


def test_a_project_may_be_given_only_to_look_something_up(shell: Shell, vault: Recorder) -> None:
    words = ("secret=STRIPE_API_KEY", "policy=Office hours")
    ran = shell("call", "manage_policies", "binding_bind", *words)
    hint = "add project=NAME, or give the complete id of the secret"
    message = "a secret is looked up in its project, which is not given"
    assert (ran.status, ran.err) == (USAGE, f"sikkerkey-mcp: error: {message}\nhint: {hint}\n")
    ran = shell("call", "manage_policies", "binding_bind", *words, "project=Webshop")
    assert (ran.status, ran.err) == (0, 'Bound the secret STRIPE_API_KEY to the policy "Office hours".\n')
    assert sent(vault) == (f"secrets/{STRIPE}/binding", {"policyId": POLICY})


def test_names_of_people_categories_and_agents(shell: Shell, vault: Recorder) -> None:
    assert shell("call", "manage_team", "remove", "member=kim@example.com", "--yes").status == 0
    assert sent(vault)[0] == "team/mem_0000000000000001/remove"
    ticket = ("priority=low", "title=t", "body=b")
    assert shell("call", "support", "create", "category=Something does not work", *ticket).status == 0
    assert sent(vault)[1]["categoryId"] == "bug"
    assert shell("call", "manage_ai_agents", "get", "agent=My laptop").status == 0
    assert sent(vault)[0] == f"ai-agents/{AGENT_ID}"


def test_unknown_and_ambiguous_names_are_wrong_usage_with_candidates(shell: Shell, vault: Recorder) -> None:
    for words, error, hint in (
        (("project=Webshp",), "projectId fits no project that can be seen here", f"similar: Webshop ({WEBSHOP})"),
        (
            ("project=zzz",),
            "projectId fits no project that can be",
            f"there are: Webshop ({WEBSHOP}), Billing & more (",
        ),
        (("project=proj_00",), "projectId fits 2 projects", f"give the id of one: Webshop ({WEBSHOP}), Billing & more"),
    ):
        ran = shell("call", "manage_secrets", "list", *words)
        assert (ran.status, ran.out) == (USAGE, ""), words
        assert ran.err.startswith(f"sikkerkey-mcp: error: {error}"), ran.err
        assert f"\nhint: {hint}" in ran.err, ran.err
        assert "zzz" not in ran.err
        assert [seen.path for seen in vault.seen] == ["/v1/ai/projects"]
        vault.seen.clear()


def test_nothing_is_guessed_for_a_destructive_call(shell: Shell, vault: Recorder) -> None:
    for project, secret in (("webshop", OTHER), ("Webshop", "sk_11"), ("Webshop", "Stripe_API_key")):
        words = (f"project={project}", f"secret={secret}")
        ran = shell("call", "manage_secrets", "delete", *words, "--yes")
        assert ran.status == USAGE, words
        assert " must be the exact name or id of the " in ran.err, ran.err
        assert "\nhint: similar: " in ran.err
    assert not any(seen.path.endswith("/delete") for seen in vault.seen)
    ran = shell("call", "manage_secrets", "delete", "project=Webshop", "secret=STRIPE_API_KEY", "--yes")
    assert (ran.status, ran.err) == (0, "Deleted the secret STRIPE_API_KEY in Webshop.\n")
    assert sent(vault)[0] == f"projects/{WEBSHOP}/secrets/{STRIPE}/delete"


def test_an_id_comes_before_a_name_that_looks_like_it() -> None:
    things = [Thing("short", "a"), Thing("other", "short")]
    assert choose("short", things, "secretId", "secret").id == "short"
    same = [Thing("1", "a"), Thing("2", "a"), *(Thing(str(number), "b") for number in range(10, 20))]
    with pytest.raises(UsageError, match=r"^secretId fits 2 secrets$"):
        choose("a", same, "secretId", "secret", exactly=True)
    with pytest.raises(UsageError) as many:
        choose("b", same, "secretId", "secret")
    assert many.value.hint == "give the id of one: b (10), b (11), b (12), b (13), b (14) and 5 more"


def test_names_of_others_are_cleaned_in_errors() -> None:
    with pytest.raises(UsageError) as refused:
        choose("web", [Thing("1", "web\x1b[2J\u202e" + "x" * 80)], "projectId", "project")
    assert refused.value.hint.startswith("similar: web<U+001B>[2J<U+202E>xxx")
    assert refused.value.hint.endswith("... (1)")


def test_without_the_scope_of_the_list_an_id_is_sent_as_it_is(shell: Shell, vault: Recorder) -> None:
    def answer(seen: ReceivedRequest) -> CannedResponse:
        return CannedResponse(403, b'{"error":"missing scope"}') if seen.path == "/v1/ai/machines" else CannedResponse()

    vault.answer = answer
    assert shell("call", "manage_machines", "get", "machine=m1").status == 0
    assert sent(vault)[0] == "machines/m1"
    ran = shell("call", "manage_machines", "get", "machine=a machine")
    assert ran.status == USAGE
    assert ran.err.startswith("sikkerkey-mcp: error: the name of the machine cannot be looked up: ")
    assert ran.err.endswith("\nhint: give its id: machineId=ID\n")


def test_restrictions_apply_to_lookups(shell: Shell, vault: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIKKERKEY_EXCLUDE", "manage_projects")
    ran = shell("call", "manage_secrets", "list", "project=Billing & more")
    assert (ran.status, vault.seen) == (USAGE, [])
    assert "manage_projects.list is withheld by SIKKERKEY_EXCLUDE" in ran.err


def test_the_vaults_pages_are_all_read(shell: Shell, vault: Recorder) -> None:
    rows = [{"id": f"{number:08}-0000-4000-8000-000000000000", "name": f"machine {number}"} for number in range(450)]

    def answer(seen: ReceivedRequest) -> CannedResponse:
        body = seen.json() if seen.body else {}
        first = 200 * (body.get("page", 1) - 1)
        page = {"machines": rows[first : first + 200], "total": len(rows)}
        return CannedResponse(body=json.dumps(page if seen.path.endswith("/query") else []).encode())

    vault.answer = answer
    found = shell("call", "manage_project_machines", "grants_get", f"project={WEBSHOP}", "machine=machine 444")
    assert (found.status, len(vault.seen)) == (0, 4)
    assert sent(vault)[0] == f"projects/{WEBSHOP}/machines/{rows[444]['id']}/secrets"


# the agents of this computer


def test_an_agent_is_chosen_by_its_name_or_the_beginning_of_its_id(shell: Shell, vault: Recorder, home: Path) -> None:
    make_slot(home, vault.url, "other", name="my server")
    for name in (AGENT_ID, AGENT_ID[:6], "my laptop", "My Laptop"):
        assert shell("call", "whoami", "--agent", name).status == 0, name
        assert vault.seen[-1].headers["x-agent-id"] == AGENT_ID, name
        assert shell("whoami", "--agent", name).out.startswith(AGENT_ID), name
    wrong = shell("call", "whoami", "--agent", "my lptop")
    hint = f"similar: my laptop ({AGENT_ID})"
    message = "--agent fits no agent that can be seen here"
    assert wrong == (USAGE, "", f"sikkerkey-mcp: error: {message}\nhint: {hint}\n")


def test_an_ambiguous_agent_is_not_guessed_and_revoke_needs_the_exact_name(
    shell: Shell, vault: Recorder, home: Path
) -> None:
    make_slot(home, vault.url, "other", name="My Laptop")
    assert shell("whoami", "--agent", "My Laptop").out.startswith("other ")
    assert "--agent fits 2 agents" in shell("whoami", "--agent", "MY LAPTOP").err
    for name in ("MY LAPTOP", "oth"):
        ran = shell("revoke", name, "--yes")
        assert (ran.status, "AGENT_ID must be the exact name" in ran.err or "AGENT_ID fits" in ran.err) == (USAGE, True)
    assert shell("revoke", "My Laptop", "--yes").status == 0
    assert sikkerkey_identity.installed_agents() == [AGENT_ID]


def test_an_agent_that_is_yet_to_be_installed_has_no_id(home: Path) -> None:
    make_slot(home, "https://vault.test", name="new")
    for command, agent, found in (("setup", "new", "new"), ("call", "new", AGENT_ID), ("doctor", "gone", "gone")):
        options = argparse.Namespace(command=command, agent=agent)
        replace_agent_names(options)
        assert options.agent == found, command


# questions and what is said afterwards


def wording(call: str, ask: names.Ask, known: dict[str, str] | None = None, **given: Any) -> questions.Wording:
    tool, _, action = call.partition(".")
    return questions.Wording(*sikkerkey_mcp.find_row(tool, action), given, known or {}, ask)


def nothing(_tool: str, _action: str, _arguments: Any) -> Any:
    raise sikkerkey_mcp.ServiceError("refused", status=403)


NAMES = {WEBSHOP: "Webshop", DATABASE: "DATABASE_PASSWORD", WEB: "web 1", STRIPE: "STRIPE_API_KEY"}
IN_WEBSHOP: dict[str, Any] = {"projectId": WEBSHOP, "secretId": DATABASE}


RESTORED = "It can be restored for 30 days."
FOR_GOOD = "This cannot be undone."


@each_of(
    ("call", "given", "question"),
    [
        ("manage_secrets.delete", IN_WEBSHOP, f"Delete the secret DATABASE_PASSWORD in Webshop? {RESTORED}"),
        (
            "manage_projects.delete",
            {"projectId": WEBSHOP},
            f"Delete the project Webshop with everything in it? {FOR_GOOD}",
        ),
        (
            "manage_trash.purge",
            {"secretId": DATABASE},
            f"Destroy the secret DATABASE_PASSWORD with all its versions? {FOR_GOOD}",
        ),
        ("manage_machines.deny", {"machineId": WEB}, 'Reject the machine "web 1"?'),
        ("manage_ipallowlist.disable", {}, "Turn the IP allowlist off? This turns off an alarm or a limit."),
        (
            "manage_ipallowlist.bulk_delete",
            {"entryIds": list("abcdefg")},
            "Remove a, b, c, d, e and 2 more from the IP allowlist?",
        ),
        (
            "manage_policies.update",
            {"projectId": WEBSHOP, "policyId": POLICY},
            f"Change the policy {POLICY} in Webshop?",
        ),
        (
            "manage_team.invite",
            {"email": "a@b"},
            "Invite a@b to this vault? This widens who can read or change secrets.",
        ),
    ],
)
def test_a_question_names_the_thing_and_what_follows(call: str, given: dict[str, Any], question: str) -> None:
    assert wording(call, nothing, NAMES, **given).question() == question


def test_only_what_cannot_be_undone_says_so() -> None:
    for row in ROWS:
        says = "undone" in row.action.warning + row.action.consequence
        final = any(word in row.action.text for word in ("for good", "Destroy"))
        assert says is (final and row.action.effect == "destructive"), row


def test_every_change_has_a_title_with_its_own_arguments() -> None:
    for row in ROWS:
        assert bool(row.action.title) is (row.action.effect != "read"), row
        assert not (row.action.warning and row.action.consequence), row
        placeholders = set(path_parameters(row.action.title))
        assert placeholders <= {arg.name for arg in row.action.args}, row
        verb = row.action.title.split(" ")[0]
        assert not verb or questions.past(verb).endswith(("ed", "t", "d", "w", "oze")), row


def test_a_question_costs_at_most_two_reads() -> None:
    asked: list[str] = []

    def ask(tool: str, action: str, _arguments: Any) -> Any:
        asked.append(f"{tool}.{action}")
        return {"items": [{"id": WEBSHOP, "name": "Webshop"}], "id": "x", "name": f"the {tool}"}

    for row in ROWS:
        if row.action.effect == "destructive":
            asked.clear()
            given = {arg.name: WEBSHOP if arg.kind == "id" else [] for arg in row.action.args}
            questions.Wording(row.tool, row.action, given, {}, ask).question()
            assert len(asked) <= 2, row
    question = wording("manage_secrets.delete", ask, **IN_WEBSHOP).question()
    assert question == 'Delete the secret "the manage_secrets" in Webshop? It can be restored for 30 days.'


def test_without_names_a_question_shows_ids() -> None:
    question = wording("manage_secrets.delete", nothing, **IN_WEBSHOP).question()
    assert question == f"Delete the secret {DATABASE} in {WEBSHOP}? It can be restored for 30 days."


def test_names_in_questions_are_cleaned_and_bounded() -> None:
    known = {DATABASE: "a\x1b[2J? [y/N] y" + "x" * 200, WEBSHOP: "b\u202e"}
    question = wording("manage_secrets.delete", nothing, known, **IN_WEBSHOP).question()
    assert question.startswith('Delete the secret "a<U+001B>[2J? [y/N] yxxx')
    assert question.endswith('..." in "b<U+202E>"? It can be restored for 30 days.')


def test_success_is_told_on_stderr_with_the_new_id(shell: Shell, vault: Recorder) -> None:
    lists = vault.answer

    def answer(seen: ReceivedRequest) -> CannedResponse:
        is_new = seen.path.endswith("/policies") and seen.method == "POST"
        return CannedResponse(body=b'{"id":"pol_9","name":"Nights"}') if is_new else lists(seen)

    vault.answer = answer
    ran = shell("call", "manage_policies", "create", "project=Webshop", "name=Nights")
    assert (ran.out, ran.err) == ('{"id":"pol_9","name":"Nights"}\n', "Created the policy Nights (pol_9) in Webshop.\n")
    ran = shell("call", "manage_secrets", "dynamic_create", f"existingSecretId={STRIPE}", "intervalSeconds=300")
    assert ran.err == "Secrets: dynamic_create succeeded.\n"
    for read in (("list", "project=Webshop"), ("get", "project=Webshop", "policy=Office hours")):
        assert shell("call", "manage_policies", *read).err == "", read
    assert shell("call", "manage_machines", "revoke", "machine=web-1", "preview=true").err == ""


def test_the_question_is_asked_in_names(shell: Shell, vault: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(prompt: str) -> str:
        asked.append(prompt)
        return "n"

    monkeypatch.setattr(terminal, "require_terminal", lambda *_words: None)
    monkeypatch.setattr(terminal, "ask", refuse)
    ran = shell("call", "manage_secrets", "delete", "project=Webshop", "secret=STRIPE_API_KEY")
    assert ran.err.startswith("sikkerkey-mcp: error: not confirmed; nothing was sent")
    assert asked == ["Delete the secret STRIPE_API_KEY in Webshop? It can be restored for 30 days. [y/N] "]
    assert len(vault.seen) == 2  # the two lists; their names are those of the question
