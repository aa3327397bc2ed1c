"""The 25 requests: what a person asks for, and the calls that a model makes, before and after.

`before` is the program at `tools/before.py`'s commit. There, a list is always whole, times are numbers, and there
is no `review`. Both give the same answer or have the same effect, and `check` compares that with the vault's database.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, NamedTuple

from tools.user_requests.data import DAY_MS, HOUR_MS, LOGIN_FIELDS, PENDING, PROJECTS, World
from tools.user_requests.play import Play, named, rows_of

Calls = Callable[[Play, World], Any]  # returns the answer to the person, None for a request that only has an effect


class Request(NamedTuple):
    """One request. `check` gets the answer and raises AssertionError if it, or the effect on the vault, is wrong."""

    text: str
    before: Calls
    after: Calls
    check: Callable[[World, Any], None]


def iso(at_ms: int) -> str:
    """A time as a model writes it."""
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def date(at_ms: int) -> str:
    """A date."""
    return iso(at_ms)[:10]


def project_before(play: Play, name: str) -> str:
    """A project's id."""
    return str(named(play("manage_projects", "list")["items"], name)["id"])


def project_after(play: Play, name: str) -> str:
    """A project's id."""
    return str(named(play("manage_projects", "list", search=name)["items"], name)["id"])


def secret_before(play: Play, project: str, name: str) -> dict[str, str]:
    """The ids of a project and one of its secrets, as arguments."""
    project_id = project_before(play, project)
    secrets = play("manage_secrets", "list", projectId=project_id)["items"]
    return {"projectId": project_id, "secretId": named(secrets, name)["id"]}


def secret_after(play: Play, project: str, name: str) -> dict[str, str]:
    """The ids of a project and one of its secrets, as arguments."""
    found = play.every("review", "find", name=name)
    [row] = [row for row in found if row["name"] == name and row.get("projectName") == project]
    return {"projectId": row["projectId"], "secretId": row["id"]}


STORED = "SELECT id FROM secrets WHERE kind != 'canary' AND deleted_ms IS NULL"


def projects_and_secrets(play: Play) -> dict[str, list[Any]]:
    """The secrets of every project, by the project's id."""
    projects = play("manage_projects", "list")["items"]
    return {each["id"]: play("manage_secrets", "list", projectId=each["id"])["items"] for each in projects}


# 1. rotate what is older than 90 days


def rotate_before(play: Play, world: World) -> None:
    """A value cannot be younger than `updatedAt`; where that is young, only the versions tell."""
    limit_ms = world.today_ms - 90 * DAY_MS
    for project, secrets in projects_and_secrets(play).items():
        for secret in secrets:
            ids = {"projectId": project, "secretId": secret["id"]}
            stored_ms = secret["updatedAt"]
            if stored_ms > limit_ms > secret["createdAt"]:
                stored_ms = play("manage_secrets", "versions", **ids)["items"][0]["createdAt"]
            if stored_ms <= limit_ms:
                play("manage_secrets", "rotate", **ids, **_password_only(secret))


def rotate_after(play: Play, _world: World) -> None:
    for secret in play.every("review", "stale_secrets"):
        ids = {"projectId": secret["projectId"], "secretId": secret["id"]}
        play("manage_secrets", "rotate", **ids, **_password_only(secret))


def _password_only(secret: Any) -> dict[str, Any]:
    return {"fields": ["password"]} if secret.get("fieldNames") else {}


def check_rotated(world: World, _answer: None) -> None:
    newest = "SELECT max(v.created_ms) FROM secrets s JOIN secret_versions v ON v.secret_id = s.id"
    times = world.column(f"{newest} WHERE s.deleted_ms IS NULL GROUP BY s.id")
    assert min(times) > world.today_ms - 90 * DAY_MS
    rotated = world.column("SELECT secret_id FROM secret_versions WHERE origin = 'rotate'")
    assert len(rotated) == 12
    login = json.loads(world.value(world.secret("Webshop", "DATABASE_LOGIN")))
    assert (login["user"], login["password"][:8] == "password") == (f"user 2 of {rotated[0]}", False)


# 2. who read X last night


