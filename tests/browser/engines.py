"""A tab in each browser engine, with one interface: open a page, and call a function of JavaScript there."""

import json
import os
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol, Self

from playwright.sync_api import Page

from browser.peers import PATIENCE, free_port, until

# What playwright calls evaluate: the page's own global scope, whatever scope a driver has.
CALL = """
const done = arguments[arguments.length - 1];
window.eval(arguments[0]).then(text => done([text, null]), error => done([null, String(error)]));
"""
PREFERENCES = {
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.server": "",
}


class Tab(Protocol):
    """One tab of a browser."""

    def goto(self, url: str) -> None:
        """Open a page in place of the current one."""

    def call(self, function: str, *values: Any) -> Any:
        """Call a function in the page, wait if it is async, and return what it returns."""


class Chromium:
    """A page of playwright."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def goto(self, url: str) -> None:
        self._page.goto(url)

    def call(self, function: str, *values: Any) -> Any:
        return self._page.evaluate(f"values => ({function})(...values)", list(values))


class Driven:
    """A browser that takes WebDriver's commands; subclasses transport them."""

    def _command(self, name: str, values: dict[str, Any]) -> Any:
        raise NotImplementedError

    def goto(self, url: str) -> None:
        self._command("url", {"url": url})

    def call(self, function: str, *values: Any) -> Any:
        expression = f"({function})(...{json.dumps(values)})"
        code = f"Promise.resolve({expression}).then(value => JSON.stringify(value ?? null))"
        text, error = self._command("execute/async", {"script": CALL, "args": [code]})
        assert error is None, error
        return json.loads(text)


class Firefox(Driven):
    """Debian's Firefox ESR, driven by Marionette, a protocol of JSON over TCP that needs no driver."""

    COMMANDS = {"url": "WebDriver:Navigate", "execute/async": "WebDriver:ExecuteAsyncScript"}  # noqa: RUF012
    _first = _current = ""  # handles of tabs

    def __enter__(self) -> Self:
        """Start the browser with a new profile."""
        self._profile = tempfile.TemporaryDirectory()
        port = free_port()
        preferences = {**PREFERENCES, "marionette.port": port}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
        (Path(self._profile.name) / "user.js").write_text("".join(lines))
        self._process = subprocess.Popen(
            ["firefox-esr", "--headless", "--marionette", "--no-remote", "--profile", self._profile.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._socket = until(lambda: connected(port), 4 * PATIENCE)
        self._socket.settimeout(4 * PATIENCE)
        self._reader = self._socket.makefile("rb")
        self._read()  # its greeting
        self._number = 0
        self._send("WebDriver:NewSession", {})
        self._first = self._current = self._send("WebDriver:GetWindowHandle", {})["value"]
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop the browser."""
        self._reader.close()
        self._socket.close()
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._profile.cleanup()

    def _read(self) -> Any:
        digits = b""
        while (one := self._reader.read(1)) != b":":
            digits += one
        return json.loads(self._reader.read(int(digits)))

    def _send(self, name: str, values: dict[str, Any]) -> Any:
        self._number += 1
        text = json.dumps([0, self._number, name, values]).encode()
        self._socket.sendall(b"%d:%b" % (len(text), text))
        _, _, error, result = self._read()
        assert error is None, error
        return result

    def _command(self, name: str, values: dict[str, Any]) -> Any:
        return self.command_in(self._first, name, values)

    def command_in(self, handle: str, name: str, values: dict[str, Any]) -> Any:
        """Command one of the tabs."""
        if handle != self._current:
            self._send("WebDriver:SwitchToWindow", {"handle": handle, "focus": False})
            self._current = handle
        return self._send(self.COMMANDS[name], values)["value"]

    def tab(self) -> "FirefoxTab":
        """Open another tab."""
        return FirefoxTab(self, self._send("WebDriver:NewWindow", {"type": "tab", "focus": False})["handle"])

    def close(self, handle: str) -> None:
        """Close a tab, but not the first one."""
        self._send("WebDriver:SwitchToWindow", {"handle": handle, "focus": False})
        self._send("WebDriver:CloseWindow", {})
        self._send("WebDriver:SwitchToWindow", {"handle": self._first, "focus": False})
        self._current = self._first


class FirefoxTab(Driven):
    """Another tab of a Firefox."""

    def __init__(self, firefox: Firefox, handle: str) -> None:
        self._firefox = firefox
        self._handle = handle

    def _command(self, name: str, values: dict[str, Any]) -> Any:
        return self._firefox.command_in(self._handle, name, values)

    def close(self) -> None:
        self._firefox.close(self._handle)


class WebKit(Driven):
    """WebKitGTK's small browser, driven by its driver over HTTP, on a display of its own."""

    def __enter__(self) -> Self:
        """Start the display, the driver and the browser."""
        display = ["Xvfb", "-displayfd", "1", "-nolisten", "tcp"]
        self._display = subprocess.Popen(display, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._display.stdout is not None
        number = self._display.stdout.readline().strip()
        port = free_port()
        self._driver = subprocess.Popen(
            ["WebKitWebDriver", f"--port={port}"],
            env={**os.environ, "DISPLAY": f":{number}", "LIBGL_ALWAYS_SOFTWARE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: connected(port)).close()
        self._session = f"http://127.0.0.1:{port}/session"
        answer = self._ask("POST", "", {"capabilities": {"alwaysMatch": {}}})
        self._session += f"/{answer['sessionId']}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop the browser, the driver and the display."""
        self._ask("DELETE", "")
        for process in (self._driver, self._display):
            process.terminate()
            process.communicate(timeout=PATIENCE)

    def _ask(self, method: str, path: str, values: dict[str, Any] | None = None) -> Any:
        body = None if values is None else json.dumps(values).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._session}{path}", body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=4 * PATIENCE) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read()) from error

    def _command(self, name: str, values: dict[str, Any]) -> Any:
        return self._ask("POST", f"/{name}", values)


def connected(port: int) -> socket.socket | None:
    """Return a connection, or None if no server listens yet."""
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    except OSError:
        return None
