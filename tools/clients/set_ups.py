"""Sixteen set-ups in which the server cannot work, and what the client's model and person are told about each.

A set-up is made after `config --write`. What a client's entry would hold (variables, options) is set in the
interpreter that the entry names, so that it is the same for every client.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from tools.clients.dialects import ModelRequest
from tools.clients.script import results_of
from tools.clients.trial import Trial
from tools.clients.wire import INTERPRETER, SET_UP, Session

ROOT = Path(__file__).resolve().parent.parent.parent
RECORD = ROOT / "docs" / "set-ups.json"
ANSWER_MAX_CHARACTERS = 200
Era = Literal["before", "now"]
HEAD = ("Set-up", "The model, before", "The model, now", "First line of the first call's result, now")
CLIENT_HEAD = ("Client", "Tools shown, before", "now", "Cause told, before", "now", "In `mcp list`, before", "now")


class SetUp(NamedTuple):
    """`spoil` changes the computer or the vault; `process` changes the server's process: see `change_process` in
    recorder.py. The owner has `approved` the agent. An answer that names the cause matches `cause`.
    """

    title: str
    cause: str
    spoil: Callable[[Trial], None] = lambda _: None
    process: Mapping[str, Any] = MappingProxyType({})
    approved: bool = True


class Seen(NamedTuple):
    """What a client showed of one set-up.

    `tools` is the number of tools that the model saw, `told` whether it got the cause, from the instructions or from
    the first call, `answer` the first line of that call's result. `state` is that of the server in the client's list,
    and `printed` whether the client printed the server's own line about the cause.
    """

    title: str
    tools: int
    told: bool
    answer: str
    state: str
    printed: bool


def _slot(trial: Trial) -> Path:
    return trial.home / ".sikkerkey" / "agents" / trial.agent


def _open_key(trial: Trial) -> None:
    (_slot(trial) / "private.pem").chmod(0o644)


def _damaged_key(trial: Trial) -> None:
    (_slot(trial) / "private.pem").write_text("-----BEGIN")


def _damaged_identity(trial: Trial) -> None:
    (_slot(trial) / "identity.json").write_text("{")


def _change_address(trial: Trial, address: str) -> None:
    path = _slot(trial) / "identity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "apiUrl": address}))


def _http_address(trial: Trial) -> None:
    _change_address(trial, "http://vault.example")


def _https_address(trial: Trial) -> None:
    _change_address(trial, "https://vault.example")


def _no_agent(trial: Trial) -> None:
    shutil.rmtree(_slot(trial))


def _second_agent(trial: Trial) -> None:
    trial.install()


def _disabled(trial: Trial) -> None:
    trial.vault.owner("disable", trial.agent)


def _revoked(trial: Trial) -> None:
    """Another agent revokes this one, which stays installed."""
    elsewhere = {"SIKKERKEY_HOME": str(trial.home / "elsewhere")}
    other = trial.install(**elsewhere)
    trial.vault.owner("approve", other)
    trial.archive("call", "manage_ai_agents", "revoke", f"agentId={trial.agent}", "--yes", **elsewhere)


def _closed_vault(trial: Trial) -> None:
    trial.vault.close()


SET_UPS = (
    SetUp("the key file has mode 0644", r"private\.pem", _open_key),
    SetUp("the key file is damaged", r"private\.pem", _damaged_key),
    SetUp("`identity.json` is damaged", r"identity", _damaged_identity),
    SetUp("the vault's URL is `http://`", r"http://", _http_address),
    SetUp("the agent is not installed here", r"no agent", _no_agent),
    SetUp("two agents, and the entry names none", r"none was chosen|--agent", _second_agent, {"options": []}),
    SetUp("the agent is pending", r"pending|approve", approved=False),
    SetUp("the agent is disabled", r"disabled|enable", _disabled),
    SetUp("the agent is revoked", r"401|revoked", _revoked),
    SetUp(
        "`SIKKERKEY_TOOLS` has a typo",
        r"SIKKERKEY_TOOLS",
        process={"variables": {"SIKKERKEY_TOOLS": "whoami,manage_secret"}},
    ),
    SetUp(
        "restrictions that leave nothing",
        r"leave nothing",
        process={"variables": {"SIKKERKEY_TOOLS": "whoami", "SIKKERKEY_EXCLUDE": "whoami"}},
    ),
    SetUp("an unknown option in the entry", r"unknown option", process={"options": ["--read-onyl"]}),
    SetUp(
        "`SIKKERKEY_CA_BUNDLE` names no file",
        r"CA bundle cannot be read",
        _https_address,
        {"variables": {"SIKKERKEY_CA_BUNDLE": "/nonexistent.pem"}},
    ),
    SetUp("the vault does not answer", r"refused|unreachable|cannot be reached", _closed_vault),
    SetUp("the proxy does not answer", r"the proxy at 127", _https_address),
    SetUp("the entry's Python is 3.8", r"Python 3\.8", process={"version": [3, 8, 20, "final", 0]}),
)


def prepare(trial: Trial, set_up: SetUp) -> None:
    """Makes the set-up on a computer on which everything works."""
    set_up.spoil(trial)
    SET_UP.write_text(json.dumps(dict(set_up.process)), encoding="utf-8")


def seen(
    set_up: SetUp,
    sessions: Sequence[Session],
    requests: Sequence[ModelRequest],
    *,
    tools: int,
    state: str,
    printed: str,
) -> Seen:
    """What the client showed: to the model in `requests`, and to the person in its output `printed`."""
    most = max(requests, key=lambda it: len(it.results), default=None)
    received = "\n".join(results_of(most)[:1]) if most else ""
    answered = [result["content"][0]["text"] for session in sessions for _, result in session.calls]
    answer = (answered or [received])[0].partition("\n")[0]
    instructions = "\n".join(request.instructions for request in requests)
    told = re.search(set_up.cause, f"{received}\n{_reasons_in(instructions)}")
    said = re.search(set_up.cause, _reasons_in(printed))
    return Seen(set_up.title, tools, bool(told), recordable(answer), state, bool(said))


def recordable(answer: str) -> str:
    """The answer without what differs between computers and trials: directories, ids and ports."""
    text = re.sub(r"/\S*?/home(?=/)", "~", answer.replace(str(INTERPRETER), "python3"))
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    return re.sub(r"(127\.0\.0\.1:)[0-9]{2,}", r"\1PORT", text)[:ANSWER_MAX_CHARACTERS]


def state_in(listing: str) -> str:
    """The state of the server in a client's list: the word at the end of its line."""
    found = re.search(r"sikkerkey.*?(disconnected|connected|failed)", listing, re.IGNORECASE)
    return found[1].lower() if found else ""