def readers_before(play: Play, world: World) -> dict[str, int]:
    secret = secret_before(play, "Webshop", "STRIPE_API_KEY")["secretId"]
    since_ms, until_ms = _last_night(world)
    given: Any = {"actions": ["secret_read"], "from": since_ms, "to": until_ms, "pageSize": 200}
    reads = [entry for entry in play.every_page("read_audit", "query", **given) if entry["secretId"] == secret]
    names = {machine["id"]: machine["name"] for machine in play("manage_machines", "list")["items"]}
    return _counted(names[entry["machineId"]] for entry in reads)


def readers_after(play: Play, world: World) -> dict[str, int]:
    secret = secret_after(play, "Webshop", "STRIPE_API_KEY")["secretId"]
    since_ms, until_ms = _last_night(world)
    given: Any = {"secret": secret, "from": iso(since_ms), "to": iso(until_ms)}
    return _counted(entry["machineName"] for entry in play.every("review", "reads", **given))


def _last_night(world: World) -> tuple[int, int]:
    return world.today_ms - 6 * HOUR_MS, world.today_ms + 6 * HOUR_MS


def _counted(names: Iterable[str]) -> dict[str, int]:
    listed = list(names)
    return {name: listed.count(name) for name in sorted(set(listed))}


def check_readers(world: World, answer: Any) -> None:
    query = "SELECT m.name FROM audit a JOIN machines m ON m.id = a.machine_id WHERE a.action = 'secret_read'"
    names = world.column(f"{query} AND secret_id = ? AND a.created_ms BETWEEN ? AND ?",
                         world.secret("Webshop", "STRIPE_API_KEY"), *_last_night(world))  # fmt: skip
    assert answer == _counted(names) != {}


# 3. give CI exactly two secrets

CI_SECRETS = ("SENTRY_DSN", "S3_ACCESS_KEY")


def grant_ci_before(play: Play, _world: World) -> None:
    project = project_before(play, "Webshop")
    secrets = play("manage_secrets", "list", projectId=project)["items"]
    machines = play("manage_project_machines", "query", projectId=project)["machines"]
    _set_grants(play, project, named(machines, "webshop-ci-1")["id"], [named(secrets, each) for each in CI_SECRETS])


def grant_ci_after(play: Play, _world: World) -> None:
    project = project_after(play, "Webshop")
    secrets = play.every("manage_secrets", "list", projectId=project)
    machines = play("manage_project_machines", "query", projectId=project, search="ci")["machines"]
    _set_grants(play, project, named(machines, "webshop-ci-1")["id"], [named(secrets, each) for each in CI_SECRETS])


def _set_grants(play: Play, project: str, machine: str, secrets: Iterable[Any]) -> None:
    ids = [secret["id"] for secret in secrets]
    play("manage_project_machines", "grants_set", projectId=project, machineId=machine, secretIds=ids)


def granted_names(world: World, machine: str) -> set[str]:
    """The names of the secrets that a machine may read."""
    query = "SELECT s.name FROM grants g JOIN secrets s ON s.id = g.secret_id WHERE g.machine_id = ?"
    return set(world.column(query, world.machine(machine)))


def check_ci(world: World, _answer: None) -> None:
    assert granted_names(world, "webshop-ci-1") == set(CI_SECRETS)


# 4. approve a machine for all but one

WITHHELD = "ADMIN_PASSWORD"


def approve_before(play: Play, _world: World) -> None:
    machine = named(play("manage_machines", "list")["items"], PENDING)["id"]
    project = project_before(play, "Billing")
    secrets = play("manage_secrets", "list", projectId=project)["items"]
    play("manage_machines", "approve", machineId=machine)
    _set_grants(play, project, machine, [each for each in secrets if each["name"] != WITHHELD])


def approve_after(play: Play, _world: World) -> None:
    machine = named(play("manage_machines", "list", search=PENDING)["items"], PENDING)["id"]
    project = project_after(play, "Billing")
    secrets = play.every("manage_secrets", "list", projectId=project)
    play("manage_machines", "approve", machineId=machine)
    _set_grants(play, project, machine, [each for each in secrets if each["name"] != WITHHELD])


