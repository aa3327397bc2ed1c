"""`make dashboard-check`: axe-core looks for barriers on every page of the dashboard, light and dark, wide and narrow.

axe-core is installed from its lock file in build/axe-core. It needs npm, Chromium and ChromeDriver.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.vault.support.dashboard import Browser
from tests.vault.support.filled_vault import pages_to_see
from tools import npm
from tools.dashboard_pictures import SIZES, emulate, signed_in

AXE = "axe-core@4.14.1"
PLACE = Path(__file__).resolve().parent.parent / "build" / "axe-core"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# Details are closed at first; what is in them is looked at too, except questions, which would cover the page.
OPEN = 'document.querySelectorAll("details:not(.confirm)").forEach(each => { each.open = true; });'
RUN = """
const [rules, done] = arguments;
axe.run(document, { runOnly: rules, resultTypes: ["violations"] }).then(result => done(result.violations));
"""


def main() -> None:
    """Check the pages, and print what is wrong."""
    npm.install(AXE, PLACE, lambda words: subprocess.run(["npm", *words], cwd=PLACE, check=True))
    source = (PLACE / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    checked, problems = 0, []
    with signed_in() as (browser, ids):
        for path in (*pages_to_see(ids), "/nothing", "/sign-in/used"):
            for found in violations(browser, path, source):
                checked += 1
                problems += found
    for problem in dict.fromkeys(problems):
        print(problem)
    print(f"axe-core: {checked} views, {len(problems)} violations")
    sys.exit(bool(problems))


def violations(browser: Browser, path: str, source: str) -> Iterator[list[str]]:
    """What axe-core finds on a page, in each scheme and size."""
    for scheme in ("light", "dark"):
        for size, width in SIZES.items():
            emulate(browser.driver, scheme, width, 900)
            browser.open(path)
            browser.driver.execute_script(OPEN)
            browser.driver.execute_script(source)
            found: list[dict[str, Any]] = browser.driver.execute_async_script(RUN, list(RULES))
            where = f"{path or '/'} {scheme} {size}"
            yield [f"{where}: {each['id']}: {each['help']}: {node['html']}" for each in found for node in each["nodes"]]


if __name__ == "__main__":
    main()
