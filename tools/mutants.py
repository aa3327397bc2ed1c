"""`make mutants`: changes one operator, constant, condition or statement at a time and checks that a test fails.

A random sample of such mutants of the files in TESTS is run in a copy of the repository, each against the tests listed
for its file. A mutant that no test notices has survived, which means that a test is missing, unless tests/mutants.txt
explains why the change does not matter. The exit status is 1 if a mutant survived without an explanation there.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
EXPLAINED = ROOT / "tests" / "mutants.txt"

# Files and the tests that concern them, fast ones first. The first pattern that matches a file counts.
SERVER = (
    "golden arguments lenient_arguments signing answers restrictions limits activity identity injection protocol "
    "eras questions resources prompts framing table http"
)
# fmt: off
TESTS = {
    "sikkerkey_mcp.py": f"{SERVER} plaintext concurrency first_call hardening local_attacks lifecycle faults",
    "sikkerkey_core.py": f"{SERVER} hardening",
    "sikkerkey_actions.py": SERVER,
    "sikkerkey_refusals.py": "answers injection golden plaintext faults",
    "sikkerkey_rules.py": "arguments looks golden person table",
    "sikkerkey_results.py": f"{SERVER} pages plaintext",
    "sikkerkey_activity.py": "activity",
    "sikkerkey_address.py": "identity pinned_certificate http",
    "sikkerkey_tls.py": "http faults doctor",
    "sikkerkey_http.py": "http_connections http hardening faults",
    "sikkerkey_identity.py": "identity local_attacks doctor",
    "sikkerkey_keys.py": "signing locked_key rotation",
    "sikkerkey_options.py": "restrictions limits person pages start split_reads",
    "sikkerkey_page.py": "page",
    "sikkerkey_page_html.py": "page",
    "sikkerkey_passphrase.py": "locked_key rotation",
    "sikkerkey_person.py": "person",
    "sikkerkey_questions.py": "questions",
    "sikkerkey_redact.py": "redact answers plaintext",
    "sikkerkey_shell.py": "shell identity doctor_remedies",
    "sikkerkey_tickets.py": "tickets person",
    "sikkerkey_times.py": "times",
    "sikkerkey_unlock.py": "locked_key",
    "sikkerkey_review.py": "review",
    "sikkerkey_cli/edit/*.py": "edit* clients",
    "sikkerkey_cli/agents.py": "cli local_attacks hardening",
    "runtime/**/*.py": "archive",
    "vault/crypto.py": "vault_rekey vault_migrations vault_sealing vault_plaintext",
    "vault/rootkey.py": "vault_sealing vault_rekey vault_directory vault_cli",
    "vault/gate.py": "vault_gate vault_machines vault_machine_reads vault_agent_admin vault_ip_allowlist",
    "vault/files.py": "vault_directory vault_backup vault_sealing",
    "vault/inputs.py": "vault_inputs vault_routes vault_axes vault_projects vault_secrets vault_temporary_secrets",
    "vault/backup.py": "vault_backup",
    "vault/certificate.py": "vault_tls",
    "vault/chain.py": "vault_audit vault_tampering",
    "vault/outbound.py": "vault_outbound vault_webhooks",
    "vault/peers.py": "dashboard_peers loopback_owner",
    "vault/seals.py": "vault_tampering vault_migrations vault_secrets",
    "vault/verification.py": "vault_tampering vault_audit",
    "vault/dashboard/sessions.py": "dashboard_sessions dashboard_attacks",
    "vault/dashboard/web.py": "dashboard_sessions dashboard_peers dashboard_attacks dashboard_walks",
    "vault/domains/policies.py": "vault_policies vault_axes vault_machine_reads",
    "vault/domains/ip_allowlist.py": "vault_ip_allowlist vault_axes",
    "vault/domains/machine_reads.py": "vault_machine_reads vault_canaries vault_withheld",
    "vault/domains/temporary_secrets.py": "vault_temporary_secrets vault_share_page",
}
# fmt: on

# Each operator with what it is replaced by.
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
REMOVABLE = (ast.Expr, ast.Raise, ast.AugAssign, ast.Delete, ast.Break, ast.Continue)


class Mutant(NamedTuple):
    """One change: `text` is the whole file with it; `before` and `after` are the changed lines as one line each."""

    file: str
    line: int
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}\n  - {self.before}\n  + {self.after}"


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What a node can be replaced by."""
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[number] = COMPARISONS[type(operator)]()
            yield changed
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _joins_text(node):
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int)):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, REMOVABLE) and not _is_docstring(node):
        yield ast.Pass()
    elif isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple)):
        yield ast.Pass()  # without a name, later code would only fail because the name is missing


def negations(node: ast.AST) -> Iterator[ast.expr]:
    """The conditions of a node; a condition that `replacements` would turn around already is left out."""
    tests = [node.test] if isinstance(node, (ast.If, ast.While, ast.IfExp)) else []
    tests += node.ifs if isinstance(node, ast.comprehension) else []
    yield from (test for test in tests if not isinstance(test, (ast.Compare, ast.UnaryOp, ast.Constant)))


def _joins_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, (str, bytes)))
        for part in (node.left, node.right)
    )


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: no annotations, no `if __name__ == "__main__"`, no parts of f-strings."""
    for name, value in ast.iter_fields(tree):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or name in ("annotation", "returns") or isinstance(child, ast.JoinedStr):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test).startswith("__name__"):
                continue
            yield child
            yield from nodes(child)


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Every mutant of a file."""
    found = []
    for node in nodes(ast.parse(source)):
        for changed in replacements(node):
            found.append(_mutant(file, source, node, ast.unparse(changed)))
        for test in negations(node):
            found.append(_mutant(file, source, test, f"not ({ast.unparse(test)})"))
    return found