def check_approved(world: World, _answer: None) -> None:
    assert world.column("SELECT count(*) FROM machines WHERE name = ? AND approved_ms > 0", PENDING) == [1]
    others = "SELECT s.name FROM secrets s JOIN projects p ON p.id = s.project_id WHERE p.name = 'Billing'"
    assert granted_names(world, PENDING) == set(world.column(others)) - {WITHHELD}


# 5. plant a canary that works

DECOY = "AWS_ROOT_SECRET_KEY"


def canary_before(play: Play, _world: World) -> None:
    _plant(play, project_before(play, "Webshop"))


def canary_after(play: Play, _world: World) -> None:
    _plant(play, project_after(play, "Webshop"))


def _plant(play: Play, project: str) -> None:
    canary = play("manage_canaries", "create", projectId=project, name=DECOY)
    machines = play("manage_project_machines", "query", projectId=project)["machines"]
    ids = {"projectId": project, "machineId": named(machines, "webshop-web-1")["id"]}
    present = play("manage_project_machines", "grants_get", **ids)["items"]
    _set_grants(play, project, ids["machineId"], [*present, canary])


def check_canary(world: World, _answer: None) -> None:
    armed = "SELECT s.name FROM canaries c JOIN secrets s ON s.id = c.secret_id WHERE c.enabled AND c.freeze_project"
    assert world.column(armed) == [DECOY]
    granted = granted_names(world, "webshop-web-1")
    assert DECOY in granted
    assert len(granted) == 11


# 6. restore yesterday's deletion


def restore_before(play: Play, world: World) -> None:
    yesterday = range(world.today_ms - DAY_MS, world.today_ms)
    [deleted] = [row for row in play("manage_trash", "list")["items"] if row["deletedAt"] in yesterday]
    play("manage_trash", "restore", secretId=deleted["id"])


def restore_after(play: Play, world: World) -> None:
    yesterday = date(world.today_ms - DAY_MS)
    [deleted] = [row for row in play.every("manage_trash", "list") if row["deletedAt"][:10] == yesterday]
    play("manage_trash", "restore", secretId=deleted["id"])


def check_restored(world: World, _answer: None) -> None:
    trash = world.column("SELECT name FROM secrets WHERE deleted_ms IS NOT NULL ORDER BY name")
    assert trash == ["OLD_DSN", "OLD_SMTP_PASSWORD"]


# 7. share once with a contractor


def share_before(play: Play, _world: World) -> str:
    return _share(play, project_before(play, "Webshop"))


def share_after(play: Play, _world: World) -> str:
    return _share(play, project_after(play, "Webshop"))


def _share(play: Play, project: str) -> str:
    given = {"name": "for the contractor", "value": "a test account's password", "expiresInSeconds": 86_400}
    return str(play("manage_temporary_secrets", "create", projectId=project, **given)["url"])


def check_shared(world: World, answer: Any) -> None:
    assert re.match(r"https?://", answer)
    assert world.column("SELECT name FROM temporary_secrets") == ["for the contractor"]


# 8. which machines can read X


def access_before(play: Play, _world: World) -> list[str]:
    ids = secret_before(play, "Webshop", "STRIPE_API_KEY")
    found = []
    for machine in play("manage_project_machines", "query", projectId=ids["projectId"])["machines"]:
        given = {"projectId": ids["projectId"], "machineId": machine["id"]}
        granted = play("manage_project_machines", "grants_get", **given)["items"]
        if ids["secretId"] in {secret["id"] for secret in granted} and machine["state"] == "approved":
            found.append(machine["name"])
    policy = play("manage_policies", "binding_get", secretId=ids["secretId"])["policyId"]
    play("manage_policies", "get", projectId=ids["projectId"], policyId=policy)
    return sorted(found)


def access_after(play: Play, _world: World) -> list[str]:
    secret = secret_after(play, "Webshop", "STRIPE_API_KEY")["secretId"]
    machines = play.every("review", "access", secret=secret)
    return sorted(machine["name"] for machine in machines if machine["access"] in ("yes", "within policy"))


