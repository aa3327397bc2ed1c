"""Reviews: questions about a whole vault, each answered from many reads.

The vault has no route for them. `Survey` asks what is needed, several requests at a time, and keeps account of what
could not be answered: every answer names it, so that what is unknown is never taken for what does not exist. Nothing
here sends a request or knows MCP: `Ask` does, with the scopes of the agent that it acts for.

An answer is an object with `items`, the most urgent first. Times are Unix milliseconds. Beside the items there are
`total` (of the items), `asked` (requests to the vault), `complete` (False if anything is hidden), `hidden` (what could
not be answered, and why) and `stopped` (why the review ended early, and how to go on).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]  # an object of the vault's answer; its members are whatever the vault sent
Ask = Callable[[str, str, Mapping[str, Any]], Any]  # tool, action, arguments: the JSON of the answer; raises Refused

REQUESTS_MAX = 5_000  # of one review
TIME_MAX_S = 50.0  # of one review: many clients give up on a call after 60 s
CONCURRENT = 8
HELPERS_MAX = 24  # threads of all reviews; further reviews ask one question at a time
FAILURES_MAX = 8  # of the vault (5xx), before a review stops
PROGRESS_S = 0.5  # between two reports of progress
PAGE_ROWS = 200  # the most that the vault sends as one page
NAMED_MAX = 3  # subjects that an entry of `hidden` names
HIDDEN_MAX = 20  # entries of `hidden`
GROUPS_MAX = 20  # rows of a summary
CHOICES_MAX = 10  # ids that an ambiguous name offers
NAME_CHARACTERS = 60  # of a name inside a sentence
REASON_CHARACTERS = 300  # of a refusal

LIST_NAMES = ("entries", "machines", "secrets", "versions", "schedules")  # members that hold the rows of an answer
DAY_MS = 86_400_000
DEFAULT_DAYS = 90
READS_DAYS = 7  # how far `reads` looks back without `from`

# After one of these answers, no further question has a chance: unreachable, unknown agent, too many requests, sealed.
TOO_MANY = 429
STOPPING = (0, 401, TOO_MANY, 503)
GO_ON = "to cover the rest, ask about one project (projectId) or a part of the names (search), or a shorter time span"


class Refused(Exception):
    """Raised by `Ask`: the vault did not answer. `status` is its HTTP status, 0 if it was not reached."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Unanswered(Exception):
    """Nothing of a review could be answered; `status` is that of the first refusal."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Unresolved(Exception):
    """A name or id fits no object, or a name fits several; `hint` says what to give instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


NOTHING: Mapping[str, Any] = {}


_helper_slots = threading.BoundedSemaphore(HELPERS_MAX)


class Question(NamedTuple):
    """A read of the vault. `noun` and `name` say what it is about: project, Webshop."""

    tool: str
    action: str
    arguments: Mapping[str, Any] = NOTHING
    noun: str = ""
    name: Any = ""


class _Refusals:
    """Questions of one action that were refused for one reason."""

    def __init__(self, reason: str, status: int) -> None:
        self.reason, self.status, self.count = reason[:REASON_CHARACTERS], status, 0
        self.names: list[str] = []

    def add(self, question: Question) -> None:
        self.count += 1
        if question.name and len(self.names) < NAMED_MAX:
            self.names.append(str(question.name)[:NAME_CHARACTERS])