def _mutant(file: str, source: str, node: ast.AST, replacement: str) -> Mutant:
    assert isinstance(node, (ast.expr, ast.stmt))
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    lines = source.encode().splitlines(keepends=True)
    head, tail = lines[node.lineno - 1][: node.col_offset], lines[node.end_lineno - 1][node.end_col_offset :]
    # Parentheses keep the precedence; statements and constants do without.
    new = replacement if isinstance(node, (ast.stmt, ast.Constant)) else f"({replacement})"
    changed = (head + new.encode() + tail).decode()
    before = b"".join(lines[node.lineno - 1 : node.end_lineno]).decode()
    text = b"".join(lines[: node.lineno - 1]).decode() + changed + b"".join(lines[node.end_lineno :]).decode()
    return Mutant(file, node.lineno, " ".join(before.split()), " ".join(changed.split()), text)


def tested() -> dict[str, str]:
    """Every file that TESTS matches, with the names of its tests."""
    found: dict[str, str] = {}
    for pattern, names in TESTS.items():
        for path in sorted(ROOT.glob(pattern)):
            found.setdefault(str(path.relative_to(ROOT)), names)
    return found


def explained() -> dict[tuple[str, str, str], str]:
    """(file, before, after) -> the reason why the mutant may survive, from tests/mutants.txt."""
    entries = EXPLAINED.read_text(encoding="utf-8").split("\n\n")[1:]  # the first paragraph describes the format
    found = {}
    for entry in entries:
        file, before, after, reason = entry.strip().split("\n", 3)
        found[file, before.strip()[2:], after.strip()[2:]] = " ".join(reason.split())
    return found


class Copy:
    """A copy of the repository, which takes one mutant at a time."""

    def __init__(self, place: Path) -> None:
        self.root, self.output = place / "tree", place / "output.txt"
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, listed.decode().split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        for name in ("dist", "build"):
            (self.root / name).symlink_to(ROOT / name)

    def tests(self, file: str) -> list[str]:
        """The paths of the tests for a file. Raises SystemExit if TESTS names a test that does not exist."""
        found = []
        for name in tested()[file].split():
            paths = sorted(self.root.glob(f"tests/**/test_{name}.py"))
            if not paths:
                raise SystemExit(f"mutants: there is no test_{name}.py for {file}")
            found += [str(path.relative_to(self.root)) for path in paths]
        return found

    def passes(self, file: str, timeout_s: float | None = None) -> bool:
        """True if all tests for `file` pass. A run that takes longer than `timeout_s` has failed."""
        # Without bytecode: a mutant may have the size and the time of the file that it replaces.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self.root.parent)}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *self.tests(file)]
        options: dict[str, Any] = {"cwd": self.root, "env": env, "stdin": subprocess.DEVNULL, "start_new_session": True}
        with (
            self.output.open("wb") as output,
            subprocess.Popen(command, stdout=output, stderr=output, **options) as run,
        ):
            try:
                return run.wait(timeout_s) == 0
            except subprocess.TimeoutExpired:
                return False
            finally:
                if run.poll() is None:
                    os.killpg(run.pid, signal.SIGKILL)

    def survives(self, mutant: Mutant, timeout_s: float) -> bool:
        """True if no test notices the mutant."""
        path = self.root / mutant.file
        original = path.read_bytes()
        path.write_text(mutant.text, encoding="utf-8")
        try:
            return self.passes(mutant.file, timeout_s)
        finally:
            path.write_bytes(original)


def chosen(options: argparse.Namespace) -> list[Mutant]:
    """The mutants to run: a sample of all, or those of one file or line."""
    files = [file for file in tested() if options.file in (file, None)]
    if not files:
        raise SystemExit(f"mutants: no tests are listed for {options.file}")
    found = [mutant for file in files for mutant in mutants_of(file, (ROOT / file).read_text(encoding="utf-8"))]
    if options.line:
        return [mutant for mutant in found if mutant.line == options.line]
    return random.Random(options.seed).sample(found, min(options.sample, len(found)))  # noqa: S311  # not for keys


def run(mutants: list[Mutant]) -> int:
    """Runs the mutants and prints what became of each; the number that survived without an explanation."""
    reasons, limits_s, counts = explained(), dict[str, float](), {"caught": 0, "explained": 0, "survived": 0}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        tree = Copy(Path(place))
        for mutant in mutants:
            if mutant.file not in limits_s:
                begin_s = time.monotonic()
                if not tree.passes(mutant.file):
                    print(tree.output.read_text(encoding="utf-8"), file=sys.stderr)
                    raise SystemExit(f"mutants: the tests for {mutant.file} fail without any change")
                limits_s[mutant.file] = 10 + 3 * (time.monotonic() - begin_s)
            reason = reasons.get((mutant.file, mutant.before, mutant.after), "")
            outcome = "caught"
            if tree.survives(mutant, limits_s[mutant.file]):
                outcome = "explained" if reason else "survived"
            counts[outcome] += 1
            print(f"{outcome}: {mutant}" + (f"\n  {reason}" if outcome == "explained" else ""), flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return counts["survived"]


def main() -> int:
    """Runs the command line; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=40, help="how many mutants to run (default 40)")
    parser.add_argument("--seed", type=int, default=1, help="selects the sample (default 1)")
    parser.add_argument("--file", help="only mutants of this file")
    parser.add_argument("--line", type=int, help="with --file: every mutant of this line")
    return 1 if run(chosen(parser.parse_args())) else 0


if __name__ == "__main__":
    sys.exit(main())