def check_access(world: World, answer: Any) -> None:
    query = "SELECT m.name FROM grants g JOIN machines m ON m.id = g.machine_id WHERE g.secret_id = ? ORDER BY m.name"
    assert answer == world.column(query, world.secret("Webshop", "STRIPE_API_KEY"))
    assert answer == ["webshop-web-1", "webshop-web-2", "webshop-worker-1"]


# 9. weekdays 8 to 18 only

OFFICE_HOURS = {
    "timeWindowEnabled": True, "timeWindowStart": "08:00", "timeWindowEnd": "18:00",
    "timeWindowTimezone": "Europe/Copenhagen", "timeWindowDays": ["mon", "tue", "wed", "thu", "fri"],
}  # fmt: skip


def weekdays_before(play: Play, _world: World) -> None:
    _limit_to_office_hours(play, secret_before(play, "Billing", "S3_SECRET_KEY"))


def weekdays_after(play: Play, _world: World) -> None:
    _limit_to_office_hours(play, secret_after(play, "Billing", "S3_SECRET_KEY"))


def _limit_to_office_hours(play: Play, ids: dict[str, str]) -> None:
    given = {"projectId": ids["projectId"], "name": "Weekdays 8 to 18", **OFFICE_HOURS}
    policy = play("manage_policies", "create", **given)["id"]
    play("manage_policies", "binding_bind", secretId=ids["secretId"], policyId=policy)


def check_weekdays(world: World, _answer: None) -> None:
    query = "SELECT p.rules FROM policy_bindings b JOIN policies p ON p.id = b.policy_id WHERE b.secret_id = ?"
    [rules] = world.column(query, world.secret("Billing", "S3_SECRET_KEY"))
    assert {name: json.loads(rules)[name] for name in OFFICE_HOURS} == OFFICE_HOURS


# 10. secrets without a policy


def without_policy_before(play: Play, _world: World) -> set[str]:
    found = set()
    for project, secrets in projects_and_secrets(play).items():
        policies = play("manage_policies", "list", projectId=project)["items"]
        answers = [play("manage_policies", "get", projectId=project, policyId=each["id"]) for each in policies]
        bound = {secret["id"] for answer in answers for secret in answer["boundSecrets"]}
        found |= {secret["id"] for secret in secrets if secret["id"] not in bound and secret["type"] != "canary"}
    return found


def without_policy_after(play: Play, _world: World) -> set[str]:
    return {item["id"] for item in play.every("review", "coverage", gaps=["policy"])}


def check_without_policy(world: World, answer: Any) -> None:
    bound = set(world.column("SELECT secret_id FROM policy_bindings"))
    assert answer == set(world.column(STORED)) - bound
    assert len(answer) > 50


# 11. rotate weekly

WEEK_S = 7 * 86_400


def weekly_before(play: Play, _world: World) -> None:
    _schedule(play, secret_before(play, "Support Desk", "GRAFANA_TOKEN")["secretId"])


def weekly_after(play: Play, _world: World) -> None:
    _schedule(play, secret_after(play, "Support Desk", "GRAFANA_TOKEN")["secretId"])


def _schedule(play: Play, secret: str) -> None:
    play("manage_secrets", "dynamic_create", existingSecretId=secret, intervalSeconds=WEEK_S)


def check_weekly(world: World, _answer: None) -> None:
    secret = world.secret("Support Desk", "GRAFANA_TOKEN")
    intervals = world.column("SELECT interval_s FROM rotation_schedules WHERE secret_id = ? AND enabled", secret)
    assert intervals == [WEEK_S]


# 12. generated password beside fixed user


def generated_before(play: Play, _world: World) -> None:
    _generate(play, project_before(play, "Webshop"), {"user": "report", "host": "db.example.com"})


def generated_after(play: Play, _world: World) -> None:
    _generate(play, project_after(play, "Webshop"), json.dumps({"user": "report", "host": "db.example.com"}))