class Survey:
    """The questions of one review.

    `cancelled` is asked before each request; `progress` is told how far the review is. `monotonic_s` is a monotonic
    clock, `now_ms` Unix time. When a bound is reached, no further question is asked and `stopped` says so.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        now_ms: int,
        monotonic_s: Callable[[], float],
        progress: Callable[[str], None] = lambda _message: None,
        cancelled: Callable[[], bool] = lambda: False,
        requests_max: int = REQUESTS_MAX,
    ) -> None:
        self.now_ms, self.asked, self.stopped = now_ms, 0, ""
        self._ask, self._progress, self._cancelled, self._monotonic_s = ask, progress, cancelled, monotonic_s
        self._requests_max = requests_max
        self._started_s = self._reported_s = monotonic_s()
        self._planned = self._failures = 0
        self._answered: set[str] = set()
        self._refusals: dict[tuple[str, str], _Refusals] = {}
        self._notes: list[str] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def all(self, questions: Sequence[Question]) -> list[Any]:
        """The answers in order, None for those that `hidden` accounts for. Raises what `Ask` raises beside Refused."""
        answers: list[Any] = [None] * len(questions)
        places = iter(range(len(questions)))
        self._planned += len(questions)
        helpers = []
        for _ in range(min(CONCURRENT, len(questions)) - 1):
            if not _helper_slots.acquire(blocking=False):
                break
            helper = threading.Thread(target=self._help, args=(questions, answers, places), daemon=True)
            try:
                helper.start()
            except RuntimeError:  # a limit of the user or the container: fewer threads do the same
                _helper_slots.release()
                break
            helpers.append(helper)
        self._work(questions, answers, places)
        for helper in helpers:
            helper.join()
        if self._error:
            raise self._error
        for place in places:
            self.refuse(questions[place], "not asked, because the review stopped", 0, "not asked")
        return answers

    def lists(self, questions: Sequence[Question]) -> list[list[Row] | None]:
        """Like `all`, for answers that are lists of objects; None for a list that is not known."""
        return [self.rows(question, answer) for question, answer in zip(questions, self.all(questions))]

    def hide(self, note: str) -> None:
        """Adds an entry to `hidden`."""
        self._notes.append(note)

    def hidden(self) -> list[str]:
        """What could not be answered, and why."""
        entries = [*self._notes, *(_described(action, each) for (action, _), each in self._refusals.items())]
        return entries[:HIDDEN_MAX] + (["and more"] if len(entries) > HIDDEN_MAX else [])

    def answered(self, *actions: str) -> bool:
        """True if one of these actions (default: any but whoami) was answered at least once."""
        return bool(self._answered & set(actions) if actions else self._answered - {"whoami.whoami"})

    def require(self, *actions: str) -> None:
        """Raises Unanswered unless one of these actions (default: any but whoami) was answered."""
        if not self.answered(*actions):
            status = next((each.status for each in self._refusals.values()), 0)
            raise Unanswered("; ".join(self.hidden()) or "the vault answered nothing", status)

    def result(self, items: list[Row], **members: Any) -> Row:
        """The answer of a review. Raises Unanswered if nothing was answered."""
        self.require()
        hidden = self.hidden()
        stopped = {"stopped": self.stopped} if self.stopped else {}
        known = {"total": len(items), "asked": self.asked, "complete": not hidden}
        return {**members, **known, **({"hidden": hidden} if hidden else {}), **stopped, "items": items}

    def _help(self, questions: Sequence[Question], answers: list[Any], places: Iterator[int]) -> None:
        try:
            self._work(questions, answers, places)
        finally:
            _helper_slots.release()

    def _work(self, questions: Sequence[Question], answers: list[Any], places: Iterator[int]) -> None:
        while True:
            with self._lock:
                place = next(places, None) if self._may_ask() else None
                if place is None:
                    return
                self.asked += 1
                self._report()
            question = questions[place]
            try:
                answers[place] = answer = self._ask(question.tool, question.action, question.arguments)
            except Refused as refused:
                with self._lock:
                    self._refused(question, refused)
            except BaseException as error:  # raised again on the thread of the call
                self._error = error
            else:
                with self._lock:
                    self._take(question, answer)

    def _may_ask(self) -> bool:
        if self._error or self.stopped:
            return False
        if self._cancelled():
            self.stopped = "the call was cancelled"
        elif self.asked >= self._requests_max:
            self.stopped = f"the limit of {self._requests_max:,} requests was reached; {GO_ON}"
        elif self._monotonic_s() - self._started_s > TIME_MAX_S:
            self.stopped = f"the limit of {TIME_MAX_S:.0f} s was reached; {GO_ON}"
        return not self.stopped

    def _take(self, question: Question, answer: Any) -> None:
        if answer is None:
            self.refuse(question, "the answer is null", 0, "null")
        else:
            self._answered.add(f"{question.tool}.{question.action}")

    def _report(self) -> None:
        now_s = self._monotonic_s()
        if now_s - self._reported_s >= PROGRESS_S:
            self._reported_s = now_s
            self._progress(f"{self.asked:,} of at least {self._planned:,} requests")

    def _refused(self, question: Question, refused: Refused) -> None:
        self.refuse(question, str(refused), refused.status, str(refused.status))
        self._failures += refused.status >= 500 and refused.status != 501
        if refused.status in STOPPING:
            reason = str(refused)[:REASON_CHARACTERS]
            way_on = f"; {GO_ON}" if refused.status == TOO_MANY else ""  # the whole question would be too many again
            self.stopped = self.stopped or f"the vault answers no further requests: {reason}{way_on}"
        elif self._failures > FAILURES_MAX:
            self.stopped = self.stopped or f"the vault failed {self._failures} times"

    def refuse(self, question: Question, reason: str, status: int, kind: str) -> None:
        """Counts a question as not answered. Those of one action and `kind` become one entry of `hidden`."""
        action = f"{question.tool}.{question.action}"
        key = (f"{action} of {{}} {question.noun}s" if question.noun else action, kind)
        self._refusals.setdefault(key, _Refusals(reason, status)).add(question)

    def rows(self, question: Question, answer: Any) -> list[Row] | None:
        """The objects of a list, whether bare or in a member of an object; None if there is none, which is hidden."""
        if answer is None:
            return None
        found = answer if isinstance(answer, list) else _list_in(answer, question.tool.removeprefix("manage_"))
        if found is None:
            self.refuse(question, "the answer has no list", 0, "no list")
            return None
        return [row for row in found if isinstance(row, dict)]


def _list_in(answer: Any, name: str) -> list[Any] | None:
    """The list in an object: under a usual name or that of the tool, or the only one there is."""
    members = answer if isinstance(answer, dict) else {}
    lists = {key: member for key, member in members.items() if isinstance(member, list)}
    usual = [lists[key] for key in ("items", name, *LIST_NAMES) if key in lists]
    return next(iter(usual or (lists.values() if len(lists) == 1 else ())), None)


def _described(action: str, refusals: _Refusals) -> str:
    count = refusals.count
    what = action.format(count)
    what = what[:-1] if count == 1 and "{}" in action else what
    more = ", ..." if count > len(refusals.names) else ""
    names = f" ({', '.join(refusals.names)}{more})" if refusals.names else ""
    return f"{what}{names}: {refusals.reason}"


# ---- what several reviews ask ----------------------------------------------------------------------------------------

WHOAMI = Question("whoami", "whoami")
PROJECTS = Question("manage_projects", "list")
MACHINES = Question("manage_machines", "list")
SCHEDULES = Question("manage_secrets", "dynamic_list")


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _begin(survey: Survey, given: Mapping[str, Any], *more: Question) -> tuple[list[Row], list[list[Row] | None]]:
    """The projects to ask about, and the lists that `more` asks for. Notes what an allowlist hides."""
    first = survey.all([WHOAMI, PROJECTS, *more])
    listed, *others = [survey.rows(question, answer) for question, answer in zip([PROJECTS, *more], first[1:])]
    me = first[0]
    if isinstance(me, dict) and "projectAllowlist" in me:
        if me["projectAllowlist"] is not None:
            survey.hide("everything outside this agent's project allowlist: not visible to it")
    elif me is not None:  # a refusal is hidden already
        survey.hide("what a project allowlist may hide: whoami does not say whether this agent has one")
    projects = _with_ids(listed)
    wanted = given.get("projectId")
    if wanted:
        projects = [row for row in projects if row["id"] == wanted] or [{"id": wanted}]
    return projects, others


def _of_project(tool: str, action: str, project: Row, **more: Any) -> Question:
    return Question(tool, action, {"projectId": project["id"], **more}, "project", project.get("name"))


def _per_project(survey: Survey, projects: Sequence[Row], *reads: tuple[str, str]) -> list[dict[str, list[Row] | None]]:
    """For each of `reads` (tool, action): the list of each project by project id, None if it is not known."""
    questions = [_of_project(tool, action, project) for project in projects for tool, action in reads]
    answers = survey.lists(questions)
    step = len(reads)
    return [{project["id"]: rows for project, rows in zip(projects, answers[place::step])} for place in range(step)]


def _with_ids(rows: Iterable[Row] | None) -> list[Row]:
    return [row for row in rows or [] if _text(row.get("id"))]


def _with_projects(projects: Sequence[Row], lists: Mapping[str, list[Row] | None]) -> list[Row]:
    """The rows of all projects that have an id, each with projectId and projectName."""
    return [
        {**row, "projectId": project["id"], "projectName": project.get("name")}
        for project in projects
        for row in _with_ids(lists.get(project["id"]))
    ]


def _picked(row: Row, *names: str) -> Row:
    return {name: row[name] for name in names if row.get(name) is not None}


def _named_like(row: Row, part: str) -> bool:
    return part.casefold() in _text(row.get("name")).casefold()


def _examined_secrets(survey: Survey, projects: Sequence[Row], given: Mapping[str, Any]) -> list[Row]:
    """The secrets of the projects that `search` leaves, without canaries."""
    [lists] = _per_project(survey, projects, ("manage_secrets", "list"))
    rows = _with_projects(projects, lists)
    return [row for row in rows if _named_like(row, given.get("search", "")) and row.get("type") != "canary"]


def _choose(survey: Survey, rows: Sequence[Row], wanted: str, noun: str) -> Row:
    """The row with that id or exact name. Raises Unresolved."""
    by_id = [row for row in rows if row.get("id") == wanted][:1]
    found = by_id or [row for row in rows if row.get("name") == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        ids = [f"{row['id']} in {_text(row.get('projectName')) or 'this vault'}" for row in found[:CHOICES_MAX]]
        raise Unresolved(f"{len(found)} {noun}s have that name", f"give the id of one of them: {'; '.join(ids)}")
    survey.require()
    hidden = "".join(f"; not seen: {entry}" for entry in survey.hidden()[:NAMED_MAX])
    message = f"no {noun} that this agent can see has that id or exact name"
    raise Unresolved(message, f"review.find finds it by a part of its name{hidden}")


def _page_count(answer: Any, rows: Sequence[Row]) -> int | None:
    """How many pages there are, by the first of them; None if it does not say and there may be more."""
    total = _integer(answer.get("total")) if isinstance(answer, dict) else None
    if total is None:
        return 1 if len(rows) < PAGE_ROWS else None
    return -(-total // PAGE_ROWS)


def _project_machines(survey: Survey, projects: Sequence[Row]) -> dict[str, list[Row] | None]:
    """The machines of each project, by project id; None where they are not all known."""
    size = {"pageSize": PAGE_ROWS}
    questions = [_of_project("manage_project_machines", "query", each, **size) for each in projects]
    pages: list[tuple[str, Question]] = []
    found: dict[str, list[Row] | None] = {}
    for project, question, answer in zip(projects, questions, survey.all(questions)):
        found[project["id"]] = rows = survey.rows(question, answer)
        count = _page_count(answer, rows) if rows is not None else 1
        if count is None or count + len(pages) > REQUESTS_MAX:
            survey.refuse(question, "the answer does not say how many machines there are, or too many", 0, "pages")
            found[project["id"]] = None
            continue
        for page in range(2, count + 1):
            pages.append((project["id"], question._replace(arguments={**question.arguments, "page": page})))
    for (project_id, _), rows in zip(pages, survey.lists([question for _, question in pages])):
        known = found[project_id]
        found[project_id] = None if known is None or rows is None else known + rows
    return found


class Holders(NamedTuple):
    """The machines of a project that hold grants, by secret id, each with `grantedAt`; `complete` if all are known."""

    by_secret: dict[str, list[Row]]
    complete: bool


def _holders(survey: Survey, projects: Sequence[Row]) -> dict[str, Holders]:
    """Who holds a grant for the secrets of each project, by project id."""
    members = _project_machines(survey, projects)
    pairs = [
        (project["id"], machine)
        for project in projects
        for machine in _with_ids(members[project["id"]])
        if machine.get("secretCount") != 0
    ]
    questions = [
        Question(
            "manage_project_machines",
            "grants_get",
            {"projectId": project_id, "machineId": machine["id"]},
            "machine",
            machine.get("name"),
        )
        for project_id, machine in pairs
    ]
    holders = {each["id"]: Holders({}, members[each["id"]] is not None) for each in projects}
    for (project_id, machine), grants in zip(pairs, survey.lists(questions)):
        if grants is None:
            holders[project_id] = holders[project_id]._replace(complete=False)
        for grant in grants or []:
            holder = {**machine, "grantedAt": grant.get("grantedAt")}
            holders[project_id].by_secret.setdefault(_text(grant.get("id")), []).append(holder)
    return holders


class Bindings(NamedTuple):
    """The policy of each bound secret of a project, by secret id; `complete` if all bindings are known."""

    by_secret: dict[str, Row]
    complete: bool


def _bindings(survey: Survey, projects: Sequence[Row], policies: Mapping[str, list[Row] | None]) -> dict[str, Bindings]:
    """The bindings of each project, by project id, from the lists of its policies."""
    bound = [row for row in _with_projects(projects, policies) if row.get("boundSecretCount") != 0]
    questions = [
        Question(
            "manage_policies", "get", {"projectId": row["projectId"], "policyId": row["id"]}, "policy", row.get("name")
        )
        for row in bound
    ]
    bindings = {each["id"]: Bindings({}, policies.get(each["id"]) is not None) for each in projects}
    for policy, answer in zip(bound, survey.all(questions)):
        secrets = answer.get("boundSecrets") if isinstance(answer, dict) else None
        if not isinstance(secrets, list):
            bindings[policy["projectId"]] = bindings[policy["projectId"]]._replace(complete=False)
            continue
        ids = [_text(secret.get("id")) for secret in secrets if isinstance(secret, dict)]
        bindings[policy["projectId"]].by_secret.update(dict.fromkeys(ids, policy))
    return bindings


# ---- find ------------------------------------------------------------------------------------------------------------


def find(survey: Survey, given: Mapping[str, Any]) -> Row:
    """Secrets, projects, machines and policies whose name contains `name`, or whose id it is."""
    whole = "projectId" not in given
    projects, lists = _begin(survey, given, *([MACHINES] if whole else []))
    secrets, policies = _per_project(survey, projects, ("manage_secrets", "list"), ("manage_policies", "list"))
    machines = lists[0] if whole else _project_machines(survey, projects).get(given["projectId"])
    candidates = [
        *(("project", row, ("secretCount",)) for row in (projects if whole else [])),
        *(("secret", row, ("type", "projectId", "projectName")) for row in _with_projects(projects, secrets)),
        *(("machine", row, ("state", "hostname")) for row in _with_ids(machines)),
        *(("policy", row, ("projectId", "projectName")) for row in _with_projects(projects, policies)),
    ]
    wanted = given["name"]
    items = [
        {"kind": kind, **_picked(row, "id", "name", *more)}
        for kind, row, more in candidates
        if row["id"] == wanted or _named_like(row, wanted)
    ]
    return survey.result(sorted(items, key=lambda item: _closeness(item, wanted)))


def _closeness(item: Row, wanted: str) -> tuple[bool, bool, str]:
    """The order of finds: the id or exact name first, then names that begin with it, then by name."""
    name = _text(item.get("name")).casefold()
    exact = item["id"] == wanted or name == wanted.casefold()
    return (not exact, not name.startswith(wanted.casefold()), name)


# ---- stale secrets ---------------------------------------------------------------------------------------------------


def stale_secrets(survey: Survey, given: Mapping[str, Any]) -> Row:
    """Secrets whose value was stored more than `days` ago, by their versions, the oldest value first."""
    since_ms = survey.now_ms - given.get("days", DEFAULT_DAYS) * DAY_MS
    projects, [schedules] = _begin(survey, given, SCHEDULES)
    secrets = _examined_secrets(survey, projects, given)
    survey.require("manage_secrets.list" if projects else "manage_projects.list")
    dated = _value_times(survey, secrets, since_ms)
    stale = [(stored_ms, row) for stored_ms, row in dated if stored_ms <= since_ms]
    stale.sort(key=lambda pair: pair[0])
    affected = dict.fromkeys(row["projectId"] for _, row in stale)  # oldest values first, in case a bound is reached
    by_id = {project["id"]: project for project in projects}
    holders = _holders(survey, [by_id[project_id] for project_id in affected])
    scheduled = {_text(row.get("secretId")): row for row in schedules or []}
    items = [
        {
            **_picked(row, "id", "name", "type", "fieldNames", "projectId", "projectName", "version"),
            "valueStoredAt": stored_ms,
            "ageDays": (survey.now_ms - stored_ms) // DAY_MS,
            "schedule": _schedule_of(scheduled.get(row["id"])) if schedules is not None else None,
            **_holders_of(row["id"], holders[row["projectId"]]),
        }
        for stored_ms, row in stale
    ]
    by_project = _counted([row for _, row in stale], "projectId", "projectName")
    return survey.result(items, secrets=len(secrets), storedBeforeAt=since_ms, byProject=by_project)


def _value_times(survey: Survey, secrets: Sequence[Row], since_ms: int) -> list[tuple[int, Row]]:
    """When the current value of each secret was stored, for those whose value may be older than `since_ms`.

    The versions are asked for, the least recently changed secrets first. A secret that is younger cannot have an older
    value, and one at version 1 has the value that it was created with.
    """
    found, open_ = [], []
    for row in secrets:
        created_ms = _integer(row.get("createdAt"))
        if created_ms is None:
            open_.append(row)
        elif row.get("version") == 1:
            found.append((created_ms, row))
        elif created_ms <= since_ms:
            open_.append(row)
    open_.sort(key=lambda row: _integer(row.get("updatedAt")) or 0)
    questions = [
        Question(
            "manage_secrets",
            "versions",
            {"projectId": row["projectId"], "secretId": row["id"]},
            "secret",
            row.get("name"),
        )
        for row in open_
    ]
    for row, question, versions in zip(open_, questions, survey.lists(questions)):
        stored_ms = _current_version_ms(row, versions or [])
        if stored_ms is not None:
            found.append((stored_ms, row))
        elif versions is not None:
            survey.refuse(question, "the answer does not say when the value was stored", 0, "no time")
    return found


def _current_version_ms(secret: Row, versions: Sequence[Row]) -> int | None:
    """When the current version was stored: the one that the secret names, else the newest."""
    numbered = {number: row for row in versions if (number := _integer(row.get("version"))) is not None}
    current = numbered.get(_integer(secret.get("version")) or 0) or (numbered[max(numbered)] if numbered else None)
    return _integer(current.get("createdAt")) if current else None


def _schedule_of(row: Row | None) -> Row | str:
    return _picked(row, "intervalSeconds", "enabled", "nextRotationAt") if row else "none"


def _holders_of(secret_id: str, holders: Holders) -> Row:
    """How many machines hold a grant (None if not all are known), and the names of a few (None if none is known)."""
    machines = holders.by_secret.get(secret_id, [])
    names = [machine.get("name") for machine in machines[:NAMED_MAX]]
    known = names if holders.complete else names or None
    return {"machineCount": len(machines) if holders.complete else None, "machines": known}


def _counted(rows: Iterable[Row], key: str, name: str) -> list[Row]:
    """How many rows each value of `key` has, the most first."""
    counts: dict[Any, Row] = {}
    for row in rows:
        group = counts.setdefault(row.get(key), {key: row.get(key), name: row.get(name), "count": 0})
        group["count"] += 1
    return sorted(counts.values(), key=lambda group: -group["count"])[:GROUPS_MAX]


# ---- access ----------------------------------------------------------------------------------------------------------

ACCESS_ORDER = ("yes", "within policy", "unknown", "no")
AXES = {
    "timeWindowEnabled": "time window",
    "ipAllowlistEnabled": "addresses",
    "rateCapEnabled": "rate",
    "coSignEnabled": "second machine",
    "ttlExpiresAt": "end",
    "ttlMaxReads": "number of reads",
}
STATS = Question("read_audit", "stats")
IP_ALLOWLIST = Question("manage_ipallowlist", "list")


class Conditions(NamedTuple):
    """What decides about reads in a project, beside grants. `frozen` is None if that is not known."""

    frozen: bool | None
    bindings: Bindings


def access(survey: Survey, given: Mapping[str, Any]) -> Row:
    """The machines that can read a secret, or the secrets that a machine can read."""
    return _readers_of(survey, given) if "secret" in given else _readable_by(survey, given)


def _readers_of(survey: Survey, given: Mapping[str, Any]) -> Row:
    projects, _ = _begin(survey, given)
    [lists] = _per_project(survey, projects, ("manage_secrets", "list"))
    secret = _choose(survey, _with_projects(projects, lists), given["secret"], "secret")
    project = [each for each in projects if each["id"] == secret["projectId"]]
    gate, conditions = _conditions(survey, project)
    holders = _holders(survey, project)[secret["projectId"]]
    items = [
        {
            **_picked(machine, "id", "name", "kind", "state", "grantedAt"),
            **_verdict(machine.get("state"), secret["id"], conditions[secret["projectId"]], survey.now_ms),
        }
        for machine in holders.by_secret.get(secret["id"], [])
    ]
    subject = _picked(secret, "id", "name", "type", "projectId", "projectName")
    return survey.result(_by_access(items), secret=subject, ipAllowlistEnabled=gate)


def _readable_by(survey: Survey, given: Mapping[str, Any]) -> Row:
    projects, [machines] = _begin(survey, given, MACHINES)
    machine = _choose(survey, _with_ids(machines), given["machine"], "machine")
    [details] = survey.all([Question("manage_machines", "get", {"machineId": machine["id"]}, "machine", machine["id"])])
    joined = _project_ids(details)
    projects = [each for each in projects if joined is None or each["id"] in joined]
    questions = [
        _of_project("manage_project_machines", "grants_get", each, machineId=machine["id"]) for each in projects
    ]
    grants = {each["id"]: rows for each, rows in zip(projects, survey.lists(questions))}
    projects = [each for each in projects if grants[each["id"]]]
    gate, conditions = _conditions(survey, projects)
    state = details.get("state") if isinstance(details, dict) else machine.get("state")
    items = [
        {
            **_picked(row, "id", "name", "projectId", "projectName", "grantedAt"),
            **_verdict(state, row["id"], conditions[row["projectId"]], survey.now_ms),
        }
        for row in _with_projects(projects, grants)
    ]
    subject = {**_picked(machine, "id", "name", "kind", "lastSeenAt"), "state": state}
    return survey.result(_by_access(items), machine=subject, ipAllowlistEnabled=gate)


def _project_ids(details: Any) -> set[str] | None:
    """The ids of a machine's projects; None if its details do not say."""
    listed = details.get("projects") if isinstance(details, dict) else None
    if not isinstance(listed, list):
        return None
    return {
        each if isinstance(each, str) else _text(each.get("id", each.get("projectId")))
        for each in listed
        if isinstance(each, (str, dict))
    }


