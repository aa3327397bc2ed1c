"""The looks of the one-time page: HTML for a ticket that waits, and for each way that it ends.

There is no script. The content security policy forbids everything except the page's own style sheet and form, so a name
that looks like markup is harmless even if escaping fails. Nothing here reads a clock, a file or a socket.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from html import escape
from typing import NamedTuple

from sikkerkey_tickets import REFUSED, Found, Lines, Outcome, Ticket

TEXT_MAX = 300  # characters of a name or a note that are shown
FIELD = "field"  # the inputs are called field0, field1, ...: a field of the secret may have any name
KEEP = "keep"  # the box to tick if blanks at the ends belong to the value
BUSY_REFRESH_S = 2

# Text-security masks a textarea, which takes more than one line and which no password manager offers to save. Firefox
# has it since version 114. Browsers without it blur the text. Without :has(), nothing can be revealed.
STYLE = """
:root {
  --paper: #f4f5f8; --card: #ffffff; --ink: #1b2130; --faint: #565e70; --line: #7a8296; --hair: #dfe2ea;
  --accent: #3450c8; --on-accent: #ffffff; --good: #1c7a4a; --bad: #b3342d; --on-bad: #ffffff; --well: #eef0f5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12151d; --card: #1b202c; --ink: #e8ebf3; --faint: #a5aec2; --line: #6d768c; --hair: #323949;
    --accent: #9db1ff; --on-accent: #10152a; --good: #6fd6a3; --bad: #ff958d; --on-bad: #2a100e; --well: #11141c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; min-height: 100vh; padding: 1.5rem 1rem; display: flex; align-items: center; justify-content: center;
  background: var(--paper); color: var(--ink); font: 1.0625rem/1.55 system-ui, sans-serif;
}
main {
  width: 100%; max-width: 38rem; padding: 1.75rem 2rem; background: var(--card); border-radius: .75rem;
  border-top: .3rem solid var(--accent); box-shadow: 0 .5rem 2rem rgb(0 0 0 / .12);
}
main.good { border-color: var(--good); }
main.bad { border-color: var(--bad); }
main > :last-child { margin-bottom: 0; }
h1 { margin: 0 0 .75rem; font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 1.25rem 0 .4rem; font-size: 1rem; overflow-wrap: anywhere; }
p { margin: 0 0 1rem; overflow-wrap: anywhere; }
.eyebrow { margin: 0 0 .35rem; color: var(--faint); font-size: .9375rem; }
.note { color: var(--faint); font-size: .9375rem; }
.next { font-weight: 600; }
.code {
  display: flex; align-items: center; gap: 1.25rem; margin: 0 0 1.25rem; padding: .75rem 1.1rem;
  background: var(--well); border: 1px solid var(--hair); border-radius: .5rem;
}
.code strong { font: 700 2.25rem/1.2 ui-monospace, monospace; letter-spacing: .12em; white-space: nowrap; }
.code > span { font-size: .9375rem; }
dl { margin: 0 0 1.25rem; display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .3rem 1.25rem; }
dt { color: var(--faint); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.quoted { margin: 0 0 1.25rem; padding: .1rem 0 .1rem 1rem; border-left: .2rem solid var(--line); }
.quoted h2 { margin-top: 0; }
.quoted dl, .quoted p { margin-bottom: .5rem; }
.warning {
  padding: .6rem .9rem; border: 1px solid var(--bad); border-radius: .5rem; color: var(--bad); font-weight: 600;
}
.typed { margin-bottom: 1rem; }
label { display: block; margin-bottom: .35rem; font-weight: 600; overflow-wrap: anywhere; }
textarea, button { width: 100%; font: inherit; border-radius: .5rem; min-height: 3rem; }
textarea {
  display: block; padding: .65rem .75rem; border: 1px solid var(--line); background: var(--well); color: var(--ink);
  font: 1rem/1.5 ui-monospace, monospace; resize: vertical; max-height: 50vh; field-sizing: content;
  overflow-wrap: anywhere; -webkit-text-security: disc;
}
form:has(.reveal:checked) textarea { -webkit-text-security: none; }
@supports not (-webkit-text-security: disc) {
  textarea { color: transparent; text-shadow: 0 0 .6em var(--ink); caret-color: var(--ink); }
  form:has(.reveal:checked) textarea { color: var(--ink); text-shadow: none; }
}
.tick { display: flex; align-items: baseline; gap: .6rem; margin: 0 0 .5rem; font-weight: 400; cursor: pointer; }
.tick input { flex: none; width: 1.1rem; height: 1.1rem; margin: 0; accent-color: var(--accent); translate: 0 .15rem; }
form .note { margin: 0 0 1.25rem; }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 0 1.25rem; }
.buttons button { flex: 1 1 12rem; }
button {
  padding: .5rem 1rem; border: 1px solid transparent; background: var(--accent); color: var(--on-accent);
  font-weight: 600; overflow-wrap: anywhere; text-wrap: balance; cursor: pointer;
}
button.danger { background: var(--bad); color: var(--on-bad); }
.buttons button.refuse { flex: 0 1 9rem; background: var(--card); color: var(--ink); border-color: var(--line); }
button:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
pre {
  margin: 0 0 1rem; padding: .9rem 1rem; max-height: 60vh; overflow: auto; background: var(--well);
  border: 1px solid var(--line); border-radius: .5rem; font: .9375rem/1.5 ui-monospace, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; user-select: all; -webkit-user-select: all;
}
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 32rem) {
  body { align-items: flex-start; padding: .75rem; }
  main { padding: 1.25rem; }
  .code { flex-direction: column; align-items: flex-start; gap: .25rem; }
  .buttons button.refuse { flex: 1 1 12rem; }
}
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