def _generate(play: Play, project: str, kept: Any) -> None:
    """A schedule is the way to a generated value; it is removed again, because nothing else is asked for."""
    given = {"name": "REPORT_LOGIN", "fieldNames": ["user", "host", "password"], "fields": ["password"]}
    interval = {"intervalSeconds": 2_592_000, "staticFields": kept}
    made = play("manage_secrets", "dynamic_create", projectId=project, **given, **interval)
    play("manage_secrets", "dynamic_delete", secretId=made["secretId"])


def check_generated(world: World, _answer: None) -> None:
    secret = world.secret("Webshop", "REPORT_LOGIN")
    value = json.loads(world.value(secret))
    assert (value["user"], value["host"], len(value["password"])) == ("report", "db.example.com", 32)
    assert world.column("SELECT count(*) FROM rotation_schedules WHERE secret_id = ?", secret) == [0]


# 13. undo the last rotation


def undo_before(play: Play, _world: World) -> None:
    _roll_back(play, secret_before(play, "Mobile API", "DATABASE_LOGIN"))


def undo_after(play: Play, _world: World) -> None:
    _roll_back(play, secret_after(play, "Mobile API", "DATABASE_LOGIN"))


def _roll_back(play: Play, ids: dict[str, str]) -> None:
    versions = play("manage_secrets", "versions", **ids)["items"]
    play("manage_secrets", "rollback", **ids, version=versions[1]["version"])


def check_undone(world: World, _answer: None) -> None:
    secret = world.secret("Mobile API", "DATABASE_LOGIN")
    assert json.loads(world.value(secret)) == {field: f"{field} 2 of {secret}" for field in LOGIN_FIELDS}
    assert world.column("SELECT version FROM secrets WHERE id = ?", secret) == [4]


# 14. alert on canary


def alert(play: Play, _world: World) -> None:
    present = [row if isinstance(row, str) else row["action"] for row in play("manage_alerts", "list")["items"]]
    play("manage_alerts", "set", enabledActions=sorted({*present, "canary_triggered"}))


def check_alert(world: World, _answer: None) -> None:
    assert "canary_triggered" in world.column("SELECT action FROM alert_actions")


# 15. webhook

RECEIVER = "https://hooks.example.com/sikkerkey"
DELIVERED = ["canary_triggered", "secret_rotate"]


def webhook(play: Play, _world: World) -> None:
    play("manage_webhooks", "create", url=RECEIVER, actions=DELIVERED)


def check_webhook(world: World, _answer: None) -> None:
    assert world.column("SELECT url FROM webhooks") == [RECEIVER]
    assert world.column("SELECT action FROM webhook_actions ORDER BY action") == DELIVERED


# 16. office network only

OFFICE = "203.0.113.0/24"


def office(play: Play, _world: World) -> None:
    assert not play("manage_ipallowlist", "list")["enabled"]
    play("manage_ipallowlist", "add", cidr=OFFICE, label="office")
    play("manage_ipallowlist", "enable")


def check_office(world: World, _answer: None) -> None:
    assert world.column("SELECT cidr FROM ip_allowlist") == [OFFICE]
    assert world.column("SELECT enabled FROM ip_allowlist_switch") == [1]


# 17. delete a project


def delete_before(play: Play, _world: World) -> None:
    _delete(play, project_before(play, "Marketing Site"))


def delete_after(play: Play, _world: World) -> None:
    _delete(play, project_after(play, "Marketing Site"))


def _delete(play: Play, project: str) -> None:
    assert play("manage_projects", "delete", projectId=project, preview=True)["cascade"]["secrets"] == 15
    play("manage_projects", "delete", projectId=project, confirmName="Marketing Site")


def check_deleted(world: World, _answer: None) -> None:
    assert set(world.column("SELECT name FROM projects")) == set(PROJECTS) - {"Marketing Site"}


# 18. reads per day

CHART_DAYS = 14


def chart_before(play: Play, world: World) -> list[int]:
    given: Any = {"from": world.today_ms - CHART_DAYS * DAY_MS, "to": world.today_ms - 1, "bucket": "day"}
    return [row["reads"] for row in play("read_audit", "reads_over_time", **given)["items"]]