def _conditions(survey: Survey, projects: Sequence[Row]) -> tuple[bool | None, dict[str, Conditions]]:
    """Whether the vault's IP allowlist is enabled, and what decides about reads in each project."""
    allowlist, stats = survey.all([IP_ALLOWLIST, STATS])
    enabled = allowlist.get("enabled") if isinstance(allowlist, dict) else None
    none_frozen = isinstance(stats, dict) and stats.get("frozenProjects") == 0
    policies, canaries = _per_project(survey, projects, ("manage_policies", "list"), ("manage_canaries", "list"))
    bindings = _bindings(survey, projects, policies)
    conditions = {}
    for project in projects:
        decoys = canaries[project["id"]]
        # A canary of another project may have frozen this one, so that a project without canaries shows nothing.
        frozen = any(each.get("projectFrozenAt") for each in decoys) if decoys else None
        conditions[project["id"]] = Conditions(False if none_frozen else frozen, bindings[project["id"]])
    return enabled if isinstance(enabled, bool) else None, conditions


def _verdict(state: Any, secret_id: str, conditions: Conditions, now_ms: int) -> Row:
    """`access` for a machine that holds a grant, with the policy and `why` where it is not simply yes."""
    policy = conditions.bindings.by_secret.get(secret_id)
    axes = [word for name, word in AXES.items() if policy and policy.get(name)]
    ends_ms = _integer(policy.get("ttlExpiresAt")) if policy else None
    against = [
        *([f"the machine is {state}"] if isinstance(state, str) and state != "approved" else []),
        *(["a canary has frozen the project"] if conditions.frozen else []),
        *(["the policy has ended"] if ends_ms is not None and ends_ms <= now_ms else []),
    ]
    unknown = [
        *(["the machine's state"] if not isinstance(state, str) else []),
        *(["whether the project is frozen"] if conditions.frozen is None else []),
        *(["the policy"] if policy is None and not conditions.bindings.complete else []),
    ]
    limited = [f"the policy limits: {', '.join(axes)}"] if axes else []
    word = "no" if against else "unknown" if unknown else "within policy" if limited else "yes"
    why = against or [*(f"not known: {each}" for each in unknown), *limited]
    named = {"policyId": policy["id"], "policyName": policy.get("name")} if policy else {}
    return {"access": word, **named, **({"why": why} if why else {})}


