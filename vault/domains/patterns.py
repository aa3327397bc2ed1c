"""Regular expressions that match in linear time.

Python's `re` backtracks, so a pattern such as `(a+)+b` can take exponential time. Here agents supply the pattern and
unauthenticated clients the text. A pattern is compiled to a nondeterministic finite automaton (Thompson 1968), which is
simulated step by step: the work is at most the size of the pattern times the length of the text.

The syntax: characters, `.`, `[...]`, `\\d \\w \\s` and their complements, escaped punctuation, `( )` and `(?: )`, `|`,
`* + ? {n} {n,} {n,m}`. The whole text must match; `^` at the start and `$` at the end are allowed.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Union

MAX_PATTERN = 200  # characters
MAX_STEPS = 500  # instructions, after counted repetitions are expanded

TOKEN = re.compile(
    r"""(?P<quantifier>(?:[*+?]|\{[0-9]{1,3}(?:,(?:[0-9]{1,3})?)?\})\??)
      | (?P<open>\((?:\?:)?(?!\?))
      | (?P<other>[)|])
      | (?P<atom>\\[dDwWsS] | \\[^A-Za-z0-9] | \[\^?(?:[^\]\[\\&|~]|\\[dDwWsS]|\\[^A-Za-z0-9])+\] | [^\\\[\]{}()*+?|^$])
    """,
    re.VERBOSE | re.DOTALL,
)
REPEATS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Character(NamedTuple):
    """Matches one character. `re` is safe for a single character."""

    one: re.Pattern[str]


class Jump(NamedTuple):
    """Continues at each of the targets."""

    targets: tuple[int, ...]


Program = list[Union[Character, Jump]]


class Sequence(NamedTuple):
    """The parts in order."""

    parts: tuple[Node, ...]


class Choice(NamedTuple):
    """Any one of the branches."""

    branches: tuple[Node, ...]


class Repeat(NamedTuple):
    """At least `low` and at most `high` repetitions. None means no limit."""

    part: Node
    low: int
    high: int | None


Node = Union[Character, Sequence, Choice, Repeat]


def compile_pattern(pattern: str) -> Program:
    """Compile a pattern. Raises ValueError if it is too large or uses unsupported syntax."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError("too long")
    tokens = _tokens(pattern)
    node = _choice(tokens)
    if tokens:
        raise ValueError("unbalanced parenthesis")
    program: Program = []
    _emit(node, program)
    return program


def matches(program: Program, text: str) -> bool:
    """Whether the whole text matches."""
    positions = _reached(program, {0})
    for character in text:
        positions = _reached(
            program, {position + 1 for position in positions if _accepts(program, position, character)}
        )
    return len(program) in positions


def _tokens(pattern: str) -> list[tuple[str, str]]:
    """The kinds and texts of the tokens in reverse order, so that `pop` returns the next one."""
    found, position = [], len(pattern) - len(pattern.removeprefix("^"))
    while position < len(pattern) and pattern[position:] != "$":
        token = TOKEN.match(pattern, position)
        if token is None:
            raise ValueError("unsupported syntax")
        found.append((str(token.lastgroup), token[0]))
        position = token.end()
    return found[::-1]


def _choice(tokens: list[tuple[str, str]]) -> Node:
    branches = [_sequence(tokens)]
    while tokens and tokens[-1][1] == "|":
        tokens.pop()
        branches.append(_sequence(tokens))
    return branches[0] if len(branches) == 1 else Choice(tuple(branches))


def _sequence(tokens: list[tuple[str, str]]) -> Node:
    parts = []
    while tokens and tokens[-1][0] in ("atom", "open"):
        parts.append(_repeat(tokens, _part(tokens)))
    # No empty parts: every node then needs an instruction, so MAX_STEPS also limits the work of compiling.
    if not parts:
        raise ValueError("an empty alternative, or nothing to repeat")
    return Sequence(tuple(parts))


def _part(tokens: list[tuple[str, str]]) -> Node:
    kind, text = tokens.pop()
    if kind == "atom":
        return Character(_single(text))
    inner = _choice(tokens)
    if not tokens or tokens.pop()[1] != ")":
        raise ValueError("unclosed parenthesis")
    return inner


def _single(atom: str) -> re.Pattern[str]:
    if "--" in atom:  # `re` reserves it for set difference
        raise ValueError("unsupported syntax")
    try:
        return re.compile(atom)
    except re.error:  # a reversed range
        raise ValueError("unsupported syntax") from None


def _repeat(tokens: list[tuple[str, str]], part: Node) -> Node:
    if not tokens or tokens[-1][0] != "quantifier":
        return part
    text = tokens.pop()[1]
    if text[0] in REPEATS:
        low, high = REPEATS[text[0]]
        return Repeat(part, low, high)
    least, comma, most = text.rstrip("?").strip("{}").partition(",")
    low, high = int(least), int(most) if most else None if comma else int(least)
    if high is not None and not 1 <= high >= low:
        raise ValueError("invalid repetition")
    return Repeat(part, low, high)


def _emit(node: Node, program: Program) -> None:
    if isinstance(node, Character):
        _add(program, node)
    elif isinstance(node, Sequence):
        for part in node.parts:
            _emit(part, program)
    elif isinstance(node, Choice):
        _emit_choice(node, program)
    else:
        _emit_repeat(node, program)


def _emit_choice(node: Choice, program: Program) -> None:
    fork, ends = _add(program, Jump(())), []
    starts = []
    for branch in node.branches:
        starts.append(len(program))
        _emit(branch, program)
        ends.append(_add(program, Jump(())))
    program[fork] = Jump(tuple(starts))
    for end in ends:
        program[end] = Jump((len(program),))


def _emit_repeat(node: Repeat, program: Program) -> None:
    for _ in range(node.low):
        _emit(node.part, program)
    if node.high is None:
        start = _add(program, Jump(()))
        _emit(node.part, program)
        _add(program, Jump((start,)))
        program[start] = Jump((start + 1, len(program)))
        return
    exits = []
    for _ in range(node.high - node.low):
        exits.append(_add(program, Jump(())))
        _emit(node.part, program)
    for position in exits:
        program[position] = Jump((position + 1, len(program)))


def _add(program: Program, step: Character | Jump) -> int:
    if len(program) >= MAX_STEPS:
        raise ValueError("too large")
    program.append(step)
    return len(program) - 1


def _accepts(program: Program, position: int, character: str) -> bool:
    step = program[position] if position < len(program) else None
    return isinstance(step, Character) and step.one.fullmatch(character) is not None


def _reached(program: Program, positions: set[int]) -> set[int]:
    """The positions, and all positions that jumps reach from them."""
    found, waiting = set(positions), list(positions)
    while waiting:
        position = waiting.pop()
        step = program[position] if position < len(program) else None
        new = set(step.targets) - found if isinstance(step, Jump) else set()
        found |= new
        waiting += new
    return found
