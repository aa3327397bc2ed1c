"""Regular expressions whose matching time does not depend on their cunning. Pure: no SQL, no clock.

Python's `re` goes back and tries again, and `(a+)+b` can keep it busy for years; here an agent supplies the pattern and
a stranger the text. So a pattern is compiled to a small program (Thompson 1968), and all places in it where a match
could be are followed at once: the work is at most the pattern's size times the text's length.

The language: characters, `.`, `[...]`, `\\d \\w \\s` and their opposites, escaped punctuation, `( )` and `(?: )`, `|`,
`* + ? {n} {n,} {n,m}`. The whole text has to match; `^` at the start and `$` at the end may say so.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Union

MAX_PATTERN = 200  # characters
MAX_STEPS = 500  # instructions, once the counted repetitions are written out

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
    """Takes one character; the standard library's engine is safe for that."""

    one: re.Pattern[str]


class Jump(NamedTuple):
    """Goes on in several places at once."""

    targets: tuple[int, ...]


Program = list[Union[Character, Jump]]


class Sequence(NamedTuple):
    """One after the other."""

    parts: tuple[Node, ...]


class Choice(NamedTuple):
    """Any one of them."""

    branches: tuple[Node, ...]


class Repeat(NamedTuple):
    """At least `low` times and at most `high` times, None for no end."""

    part: Node
    low: int
    high: int | None


Node = Union[Character, Sequence, Choice, Repeat]


def compiled(pattern: str) -> Program:
    """The program of a pattern; ValueError for one that is too large or not in the language."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError("too long")
    tokens = _tokens(pattern)
    node = _choice(tokens)
    if tokens:
        raise ValueError("a parenthesis too many")
    program: Program = []
    _emit(node, program)
    return program


def matches(program: Program, text: str) -> bool:
    """Whether the whole text matches."""
    places = _reached(program, {0})
    for character in text:
        places = _reached(program, {place + 1 for place in places if _takes(program, place, character)})
    return len(program) in places


def _tokens(pattern: str) -> list[tuple[str, str]]:
    """Kinds and texts, the last one first, so that the next one is popped from the end."""
    found, position = [], len(pattern) - len(pattern.removeprefix("^"))
    while position < len(pattern) and pattern[position:] != "$":
        token = TOKEN.match(pattern, position)
        if token is None:
            raise ValueError("not in the language")
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
    # Nothing may be empty: every node then costs an instruction, and MAX_STEPS bounds the work of compiling too.
    if not parts:
        raise ValueError("an empty alternative, or nothing to repeat")
    return Sequence(tuple(parts))


def _part(tokens: list[tuple[str, str]]) -> Node:
    kind, text = tokens.pop()
    if kind == "atom":
        return Character(_single(text))
    inner = _choice(tokens)
    if not tokens or tokens.pop()[1] != ")":
        raise ValueError("an open parenthesis")
    return inner


def _single(atom: str) -> re.Pattern[str]:
    if "--" in atom:  # reserved by the standard library for set difference
        raise ValueError("not in the language")
    try:
        return re.compile(atom)
    except re.error:  # a range that runs backwards
        raise ValueError("not in the language") from None


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
        raise ValueError("a repetition that ends before it begins")
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
    for place in exits:
        program[place] = Jump((place + 1, len(program)))


def _add(program: Program, step: Character | Jump) -> int:
    if len(program) >= MAX_STEPS:
        raise ValueError("too large")
    program.append(step)
    return len(program) - 1


def _takes(program: Program, place: int, character: str) -> bool:
    step = program[place] if place < len(program) else None
    return isinstance(step, Character) and step.one.fullmatch(character) is not None


def _reached(program: Program, places: set[int]) -> set[int]:
    """The places and all that jumps lead to from there."""
    found, waiting = set(places), list(places)
    while waiting:
        place = waiting.pop()
        step = program[place] if place < len(program) else None
        new = set(step.targets) - found if isinstance(step, Jump) else set()
        found |= new
        waiting += new
    return found
