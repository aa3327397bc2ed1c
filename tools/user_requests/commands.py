"""The same requests from a terminal: commands of a shell, and what runs them in this process.

A line is a command, or one of three forms of a shell with commands in them: a list as the value of a variable, a loop
over a list, and a file that is written first. `Terminal` understands these forms and no others.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union

from tools.user_requests.data import DAY_MS, World
from tools.user_requests.script import CHART_DAYS, COLLEAGUE, date

PROGRAM = "sikkerkey-mcp"
Run = Callable[[list[str]], str]  # the words of a command after the program's name; returns its standard output


class Command(NamedTuple):
    """A command."""

    text: str

    def lines(self) -> list[str]:
        """As a person types it."""
        return [f"{PROGRAM} {self.text}"]


class Collect(NamedTuple):
    """The last column of a list, as `name` and with commas between the rows, but without the rows that match."""

    name: str
    text: str
    without: str = ""

    def lines(self) -> list[str]:
        """As a person types it."""
        grep = f" | grep -Ev '{self.without}'" if self.without else ""
        return [f"{self.name}=$({PROGRAM} {self.text} |", f"  tail -n +2{grep} | paste -sd, -)"]


class Each(NamedTuple):
    """A command for each row of a list that does not match; the columns are its variables."""

    text: str
    variables: tuple[str, ...]
    command: str
    without: str = ""

    def lines(self) -> list[str]:
        """As a person types it."""
        grep = f" | grep -Ev '{self.without}'" if self.without else ""
        loop = f"  tail -n +2{grep} | while read -r {' '.join(self.variables)}; do"
        return [f"{PROGRAM} {self.text} |", loop, f"    {PROGRAM} {self.command}", "  done"]


class Happens(NamedTuple):
    """Something outside the terminal."""

    text: str
    happen: Callable[[World], None]

    def lines(self) -> list[str]:
        """A remark for a person."""
        return [f"# {self.text}"]


Line = Union[Command, Collect, Each, Happens]


class Typed(NamedTuple):
    """What a person types for a request, and the answer in what the last line prints."""

    script: tuple[Line, ...]
    answer: Callable[[str], Any] = lambda _out: None

    def shown(self, times: Mapping[str, str]) -> str:
        """The lines, with the times in place of their names."""
        return with_times("\n".join(line for each in self.script for line in each.lines()), times)


def with_times(text: str, times: Mapping[str, str]) -> str:
    """`text` with times in place of {today}, {yesterday} and so on."""
    return re.sub(r"\{([a-z_]+)\}", lambda match: times[match[1]], text)


def times_of(today_ms: int) -> dict[str, str]:
    """The dates that the commands name."""
    days = {"today": 0, "yesterday": 1, "week_ago": 7, "chart_begins": CHART_DAYS}
    return {name: date(today_ms - ago * DAY_MS) for name, ago in days.items()}


class Terminal:
    """Runs what a person types. `files` are there before."""

    def __init__(self, run: Run, world: World, directory: Path) -> None:
        self._run, self._world, self._times = run, world, times_of(world.today_ms)
        for name, content in FILES.items():
            (directory / name).write_text(content, encoding="utf-8")

    def answer(self, typed: Typed) -> Any:
        """Runs the lines; what the answer of the last one is."""
        out, variables = "", {}
        for line in typed.script:
            if isinstance(line, Happens):
                line.happen(self._world)
            elif isinstance(line, Collect):
                variables[line.name] = ",".join(row.split("  ")[-1] for row in self._rows(line.text, line.without))
            elif isinstance(line, Each):
                for row in self._rows(line.text, line.without):
                    self._output(line.command, dict(zip(line.variables, row.split())))
            else:
                out = self._output(line.text, variables)
        return typed.answer(out)

    def _rows(self, text: str, without: str) -> list[str]:
        rows = self._output(text, {}).splitlines()[1:]
        return [row for row in rows if not (without and re.search(without, row))]

    def _output(self, text: str, variables: Mapping[str, str]) -> str:
        words = shlex.split(with_times(text, self._times))
        return self._run([re.sub(r"\$(\w+)", lambda match: variables[match[1]], word) for word in words])


def rows_of(out: str) -> list[str]:
    """The rows below the names of the columns."""
    return out.splitlines()[1:]


def _counted(out: str) -> dict[str, int]:
    names = rows_of(out)
    return {name: names.count(name) for name in sorted(set(names))}


def _readers(out: str) -> list[str]:
    rows = [re.split("  +", row) for row in rows_of(out)]
    return sorted(name for name, access in rows if access in ("yes", "within policy"))


def _exported(_out: str) -> int:
    text = Path("yesterday.csv").read_text(encoding="utf-8")
    return len([row for row in csv.reader(io.StringIO(text)) if row]) - 1


def _last_word(out: str) -> str:
    return out.rsplit(maxsplit=1)[-1]


FILES = {
    "password.txt": "a test account's password\n",
    "login.json": '{"user": "report", "host": "db.example.com"}\n',
}

# fmt: off
TYPED = (
    Typed((
        Each("call review stale_secrets days=90 --columns projectId,id,type", ("project", "secret", "type"),
             "call manage_secrets rotate projectId=$project secretId=$secret fields=password --yes",
             without=" secret$"),
        Each("call review stale_secrets days=90 --columns projectId,id", ("project", "secret"),
             "call manage_secrets rotate projectId=$project secretId=$secret --yes"),
    )),
    Typed((Command("call review reads project=Webshop secret=STRIPE_API_KEY"
                   " from={yesterday}T18:00 to={today}T06:00 --columns machineName"),), _counted),
    Typed((Command("call manage_project_machines grants_set project=Webshop machine=webshop-ci-1"
                   " secrets=SENTRY_DSN,S3_ACCESS_KEY --yes"),)),
    Typed((
        Command("call manage_machines approve machine=billing-web-2 --yes"),
        Collect("secrets", "call manage_secrets list project=Billing --columns name", without="ADMIN_PASSWORD"),
        Command("call manage_project_machines grants_set project=Billing machine=billing-web-2 secrets=$secrets --yes"),
    )),
    Typed((
        Command("call manage_canaries create project=Webshop name=AWS_ROOT_SECRET_KEY"),
        Collect("secrets",
                "call manage_project_machines grants_get project=Webshop machine=webshop-web-1 --columns id"),
        Command("call manage_project_machines grants_set project=Webshop machine=webshop-web-1"
                " secrets=$secrets,AWS_ROOT_SECRET_KEY --yes"),
    )),
    Typed((
        Command("call manage_trash list --columns name,deletedAt"),
        Command("call manage_trash restore secret=LEGACY_TOKEN"),
    )),
    Typed((Command("call manage_temporary_secrets create project=Webshop name='for the contractor'"
                   " value=@password.txt expiresInSeconds=86400 --columns url"),), _last_word),
    Typed((Command("call review access project=Webshop secret=STRIPE_API_KEY --columns name,access"),), _readers),
    Typed((
        Command("call manage_policies create project=Billing name='Weekdays 8 to 18' timeWindowEnabled=true"
                " timeWindowStart=08:00 timeWindowEnd=18:00 timeWindowTimezone=Europe/Copenhagen"
                " timeWindowDays=mon,tue,wed,thu,fri"),
        Command("call manage_policies binding_bind project=Billing secret=S3_SECRET_KEY policy='Weekdays 8 to 18'"),
    )),
    Typed((Command("call review coverage gaps=policy --columns id"),), lambda out: set(rows_of(out))),
    Typed((Command("call manage_secrets dynamic_create project='Support Desk' existingSecret=GRAFANA_TOKEN"
                   " intervalSeconds=604800"),)),
    Typed((
        Command("call manage_secrets dynamic_create project=Webshop name=REPORT_LOGIN fieldNames=user,host,password"
                " fields=password staticFields=@login.json intervalSeconds=2592000"),
        Command("call manage_secrets dynamic_delete secret=REPORT_LOGIN"),
    )),
    Typed((
        Command("call manage_secrets versions project='Mobile API' secret=DATABASE_LOGIN"),
        Command("call manage_secrets rollback project='Mobile API' secret=DATABASE_LOGIN version=2 --yes"),
    )),
    Typed((
        Command("call manage_alerts list"),
        Command("call manage_alerts set enabledActions=canary_triggered --yes"),
    )),
    Typed((Command("call manage_webhooks create url=https://hooks.example.com/sikkerkey"
                   " actions=canary_triggered,secret_rotate --yes"),)),
    Typed((
        Command("call manage_ipallowlist add cidr=203.0.113.0/24 label=office --yes"),
        Command("call manage_ipallowlist enable --yes"),
    )),
    Typed((
        Command("call manage_projects delete project='Marketing Site' preview=true"),
        Command("call manage_projects delete project='Marketing Site' confirmName='Marketing Site'"
                " --yes"),
    )),
    Typed((Command("call read_audit reads_over_time from={chart_begins} to={yesterday}T23:59:59 bucket=day"
                   " --columns reads"),), lambda out: [int(row) for row in rows_of(out)]),
    Typed((Command("call read_audit export from={yesterday} to={yesterday}T23:59:59"
                   " --to-file yesterday.csv"),), _exported),
    Typed((Command("call manage_sdks get sdkId=python"),), str),
    Typed((Command("call review coverage gaps=reads --columns id"),), lambda out: set(rows_of(out))),
    Typed((
        Command("call manage_team invite email=kim@example.com --yes"),
        Happens("kim@example.com accepts the invitation", lambda world: world.accept_invitation(COLLEAGUE)),
        Command("call manage_team permissions_set project=Billing member=kim@example.com"
                " permissions=machines.view,machines.add --yes"),
    )),
    Typed((
        Command("call manage_machines revoke machine=infrastructure-web-2 preview=true"),
        Command("call manage_machines revoke machine=infrastructure-web-2 --yes"),
    )),
    Typed((
        Collect("actions", "call read_audit actions --columns items",
                without="_read$|_denied$|_failure$|_access$"),
        Command("call read_audit query from={week_ago} actions=$actions pageSize=200 --columns id"),
    ), lambda out: {int(row) for row in rows_of(out)}),
    Typed((Command("call whoami --columns agentId"),), _last_word),
)
# fmt: on