# The referrer policy is not no-referrer: with that, Chromium sends `Origin: null` with the page's own form.
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# The title holds no name: browsers keep it in their history, and some copy that to other computers.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{refresh}<title>{title} - sikkerkey-mcp</title>
<style>{style}</style>
</head>
<body>
<main class="{tone}">
{content}
</main>
</body>
</html>
"""

NOT_FOUND = "<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><title>404</title><h1>404: nothing here</h1></html>\n"

GO_BACK = "Go back to your assistant. If it asks, choose “I'm done, continue”."

INTRODUCTION = {
    "fill": "What you type goes from this computer straight to the vault. Your assistant does not see it.",
    "show": "The vault creates it and shows it here, once, to you. Your assistant does not see it.",
    "confirm": "Your assistant needs your consent for this. Nothing happens unless you agree.",
}
INTRODUCTION_TO_UNLOCK = (
    "The passphrase unlocks the agent's key in this computer's memory. Neither your assistant nor the vault gets it."
)
TITLE = {"fill": "Type a value", "show": "Create and show", "confirm": "Your consent"}
DONE = {"fill": "Stored", "show": "Copy it now", "confirm": "Done"}


class Form(NamedTuple):
    """What a form needs besides its ticket. `until` is a time of day; `problem` says why it is shown again."""

    path: str
    nonce: str
    left_s: float
    until: str
    problem: str = ""
    asks_to_keep: bool = False  # offers to keep blanks at the ends of a value


def form_page(ticket: Ticket, form: Form) -> str:
    """The page that asks a person. It reloads when the ticket expires, so that no form stays in a forgotten tab."""
    content = [
        '<p class="eyebrow">Your assistant asks you</p>',
        f"<h1>{_shown(ticket.title)}</h1>",
        f"<p>{INTRODUCTION_TO_UNLOCK if ticket.unlocks else INTRODUCTION[ticket.kind]}</p>",
        _code(ticket.code),
        _lines(ticket.details),
        _quoted(ticket.quoted),
        f'<p class="warning">{_shown(ticket.warning)}</p>' if ticket.warning else "",
        f'<p class="warning" id="problem" role="alert">{_shown(form.problem)}</p>' if form.problem else "",
        _answer_forms(ticket, form),
        f'<p class="note">You have {_minutes(form.left_s)}, until {escape(form.until)}.</p>',
    ]
    tone = "bad" if ticket.warning and ticket.kind == "confirm" else "plain"
    return _page(TITLE[ticket.kind], content, tone, refresh=(form.left_s + 1, form.path))


def outcome_page(ticket: Ticket, outcome: Outcome, shown: Lines = (), remarks: Iterable[str] = ()) -> str:
    """The page after a ticket has ended. `shown` are credentials for the person; `remarks` say what to know of them."""
    said = _said(outcome)
    if outcome.state == "done":
        done = "Unlocked" if ticket.unlocks else DONE[ticket.kind]
        content = [f"<h1>{done}</h1>", said, *(f"<p>{_shown(remark)}</p>" for remark in remarks)]
        if ticket.kind == "show":
            content += _credentials(shown)
        advice = f"Then {GO_BACK[0].lower()}{GO_BACK[1:]}" if ticket.kind == "show" else GO_BACK
        return _page(done, [*content, _next(advice)], "good")
    if outcome.state == "refused":
        return (
            refused_page()
            if outcome.message == REFUSED
            else _page("Over", ["<h1>Nothing was done</h1>", said, _next()])
        )
    if outcome.state == "failed":
        content = [
            "<h1>It did not work</h1>",
            said,
            "<p>Nothing was changed. Your assistant gets the same message.</p>",
        ]
        return _page("Failed", [*content, _next()], "bad")
    advice = f"{GO_BACK} Ask it to check before you try again."
    return _page("Not certain", ["<h1>It may or may not have worked</h1>", said, _next(advice)], "bad")


def refused_page() -> str:
    """The page after a refusal."""
    said = "<p>Nothing was stored, and nothing was done. Your assistant is told not to ask again.</p>"
    return _page("Refused", ["<h1>Refused</h1>", said, _next()])


def ended_page(found: Found, path: str) -> str:
    """The page of a ticket that can no longer be taken."""
    if found.state == "busy":
        content = ["<h1>One moment</h1>", "<p>The answer is on its way to the vault. This page updates itself.</p>"]
        return _page("One moment", content, refresh=(BUSY_REFRESH_S, path))
    if found.outcome is None:
        return expired_page()
    if found.outcome.state != "done":
        return outcome_page(found.ticket, found.outcome)
    content = ["<h1>This is already done</h1>", _said(found.outcome)]
    if found.ticket.kind == "show":
        content.append("<p>The credential was shown once. It cannot be shown again.</p>")
    return _page("Over", [*content, _next()])


def expired_page() -> str:
    """The page of a ticket that nobody answered in time."""
    content = [
        "<h1>This page has expired</h1>",
        "<p>Nobody answered in time. Nothing was stored, and nothing was done.</p>",
        _next("Go back to your assistant and ask it to try again. You get a new page with a new code."),
    ]
    return _page("Expired", content, "bad")


def unknown_page() -> str:
    """The page of a ticket whose file is gone."""
    return _page("Over", ["<h1>This page is over</h1>", _next(f"There is nothing left to do here. {GO_BACK}")])


def unusable_page(reason: str) -> str:
    """The page if the tickets cannot be read or written."""
    content = ["<h1>It did not work</h1>", f"<p>Nothing was done: {_shown(reason)}.</p>", _next()]
    return _page("Failed", content, "bad")


def error_page() -> str:
    """The page after an error that nobody foresaw."""
    said = "<p>Something went wrong while your answer was processed.</p>"
    advice = f"{GO_BACK} Ask it to check before you try again."
    return _page("Not certain", ["<h1>It may or may not have worked</h1>", said, _next(advice)], "bad")


def problem_with_ends(values: Mapping[str, str]) -> str:
    """What is unusual about the ends of the values, as a sentence; empty if nothing is.

    Several lines may end with a line break, as files do. After one line it is most likely a slip of the Enter key.
    """
    for value in values.values():
        kept = value[:-1] if value.endswith("\n") and "\n" in value[:-1].strip() else value
        if kept == kept.strip():
            continue
        end = "ends with a line break" if kept.endswith("\n") else "has blanks or line breaks at an end"
        return f"What you typed {end}. Nothing is stored yet. Type it again without that, or tick the box to keep it."
    return ""


def remarks_on_ends(values: Mapping[str, str]) -> list[str]:
    """What a person wants to know about values that were stored as typed."""
    if all(value == value.strip() for value in values.values()):
        return []
    return ["It was stored exactly as you typed it, with the blanks or line breaks at its ends."]


def _answer_forms(ticket: Ticket, form: Form) -> str:
    """The form that answers, and the one that refuses: it is separate, so that a refusal sends nothing typed."""
    hidden = f'<input type="hidden" name="nonce" value="{escape(form.nonce)}">'
    action = f'method="post" action="{escape(form.path)}" autocomplete="off"'
    danger = ' class="danger"' if ticket.kind == "confirm" and ticket.warning else ""
    return f"""<form {action}>
{hidden}
{_inputs(ticket, form)}<div class="buttons">
<button type="submit" name="choice" value="go"{danger}>{_shown(_button(ticket))}</button>
<button type="submit" name="choice" value="refuse" form="refuse" class="refuse">Refuse</button>
</div>
</form>
<form id="refuse" {action}>{hidden}</form>"""


def _button(ticket: Ticket) -> str:
    """What the button does: never just "OK"."""
    if ticket.unlocks:
        return "Unlock"
    if ticket.kind == "fill":
        return "Store it" if len(ticket.fields) == 1 else "Store them"
    if ticket.kind == "show":
        return "Create and show"
    return ticket.title if len(ticket.title) <= 60 else "Yes, do it"


def _inputs(ticket: Ticket, form: Form) -> str:
    """A labelled, masked input for each field, and the switch that reveals them."""
    if not ticket.fields:
        return ""
    described = "hint problem" if form.problem else "hint"
    several = len(ticket.fields) > 1
    parts = []
    for index, name in enumerate(ticket.fields):
        focus = " autofocus" if index == 0 else ""
        parts.append(f"""<div class="typed">