def _reasons_in(text: str) -> str:
    """The lines that begin where the server says why it does not work."""
    return "\n".join(re.findall(r"(?:No SikkerKey tool works|error: ).*", text))


# ---------------------------------------------------------------------------------------------------------------------
# the record
# ---------------------------------------------------------------------------------------------------------------------


def load(path: Path = RECORD) -> dict[str, dict[str, list[Seen]]]:
    """What was seen, by "before" or "now" and by client."""
    if not path.exists():
        return {}
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return {
        era: {client: [Seen(**members) for members in rows] for client, rows in clients.items()}
        for era, clients in recorded.items()
    }


def keep(era: str, client: str, rows: Iterable[Seen], path: Path = RECORD) -> None:
    """Updates what was seen with one client."""
    recorded = load(path)
    recorded.setdefault(era, {})[client] = list(rows)
    members = {
        era: {client: [row._asdict() for row in it] for client, it in of.items()} for era, of in recorded.items()
    }
    path.write_text(json.dumps(members, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# the tables of docs/tested-clients.md
# ---------------------------------------------------------------------------------------------------------------------


def rows(recorded: Mapping[str, Mapping[str, Sequence[Seen]]]) -> list[list[str]]:
    """The rows of the table below `HEAD`: one for each set-up."""
    table = []
    for set_up in SET_UPS:
        of_set_up = {
            era: {
                client: row for client, seen_rows in clients.items() for row in seen_rows if row.title == set_up.title
            }
            for era, clients in recorded.items()
        }
        now = of_set_up.get("now", {})
        answer = next((row.answer for row in now.values()), "")
        cells = [_shown_to(of_set_up.get("before", {})), _shown_to(now)]
        table.append([set_up.title, *cells, f"`{answer}`" if answer else ""])
    return table


def _shown_to(of_clients: Mapping[str, Seen]) -> str:
    """What the models of the clients saw; clients are named if they differ."""
    groups: dict[str, list[str]] = {}
    for client, row in of_clients.items():
        tools = f"{row.tools} tool{'' if row.tools == 1 else 's'}"
        groups.setdefault(f"{tools}, {'told' if row.told else 'not told'}", []).append(client)
    if len(groups) < 2:
        return "".join(groups) or "not tried"
    return "; ".join(f"{shown}: {', '.join(clients)}" for shown, clients in groups.items())


def client_rows(recorded: Mapping[str, Mapping[str, Sequence[Seen]]]) -> list[list[str]]:
    """The rows of the table below `CLIENT_HEAD`: one for each client."""
    clients = dict.fromkeys(client for of in recorded.values() for client in of)
    return [[client, *_sums([recorded.get(era, {}).get(client, []) for era in get_args(Era)])] for client in clients]


def _sums(eras: Sequence[Sequence[Seen]]) -> list[str]:
    """How many set-ups had tools and a told cause, and the states in the list, each for both eras."""
    counts = [[sum(row.tools > 0 for row in seen_rows) for seen_rows in eras]]
    counts.append([sum(row.told for row in seen_rows) for seen_rows in eras])
    states = [Counter(row.state for row in seen_rows if row.state) for seen_rows in eras]
    listed = ["; ".join(f"{state} {count}" for state, count in sorted(of.items())) or "-" for of in states]
    return [*(f"{count} of {len(SET_UPS)}" for pair in counts for count in pair), *listed]