def _by_access(items: list[Row]) -> list[Row]:
    return sorted(items, key=lambda item: (ACCESS_ORDER.index(item["access"]), _text(item.get("name")).casefold()))


# ---- coverage --------------------------------------------------------------------------------------------------------

GAPS = ("policy", "schedule", "reads", "canary")


class Missing(NamedTuple):
    """The secrets that lack something. `known` are those for which it could be found out."""

    word: str
    secrets: set[str]
    known: set[str]


def coverage(survey: Survey, given: Mapping[str, Any]) -> Row:
    """Secrets without a policy, a schedule or a read, projects without a canary, canaries that nothing can trip."""
    gaps = given.get("gaps") or GAPS
    projects, schedules = _begin(survey, given, *([SCHEDULES] if "schedule" in gaps else []))
    of_secrets = set(gaps) != {"canary"}
    secrets = _examined_secrets(survey, projects, given) if of_secrets else []
    counts: Row = {"secrets": len(secrets)} if of_secrets else {}
    items: list[Row] = []
    if "canary" in gaps:
        items, numbers = _canary_gaps(survey, projects, given.get("search", ""))
        counts.update(numbers)
    survey.require(*(("manage_secrets.list", "manage_canaries.list") if projects else ("manage_projects.list",)))
    missing = [
        *([_without_policy(survey, projects, secrets)] if "policy" in gaps else []),
        *(_without_schedule(secrets, rows) for rows in schedules),
    ]
    span: Row = {}
    if "reads" in gaps:
        never, span = _never_read(survey, secrets, given)
        missing.append(never)
    for each in missing:
        counts[each.word] = {"count": len(each.secrets) if each.known or not secrets else None, "of": len(each.known)}
    found = [_secret_gaps(row, missing) for row in secrets]
    lacking = sorted((row for row in found if row["gaps"]), key=lambda row: -len(row["gaps"]))
    return survey.result(items + lacking, counts=counts, **span)