def chart_after(play: Play, world: World) -> list[int]:
    last = iso(world.today_ms - 1000)
    given: Any = {"from": date(world.today_ms - CHART_DAYS * DAY_MS), "to": last, "bucket": "day"}
    return [row["reads"] for row in play.every("read_audit", "reads_over_time", **given)]


def check_chart(world: World, answer: Any) -> None:
    query = "SELECT count(*) FROM audit WHERE action = 'secret_read' AND created_ms >= ? AND created_ms < ? GROUP BY"
    since_ms = world.today_ms - CHART_DAYS * DAY_MS
    assert answer == world.column(f"{query} created_ms / {DAY_MS} ORDER BY min(created_ms)", since_ms, world.today_ms)
    assert len(answer) == CHART_DAYS


# 19. yesterday's audit as CSV


def export_before(play: Play, world: World) -> int:
    given: Any = {"from": world.today_ms - DAY_MS, "to": world.today_ms - 1}
    return len(list(csv.reader(io.StringIO(play("read_audit", "export", **given))))) - 1


def export_after(play: Play, world: World) -> int:
    given: Any = {"from": date(world.today_ms - DAY_MS), "to": iso(world.today_ms - 1000)}
    text = play("read_audit", "export", **given)
    stated = re.search(r"([0-9,]+) (?:rows|entries)", text.partition("\nid,")[0])
    assert stated, text[:300]
    return int(stated[1].replace(",", ""))


def check_export(world: World, answer: Any) -> None:
    query = "SELECT count(*) FROM audit WHERE created_ms >= ? AND created_ms < ?"
    assert [answer] == world.column(query, world.today_ms - DAY_MS, world.today_ms)
    assert answer > 50


# 20. how does my app read it


def sdk(play: Play, _world: World) -> str:
    return json.dumps(play("manage_sdks", "get", sdkId="python"))


def check_sdk(_world: World, answer: Any) -> None:
    assert "import" in answer


# 21. never-read secrets


def never_read_before(play: Play, world: World) -> set[str]:
    secrets = [secret for secrets in projects_and_secrets(play).values() for secret in secrets]
    given: Any = {"actions": ["secret_read"], "from": world.today_ms - 90 * DAY_MS, "pageSize": 200}
    read = {entry["secretId"] for entry in play.every_page("read_audit", "query", **given)}
    return {each["id"] for each in secrets if each["id"] not in read and each["type"] != "canary"}


def never_read_after(play: Play, _world: World) -> set[str]:
    return {item["id"] for item in play.every("review", "coverage", gaps=["reads"])}


def check_never_read(world: World, answer: Any) -> None:
    read = set(world.column("SELECT secret_id FROM audit WHERE action = 'secret_read'"))
    assert answer == set(world.column(STORED)) - read
    assert len(answer) > 20


# 22. add a member

COLLEAGUE = "kim@example.com"
PERMISSIONS = ["machines.view", "machines.add"]


def member_before(play: Play, world: World) -> None:
    _invite(play, world)
    members = play("manage_team", "list")["members"]
    _admit(play, members, project_before(play, "Billing"))


def member_after(play: Play, world: World) -> None:
    _invite(play, world)
    members = play("manage_team", "list", search=COLLEAGUE)["members"]
    _admit(play, members, project_after(play, "Billing"))


def _invite(play: Play, world: World) -> None:
    play("manage_team", "invite", email=COLLEAGUE)
    world.accept_invitation(COLLEAGUE)


def _admit(play: Play, members: list[Any], project: str) -> None:
    [member] = [row["memberId"] for row in members if row["email"] == COLLEAGUE]
    play("manage_team", "permissions_set", projectId=project, memberId=member, permissions=PERMISSIONS)


def check_member(world: World, _answer: None) -> None:
    query = (
        "SELECT m.permissions FROM project_members m JOIN projects p ON p.id = m.project_id WHERE p.name = 'Billing'"
    )
    assert [set(json.loads(each)) for each in world.column(query)] == [set(PERMISSIONS)]


# 23. retire a machine

RETIRED = "infrastructure-web-2"


def retire_before(play: Play, _world: World) -> None:
    _revoke(play, named(play("manage_machines", "list")["items"], RETIRED)["id"])


