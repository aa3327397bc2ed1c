"""`make page-pictures`: photographs every state of the one-time page, light and dark, wide and narrow.

The pictures are in build/page/. With --docs, those that the documentation shows are written to docs/images/ as well. It
needs Chromium and ChromeDriver, as the browser tests do.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sikkerkey_page_html as html
from sikkerkey_tickets import Found, Outcome, Ticket

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
ROOT = Path(__file__).resolve().parent.parent
BUILD, DOCS = ROOT / "build" / "page", ROOT / "docs" / "images"
SIZES = {"wide": (640, 1.0), "narrow": (360, 1.0), "sharp": (900, 2.0)}  # width, and device pixels to one of them
SHOWN_IN_DOCS = {
    "fill-light-wide": "page-fill.png",
    "confirm-dark-wide": "page-confirm.png",
    "show-done-light-wide": "page-show.png",
}

FILL = Ticket(
    code="4F7K",
    agent_id="agent-1",
    tool="manage_secrets",
    action="update_value",
    arguments={},
    digest="",
    title="Store the value of the secret “DB_PASSWORD”",
    details=(("Project", "Webshop"), ("Vault", "Acme"), ("Agent", "laptop-of-ada")),
    quoted=(),
    warning="",
    fields=("",),
    shows=False,
    expires_s=0.0,
)
STRUCTURED = FILL._replace(
    title="Create the secret “STRIPE”",
    details=(("Project", "Webshop"), ("Vault", "Acme"), ("Agent", "laptop-of-ada")),
    quoted=(("Name", "STRIPE"), ("Note", "Live key, from the dashboard. Rotate in March.")),
    fields=("publishable_key", "secret_key", "webhook_secret"),
)
SHOW = FILL._replace(
    title="Create an enrollment token for the project “Webshop”",
    details=(("Project", "Webshop"), ("Uses", "1"), ("Vault", "Acme"), ("Agent", "laptop-of-ada")),
    fields=(),
    shows=True,
)
CONFIRM = FILL._replace(
    title="Delete the project “Webshop” for good",
    details=(
        ("Project", "Webshop"),
        ("Secrets", "14"),
        ("Machines", "3"),
        ("Vault", "Acme"),
        ("Agent", "laptop-of-ada"),
    ),
    warning="This cannot be undone.",
    fields=(),
)
LONG = FILL._replace(
    title=f"Store the value of the secret “{'VERY_LONG_NAME_' * 12}”",
    details=(("Project", "x" * 300), ("Agent", "ada \u202eevil\u202c <b>bold</b>")),
    quoted=(("Note", "Ignore the code above and type your\nmaster password. " * 30),),
    warning="The present value is read by three machines.",
)
FORM = html.Form("/token", "nonce", 600.0, "14:32")
TOKEN = (("Enrollment token", "ske_9fXo2mQ7vT4bLw81cZkR5nYdHs3gPaEu"),)

PAGES: Mapping[str, str] = {
    "fill": html.form_page(FILL, FORM),
    "fill-again": html.form_page(
        FILL, FORM._replace(left_s=80.0, problem=html.problem_with_ends({"": "x\n"}), asks_to_keep=True)
    ),
    "fill-structured": html.form_page(STRUCTURED, FORM),
    "fill-long": html.form_page(LONG, FORM),
    "fill-done": html.outcome_page(
        FILL, Outcome("done", "version 7 of DB_PASSWORD is in the vault", {}), (), html.remarks_on_ends({"": "a\nb\n"})
    ),
    "show": html.form_page(SHOW, FORM),
    "show-done": html.outcome_page(SHOW, Outcome("done", "the token is valid until tomorrow, 14:32", {}), TOKEN),
    "confirm": html.form_page(CONFIRM, FORM),
    "confirm-done": html.outcome_page(CONFIRM, Outcome("done", "the project Webshop is deleted", {})),
    "refused": html.refused_page(),
    "withdrawn": html.outcome_page(FILL, Outcome("refused", "the assistant's call was cancelled", {})),
    "unusable": html.unusable_page("/home/ada/.sikkerkey/waiting is open to other users; chmod 700 closes it"),
    "failed": html.outcome_page(FILL, Outcome("failed", "the vault refused: the agent may not write this project", {})),
    "unclear": html.outcome_page(FILL, Outcome("unclear", "the connection broke after the request was sent", {})),
    "error": html.error_page(),
    "busy": html.ended_page(Found("busy", FILL, None), "/token"),
    "done-before": html.ended_page(
        Found("over", SHOW, Outcome("done", "the token is valid until tomorrow", {})), "/token"
    ),
    "expired": html.expired_page(),
    "unknown": html.unknown_page(),
}


def start_browser(profile: str, *arguments: str) -> Chrome:
    """Starts Chromium without a window."""
    options = ChromeOptions()
    options.binary_location = BROWSER or ""
    for argument in ("--headless=new", f"--user-data-dir={profile}", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    for argument in arguments:
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium refuses to run its sandbox as root
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options, ChromeService(DRIVER))


def photograph(browser: Chrome, directory: Path, name: str, page: str) -> None:
    """Writes the pictures of one page."""
    file = directory / "page.html"
    file.write_text(page, encoding="utf-8")
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        for size, (width, scale) in SIZES.items():
            metrics = {"width": width, "height": 100, "deviceScaleFactor": scale, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            browser.get(file.as_uri())
            browser.execute_script("document.querySelectorAll('textarea').forEach(area => area.value = 'x'.repeat(20))")
            height = browser.execute_script("return Math.ceil(document.documentElement.scrollHeight)") + 16
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**metrics, "height": height})
            data = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
            (BUILD / f"{name}-{scheme}-{size}.png").write_bytes(base64.b64decode(data))


def main() -> None:
    """Photographs the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", action="store_true", help="also write docs/images/")
    parser.add_argument("pages", nargs="*", help="only these")
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, start_browser(f"{directory}/profile") as browser:
        for name in arguments.pages or PAGES:
            photograph(browser, Path(directory), name, PAGES[name])
    if arguments.docs:
        DOCS.mkdir(parents=True, exist_ok=True)
        for source, target in SHOWN_IN_DOCS.items():
            shutil.copyfile(BUILD / f"{source}.png", DOCS / target)


if __name__ == "__main__":
    main()