<label for="{FIELD}{index}">{_shown(name) if name else "Passphrase" if ticket.unlocks else "Value"}</label>
<textarea id="{FIELD}{index}" name="{FIELD}{index}" rows="{1 if several else 3}" required{focus} autocomplete="off"
 autocapitalize="none" autocorrect="off" spellcheck="false" aria-describedby="{described}" data-1p-ignore
 data-lpignore="true" data-bwignore="true" data-form-type="other"></textarea>
</div>
""")
    parts.append('<label class="tick"><input type="checkbox" class="reveal"> Show what I type</label>\n')
    if form.asks_to_keep:
        text = "Keep blanks and line breaks at the ends"
        parts.append(f'<label class="tick"><input type="checkbox" name="{KEEP}" value="yes"> {text}</label>\n')
    parts.append('<p class="note" id="hint">More than one line is fine: Enter starts a new line.</p>\n')
    return "".join(parts)


def _code(code: str) -> str:
    spoken = escape(" ".join(code))
    return f"""<div class="code">
<strong><span aria-hidden="true">{escape(code)}</span><span class="unseen">Code: {spoken}</span></strong>
<span>Check that your assistant shows the same code.<br>If not, refuse.</span>
</div>"""


def _lines(lines: Lines) -> str:
    rows = "".join(f"<dt>{_shown(label)}</dt><dd><bdi>{_shown(text)}</bdi></dd>" for label, text in lines)
    return f"<dl>{rows}</dl>" if rows else ""


def _quoted(lines: Lines) -> str:
    if not lines:
        return ""
    rows = "".join(f"<dt>{_shown(label)}</dt><dd><q><bdi>{_shown(text)}</bdi></q></dd>" for label, text in lines)
    return f"""<section class="quoted" aria-labelledby="quoted">
