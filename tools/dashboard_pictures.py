"""`make dashboard-pictures`: photographs the dashboard's pages, light and dark, wide and narrow.

The pictures are in build/dashboard/. With --docs, those that the documentation shows are written to docs/images/ as
well. It needs Chromium and ChromeDriver, as the browser tests do.
"""

from __future__ import annotations

import argparse
import base64
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from selenium.webdriver import Chrome

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.vault.support.dashboard import Browser
from tests.vault.support.filled_vault import fill, ordinary, pages_to_see
from tests.vault.support.served_vault import FakeClock, SharedServer, Vault
from tools.page_screenshots import start_browser
from vault import audit
from vault.desk import Desk
from vault.router import Actor

ROOT = Path(__file__).resolve().parent.parent
BUILD, DOCS = ROOT / "build" / "dashboard", ROOT / "docs" / "images"
SIZES = {"wide": 1200, "narrow": 390}  # width in pixels
MAX_HEIGHT = 2_600  # of a picture
# What the documentation shows: the path, the scheme and the size, in pixels.
SHOWN_IN_DOCS = {
    "overview": ("", "light", 1200, 860),
    "agent": ("/agents", "light", 1200, 760),
    "secret": ("/projects/{project}/secrets/{secret}", "light", 1200, 860),
    "audit": ("/audit", "dark", 1200, 860),
    "narrow": ("", "dark", 390, 860),
}
QUALITY = 70  # of these, which are small
DAYS = 30


@contextmanager
def filled_vault(directory: Path) -> Iterator[tuple[Vault, dict[str, str]]]:
    """A served vault with a month of events."""
    server, clock = SharedServer(), FakeClock()
    clock.now_ms = time.time_ns() // 1_000_000 - DAYS * 86_400_000
    vault = Vault(directory, clock, server)
    try:
        yield vault, fill(Desk(vault.store, clock, webhooks_to_loopback=True), ordinary, lambda ids: _read(vault, ids))
    finally:
        vault.close()
        server.stop()


@contextmanager
def signed_in() -> Iterator[tuple[Browser, dict[str, str]]]:
    """A browser with a session of a filled vault."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        vault, ids = stack.enter_context(filled_vault(directory / "vault"))
        browser = Browser(stack.enter_context(start_browser(f"{directory}/profile")), vault)
        browser.sign_in()
        yield browser, ids


def _read(vault: Vault, ids: dict[str, str]) -> None:
    """Let a machine read for a month, more by day than by night, and be refused at times."""
    machine = Actor("machine", ids["machine"], "192.0.2.7")
    about = {"secret_id": ids["secret"], "project_id": ids["project"]}
    for hour in range(DAYS * 24):
        vault.clock.advance(3_600)
        with vault.store.transaction() as db:
            for _ in range(round(3 + 2 * math.sin((hour - 9) * math.pi / 12) + math.sin(hour / 31))):
                audit.record(db, vault.clock(), machine, "secret_read", "version 2", **about)
            if hour % 37 == 0:
                detail = "the policy allows 100 reads a day"
                audit.record(db, vault.clock(), machine, "secret_read_denied", detail, **about)


def photograph(browser: Browser, path: str, directory: Path) -> None:
    """Write the pictures of one page."""
    name = re.sub(r"[^a-z]+", "-", re.sub(r"/[^/]*[0-9][^/]*", "/one", path)).strip("-") or "overview"
    driver = browser.driver
    for scheme in ("light", "dark"):
        for size, width in SIZES.items():
            emulate(driver, scheme, width, 800)
            browser.open(path)
            height = driver.execute_script("return Math.ceil(document.documentElement.scrollHeight)")
            emulate(driver, scheme, width, min(height, MAX_HEIGHT))
            data = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
            (directory / f"{name}-{scheme}-{size}.png").write_bytes(base64.b64decode(data))


def emulate(driver: Chrome, scheme: str, width: int, height: int) -> None:
    """Show pages in a scheme and a size."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1.0, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def main() -> None:
    """Photograph the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", action="store_true", help="also write docs/images/")
    parser.add_argument("pages", nargs="*", help="only the pages with these paths, such as /audit; / is the overview")
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    with signed_in() as (browser, ids):
        for path in [path.rstrip("/") for path in arguments.pages] or pages_to_see(ids):
            photograph(browser, path, BUILD)
        for name, (path, scheme, width, height) in SHOWN_IN_DOCS.items() if arguments.docs else ():
            emulate(browser.driver, scheme, width, height)
            browser.open(path.format(**ids))
            wanted = {"format": "webp", "quality": QUALITY}
            data = browser.driver.execute_cdp_cmd("Page.captureScreenshot", wanted)["data"]
            (DOCS / f"dashboard-{name}.webp").write_bytes(base64.b64decode(data))


if __name__ == "__main__":
    main()
