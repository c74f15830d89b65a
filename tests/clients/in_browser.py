"""The clients that run in a page: `python -m clients.in_browser URL COLUMNS CLIENT...`.

Each client has a page of its own, which reads all columns at once. Each thing that the page's user sees is printed as
one line of JSON, until this process is killed.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from shutil import which
from urllib.parse import urlencode

from playwright.sync_api import Browser, sync_playwright

from browser.conftest import FLAGS
from browser.engines import Chromium, Firefox, Tab, WebKit

ENGINES: dict[str, type[Firefox | WebKit]] = {"EventSource (Firefox)": Firefox, "EventSource (WebKit)": WebKit}


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=which("chromium"), args=FLAGS)


def main(base: str, columns: str, *names: str) -> None:
    with ExitStack() as stack:
        browser = stack.enter_context(chromium()) if set(names) - set(ENGINES) else None
        tabs: list[Tab] = []
        for name in names:
            if name in ENGINES:
                tabs.append(stack.enter_context(ENGINES[name]()))
            else:
                assert browser is not None
                tabs.append(Chromium(browser.new_context().new_page()))
            tabs[-1].goto(f"{base}/page?{urlencode({'client': name, 'columns': columns})}")
        while True:
            for tab in tabs:
                for line in tab.call("() => said.splice(0)"):
                    print(json.dumps(line), flush=True)
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
