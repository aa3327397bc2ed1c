"""The web page behind a link to a temporary secret. Pure: words in, a page out.

It works without a script and allows none: everything but its own style sheet and its own form is forbidden by the
content security policy, so that a value that looks like markup stays text even if the escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timezone
from html import escape
from importlib import resources

from vault.calls import Raw

MAX_PASSPHRASE = 256

STYLE = resources.files("vault").joinpath("share_page.css").read_text("utf-8")  # also out of an archive
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main class="{tone}">
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""

# Shown as typed, not as dots: a slip that nobody sees would destroy the secret.
FORM = """<p>Somebody sent you a value that can be seen once. Enter the passphrase that you got with this link.</p>
<form method="post">
<label for="passphrase">Passphrase</label>
<input id="passphrase" name="passphrase" type="text" required maxlength="{most}" autofocus autocomplete="off"
 autocapitalize="none" autocorrect="off" spellcheck="false" aria-describedby="once">
<p id="once" class="note"><strong>You have one attempt.</strong> A wrong passphrase destroys the secret.</p>
<button type="submit">Show it once</button>
</form>
<p class="note">The link is good until <time datetime="{machine}">{human}</time>.</p>"""

# The line break after <pre> belongs to the markup: without it a value's own first line break would be dropped.
REVEALED = """<p>Keep it somewhere safe now: the vault has deleted its copy.</p>
<h2 id="name">{name}</h2>
<pre id="value" tabindex="0" aria-labelledby="name">
{value}</pre>
<p class="note">A click selects all of it. Once this page is closed or loaded again, the value is gone.</p>"""

GONE = {
    "viewed": "Its value has been shown already. If that was not you, tell the sender: somebody else has seen it.",
    "destroyed": "Somebody entered a wrong passphrase, and that destroyed it. Ask the sender for a new link.",
    "expired": "Nobody opened it in time, and it was deleted. Ask the sender for a new link.",
}


def form(expires_ms: int) -> Raw:
    """The question for the passphrase."""
    expiry = datetime.fromtimestamp(expires_ms // 1000, timezone.utc)
    human = f"{expiry.day} {expiry:%B %Y, %H:%M} UTC"
    return _page(200, "A secret for you", FORM.format(most=MAX_PASSPHRASE, machine=expiry.isoformat(), human=human))


def revealed(name: str, value: str) -> Raw:
    """The value, exactly."""
    return _page(200, "Here is the secret", REVEALED.format(name=escape(name), value=_exact(value)), "good")


def wrong() -> Raw:
    """The passphrase was wrong."""
    words = "That was not the passphrase, and the secret has been destroyed. Ask the sender for a new link."
    return _page(403, "Wrong passphrase", f"<p>{words}</p>", "bad")


def gone(status: str) -> Raw:
    """There was a secret here once."""
    return _page(410, "This secret is gone", f"<p>{GONE[status]}</p>", "bad")


def unknown() -> Raw:
    """There is no such link."""
    words = "The link is not complete, or what it led to was deleted long ago. Copy it once more from the message."
    return _page(404, "Nothing here", f"<p>{words}</p>", "bad")


def later(wait_s: int) -> Raw:
    """Too many attempts at links that do not exist."""
    words = "Too many wrong links were tried from your address. Nothing was opened or destroyed."
    page = _page(429, "Try again in a minute", f"<p>{words}</p>", "bad")
    return page._replace(headers={**page.headers, "retry-after": str(wait_s)})


def _page(status: int, title: str, content: str, tone: str = "plain") -> Raw:
    page = PAGE.format(title=title, style=STYLE, tone=tone, content=content)
    return Raw(page.encode(), "text/html; charset=utf-8", HEADERS, status)


def _exact(value: str) -> str:
    """Escaped; a bare carriage return would be read as a line feed."""
    return escape(value).replace("\r", "&#13;")