def _secret_gaps(row: Row, missing: Sequence[Missing]) -> Row:
    gaps = [each.word for each in missing if row["id"] in each.secrets]
    unknown = [each.word for each in missing if row["id"] not in each.known]
    subject = {"kind": "secret", **_picked(row, "id", "name", "projectId", "projectName"), "gaps": gaps}
    return {**subject, "unknown": unknown} if unknown else subject


def _without_policy(survey: Survey, projects: Sequence[Row], secrets: Sequence[Row]) -> Missing:
    [policies] = _per_project(survey, projects, ("manage_policies", "list"))
    bindings = _bindings(survey, projects, policies)
    bound = {row["id"] for row in secrets if row["id"] in bindings[row["projectId"]].by_secret}
    known = bound | {row["id"] for row in secrets if bindings[row["projectId"]].complete}
    return Missing("no policy", known - bound, known)


def _without_schedule(secrets: Sequence[Row], schedules: list[Row] | None) -> Missing:
    scheduled = {_text(row.get("secretId")) for row in schedules or []}
    known = {row["id"] for row in secrets} if schedules is not None else set()
    return Missing("no schedule", known - scheduled, known)


def _never_read(survey: Survey, secrets: Sequence[Row], given: Mapping[str, Any]) -> tuple[Missing, Row]:
    """The secrets without a read in the span, and the span. It is shorter if the log could not be read to its end."""
    unread = {row["id"] for row in secrets}
    known = set(unread)
    span = _span(survey, given, DEFAULT_DAYS)

    def note_read(entry: Row) -> bool:
        unread.discard(_text(entry.get("secretId")))
        return False

    log = _read_log(survey, {"actions": ["secret_read"], **span}, note_read, lambda: not unread)
    if log is None:
        return Missing("not read", set(), set()), span
    if not log.complete and unread:
        span["readsKnownSinceAt"] = log.reached_ms
    return Missing("not read", unread, known), span