<h2 id="quoted">In the assistant's words</h2>
<dl>{rows}</dl>
<p class="note">The assistant chose these texts. The vault does not vouch for them.</p>
</section>"""


def _credentials(shown: Lines) -> list[str]:
    """Each credential under its label. HTML drops a first line break after <pre>, so one of ours protects it."""
    parts = []
    for index, (label, text) in enumerate(shown):
        value = escape(text).replace("\r", "&#13;")
        parts.append(f'<h2 id="label{index}">{_shown(label)}</h2>')
        parts.append(f'<pre id="value{index}" tabindex="0" aria-labelledby="label{index}">\n{value}</pre>')
    note = "A click selects all of it. After you close or reload this page, it cannot be shown again."
    return [*parts, f'<p class="note">{note}</p>']


def _next(text: str = GO_BACK) -> str:
    return f'<p class="next">{escape(text)}</p><p class="note">You can close this tab.</p>'


def _minutes(left_s: float) -> str:
    minutes = max(1, int(left_s / 60 + 0.5))
    return "one minute" if minutes == 1 else f"{minutes} minutes"


def _said(outcome: Outcome) -> str:
    text = outcome.message[:1].upper() + outcome.message[1:]
    end = "" if text.endswith((".", "!", "?")) else "."
    return f"<p>{_shown(text)}{end}</p>" if text else ""


def _shown(text: str) -> str:
    """Escaped text of a bounded length, with invisible characters spelled out, so that none hides or reorders it."""
    spelled = "".join(_visible(character) for character in text[:TEXT_MAX])
    more = len(text) - TEXT_MAX
    return escape(spelled) + (f" … ({more} more characters)" if more > 0 else "")


def _visible(character: str) -> str:
    if character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return character
    return f"[U+{ord(character):04X}]"


def _page(title: str, content: Iterable[str], tone: str = "plain", refresh: tuple[float, str] | None = None) -> str:
    tag = (
        "" if refresh is None else f'<meta http-equiv="refresh" content="{int(refresh[0])};url={escape(refresh[1])}">\n'
    )
    body = "\n".join(part for part in content if part)
    return PAGE.format(refresh=tag, title=escape(title), style=STYLE, tone=tone, content=body)
