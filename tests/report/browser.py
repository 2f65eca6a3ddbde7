"""A headless Chromium that is driven through a pair of pipes: what it is asked, what it shows, what it complains of."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LIMIT = 60.0
"""Seconds that one answer may take."""

KEYS = {"Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9}


class Browser:
    """One browser process with one open page.

    requests: addresses that the page asked for, its own file and what it brings along (`data:`) left out. complaints:
    script errors, and what the browser logs as a warning or an error.
    """

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        arguments = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}", "about:blank",
        ]  # fmt: skip
        place = (
            f"import os, sys; os.dup2({theirs_in}, 3); os.dup2({theirs_out}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", place, *arguments],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number, self._session = b"", 0, ""
        self._loaded = False
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = next(found for found in self("Target.getTargets")["targetInfos"] if found["type"] == "page")
        attached = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)

    def __call__(self, method: str, **values: Any) -> dict[str, Any]:
        """Ask one thing of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._until(self._number)

    def open(self, path: Path, *, width: int = 1200, height: int = 900) -> None:
        """Show a file, and forget what was complained of before."""
        self.resize(width, height)
        self.requests.clear()
        self.complaints.clear()
        self._loaded = False
        self("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._until(None)

    def resize(self, width: int, height: int = 900) -> None:
        """Another size of the window, in CSS pixels."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """One key, down and up."""
        common: dict[str, Any] = {
            "key": key,
            "code": "Space" if key == " " else key,
            "windowsVirtualKeyCode": KEYS[key],
        }
        text = {"Enter": "\r", " ": " "}.get(key)
        self("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """A picture of the whole page."""
        found = self("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def _until(self, number: int | None) -> dict[str, Any]:
        """Read up to an answer, or one message of any kind."""
        end = time.monotonic() + LIMIT
        while True:
            while b"\0" not in self._buffer:
                assert select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0], "the browser is silent"
                more = os.read(self._read, 1 << 20)
                assert more, "the browser has ended"
                self._buffer += more
            line, _, self._buffer = self._buffer.partition(b"\0")
            message: dict[str, Any] = json.loads(line)
            self._note(message)
            if number is None:
                return message
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result

    def _note(self, message: dict[str, Any]) -> None:
        values = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                if not (address := values["request"]["url"]).startswith(("data:", "file:")):
                    self.requests.append(address)
            case "Runtime.exceptionThrown":
                self.complaints.append(str(values["exceptionDetails"]))
            case "Log.entryAdded" if values["entry"]["level"] in ("warning", "error"):
                self.complaints.append(values["entry"]["text"])