def _canary_gaps(survey: Survey, projects: Sequence[Row], part: str) -> tuple[list[Row], Row]:
    """Projects without an armed canary, and canaries that nothing can trip; and how many there are.

    Only those whose name contains `part`.
    """
    [lists] = _per_project(survey, projects, ("manage_canaries", "list"))
    known = [project for project in projects if lists[project["id"]] is not None and _named_like(project, part)]
    canaries = [row for row in _with_projects(projects, lists) if _named_like(row, part)]
    affected = {row["projectId"] for row in canaries}
    holders = _holders(survey, [project for project in projects if project["id"] in affected])
    unarmed = [
        (project, "no armed canary" if lists[project["id"]] else "no canary")
        for project in known
        if not any(row.get("enabled") for row in lists[project["id"]] or [])
    ]
    granted = {row["id"]: _granted(row, holders) for row in canaries}
    items = [{"kind": "project", **_picked(project, "id", "name"), "gaps": [gap]} for project, gap in unarmed]
    for row in canaries:
        gaps = ["no grant"] * (granted[row["id"]] is False) + ["disarmed"] * (not row.get("enabled"))
        if gaps:
            items.append({"kind": "canary", **_picked(row, "id", "name", "projectId", "projectName"), "gaps": gaps})
    answers = [each for each in granted.values() if each is not None]
    listed = any(rows is not None for rows in lists.values())
    bare = answers.count(False) if answers or (listed and not canaries) else None
    return items, {
        "projects without an armed canary": {"count": len(unarmed) if listed else None, "of": len(known)},
        "canaries without a grant": {"count": bare, "of": len(answers)},
    }