def retire_after(play: Play, _world: World) -> None:
    _revoke(play, named(play("manage_machines", "list", search=RETIRED)["items"], RETIRED)["id"])


def _revoke(play: Play, machine: str) -> None:
    play("manage_machines", "revoke", machineId=machine, preview=True)
    play("manage_machines", "revoke", machineId=machine)


def check_retired(world: World, _answer: None) -> None:
    assert world.column("SELECT count(*) FROM machines WHERE name = ?", RETIRED) == [0]


# 24. what changed this week


def changes_before(play: Play, world: World) -> set[int]:
    given: Any = {"from": world.today_ms - 7 * DAY_MS, "pageSize": 200}
    entries = play.every_page("read_audit", "query", **given, actions=_changing_actions(play))
    return {entry["id"] for entry in entries}


def changes_after(play: Play, world: World) -> set[int]:
    given: Any = {"from": date(world.today_ms - 7 * DAY_MS)}
    entries = play.every("read_audit", "query", **given, actions=_changing_actions(play))
    return {entry["id"] for entry in entries}


def _is_change(action: str) -> bool:
    return not re.search("_read$|_denied$|_failure$|_access$", action)


def _changing_actions(play: Play) -> list[str]:
    rows = rows_of(play("read_audit", "actions"))
    return [name for name in (row if isinstance(row, str) else row["action"] for row in rows) if _is_change(name)]


def check_changes(world: World, answer: Any) -> None:
    rows = world.rows("SELECT id, action FROM audit WHERE created_ms >= ?", world.today_ms - 7 * DAY_MS)
    assert answer == {number for number, action in rows if _is_change(action)}
    assert len(answer) > 40


# 25. which of my agents is this


def who_am_i(play: Play, _world: World) -> str:
    return str(play("whoami")["agentId"])


def check_agent(world: World, answer: Any) -> None:
    assert world.column("SELECT count(*) FROM ai_agents WHERE id = ?", answer) == [1]


# fmt: off
REQUESTS = (
    Request("Rotate everything that is older than 90 days.", rotate_before, rotate_after, check_rotated),
    Request("Who read the webshop's STRIPE_API_KEY last night?", readers_before, readers_after, check_readers),
    Request("Give CI exactly two secrets.", grant_ci_before, grant_ci_after, check_ci),
    Request("Approve the new machine for all secrets but one.", approve_before, approve_after, check_approved),
    Request("Plant a canary that works.", canary_before, canary_after, check_canary),
    Request("Restore what was deleted yesterday.", restore_before, restore_after, check_restored),
    Request("Share this password once with a contractor.", share_before, share_after, check_shared),
    Request("Which machines can read STRIPE_API_KEY?", access_before, access_after, check_access),
    Request("Let it be read on weekdays from 8 to 18 only.", weekdays_before, weekdays_after, check_weekdays),
    Request("Which secrets have no policy?", without_policy_before, without_policy_after, check_without_policy),
    Request("Rotate this one weekly.", weekly_before, weekly_after, check_weekly),
    Request("Generate a password for the fixed user name.", generated_before, generated_after, check_generated),
    Request("Undo the last rotation.", undo_before, undo_after, check_undone),
    Request("Alert me when a canary is read.", alert, alert, check_alert),
    Request("Set up a webhook for rotations and canaries.", webhook, webhook, check_webhook),
    Request("Allow machines from the office network only.", office, office, check_office),
    Request("Delete the project Marketing Site.", delete_before, delete_after, check_deleted),
    Request("How many reads are there per day?", chart_before, chart_after, check_chart),
    Request("Give me yesterday's audit log as CSV.", export_before, export_after, check_export),
    Request("How does my app read a secret?", sdk, sdk, check_sdk),
    Request("Which secrets are never read?", never_read_before, never_read_after, check_never_read),
    Request("Add a member to the project Billing.", member_before, member_after, check_member),
    Request("Retire the machine infrastructure-web-2.", retire_before, retire_after, check_retired),
    Request("What has changed this week?", changes_before, changes_after, check_changes),
    Request("Which of my agents is this?", who_am_i, who_am_i, check_agent),
)
# fmt: on