def _granted(canary: Row, holders: Mapping[str, Holders]) -> bool | None:
    """Whether a machine holds a grant for the canary; None if that is not known."""
    found = holders[canary["projectId"]]
    if canary["id"] in found.by_secret:
        return True
    return False if found.complete else None


# ---- reads -----------------------------------------------------------------------------------------------------------


class Log(NamedTuple):
    """Entries of the audit log that were kept, the newest first. All of them since `reached_ms` were examined."""

    entries: list[Row]
    examined: int
    reached_ms: int | None
    complete: bool


def _span(survey: Survey, given: Mapping[str, Any], days: int) -> Row:
    to_ms = given.get("to", survey.now_ms)  # fixed, so that new entries do not shift the pages
    return {"from": given.get("from", to_ms - days * DAY_MS), "to": to_ms}


def _read_log(
    survey: Survey, filters: Row, keep: Callable[[Row], bool], enough: Callable[[], bool] = lambda: False
) -> Log | None:
    """Pages through the audit log until its end, or until `enough`. None if it cannot be read at all.

    The vault cannot filter by secret, machine or agent, so `keep` does.
    """
    fixed = {**filters, "sortBy": "timestamp", "sortDir": "desc", "pageSize": PAGE_ROWS}
    kept: list[Row] = []
    examined, reached_ms, page = 0, None, 1
    pages: int | None = 1
    while pages is not None and page <= pages and not enough():
        step = 1 if page == 1 else 4 * CONCURRENT
        numbers = range(page, min(page + step, pages + 1))
        questions = [Question("read_audit", "query", {**fixed, "page": each}, "page", each) for each in numbers]
        answers = survey.all(questions)
        for number, question, answer in zip(numbers, questions, answers):
            entries = survey.rows(question, answer)
            if entries is None:
                return None if number == 1 else Log(kept, examined, reached_ms, complete=False)
            kept += [entry for entry in entries if keep(entry)]
            examined += len(entries)
            reached_ms = _integer(entries[-1].get("timestamp")) if entries else reached_ms
        counted = _page_count(answers[-1], entries or [])
        # A vault may not count a long log to its end (totalIsAtLeast): each page then says how many follow it at least.
        pages = counted if page == 1 or counted is None else max(pages, counted)
        page = numbers[-1] + 1
    if pages is None:
        survey.hide("older audit entries: read_audit.query does not say how many there are")
    return Log(kept, examined, reached_ms, complete=pages is not None and page > pages)


READ_ACTIONS = ["secret_read", "secret_read_denied"]
TRASH = Question("manage_trash", "list")
AGENTS = Question("manage_ai_agents", "list")


def reads(survey: Survey, given: Mapping[str, Any]) -> Row:
    """The reads of a secret or by a machine, or what an agent did, the newest first, with names."""
    more = [MACHINES, TRASH, *([AGENTS] if "agent" in given else [])]
    projects, [machines, trash, *agents] = _begin(survey, given, *more)
    [lists] = _per_project(survey, projects, ("manage_secrets", "list"))
    known = {
        "secret": _with_projects(projects, lists) + _with_ids(trash),
        "machine": _with_ids(machines),
        "agent": _with_ids(agents[0] if agents else None),
    }
    wanted = {MEMBERS[noun]: _id_of(survey, rows, given[noun], noun) for noun, rows in known.items() if noun in given}
    span = _span(survey, given, READS_DAYS)
    filters = span if "agent" in given else {**span, "actions": READ_ACTIONS}
    log = _read_log(survey, filters, lambda entry: all(entry.get(name) == each for name, each in wanted.items()))
    if log is None:
        survey.require("read_audit.query")
        raise Unanswered("the vault did not answer read_audit.query with a list", 0)
    names = {MEMBERS[noun]: {row["id"]: row for row in rows} for noun, rows in known.items()}
    items = [_named_entry(entry, names) for entry in log.entries]
    by = "machineId" if "secret" in given else "secretId" if "machine" in given else "action"
    reached = {} if log.complete else {"knownSinceAt": log.reached_ms}
    return survey.result(items, **wanted, **span, **reached, entriesExamined=log.examined, summary=_summary(items, by))


MEMBERS = {"secret": "secretId", "machine": "machineId", "agent": "aiAgentId"}


def _id_of(survey: Survey, rows: Sequence[Row], wanted: str, noun: str) -> str:
    """The id of what `wanted` names. An id that is in no list stays: the log may still have entries about it."""
    try:
        return _text(_choose(survey, rows, wanted, noun)["id"])
    except Unresolved:
        if any(row.get("name") == wanted for row in rows) or not _looks_like_id(wanted, noun):
            raise
    return wanted


def _looks_like_id(text: str, noun: str) -> bool:
    return text.startswith("sk_") if noun == "secret" else len(text) == 36 and text.count("-") == 4


def _named_entry(entry: Row, names: Mapping[str, Mapping[str, Row]]) -> Row:
    """An entry with the names of what its ids refer to, where they are known."""
    item = _picked(entry, "timestamp", "action")
    for member, rows in names.items():
        if entry.get(member) is not None:
            found = rows.get(_text(entry[member]), {})
            item[member] = entry[member]
            item.update({member.replace("Id", "Name"): found["name"]} if found.get("name") is not None else {})
            item.update(_picked(found, "projectName") if member == "secretId" else {})
    return {**item, **_picked(entry, "sourceIp", "detail")}


def _summary(items: Sequence[Row], by: str) -> list[Row]:
    """How often, and when last, each machine, secret or action occurs in `items`, the most frequent first."""
    groups: dict[str, Row] = {}
    for item in items:
        name = by.replace("Id", "Name")
        first = {**_picked(item, by, name), "count": 0, "denied": 0, "lastAt": item.get("timestamp")}
        group = groups.setdefault(_text(item.get(by)), first)
        group["denied" if item.get("action") == "secret_read_denied" else "count"] += 1
    return sorted(groups.values(), key=lambda group: -group["count"] - group["denied"])[:GROUPS_MAX]


# By the name of the action.
REVIEWS: dict[str, Callable[[Survey, Mapping[str, Any]], Row]] = {
    "find": find,
    "stale_secrets": stale_secrets,
    "access": access,
    "coverage": coverage,
    "reads": reads,
}
