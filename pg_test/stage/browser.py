"""A real browser, Debian's Chromium, by its own protocol (DevTools): pages, what is in them, and how they look."""

import base64
import contextlib
import json
import queue
import re
import shutil
import subprocess
import threading
from pathlib import Path

from harness.waiting import DEADLINE, PATIENCE, wait_for

PROGRAM = shutil.which("chromium")
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
           "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0"]


class Browser:
    """One process with a folder of its own, which is the test's to delete."""

    def __init__(self, folder: Path):
        from websockets.sync.client import connect

        self.process = subprocess.Popen([PROGRAM, *OPTIONS, f"--user-data-dir={folder}", "about:blank"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(r"DevTools listening on (\S+)", line):
                break
        else:
            raise RuntimeError(f"Chromium did not start: {''.join(said)}")
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()
        self._closing = contextlib.ExitStack()
        self._socket = self._closing.enter_context(connect(found[1], max_size=None, open_timeout=30 * PATIENCE))
        self._answers: dict[int, queue.Queue] = {}
        self._pages: dict[str, "Page"] = {}
        self._last = 0
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        self._closing.close()
        self.process.terminate()
        self.process.wait(30 * PATIENCE)

    def _read(self) -> None:
        try:
            for text in self._socket:
                said = json.loads(text)
                if said.get("id"):
                    self._answers.pop(said["id"]).put(said)
                elif page := self._pages.get(said.get("sessionId")):
                    page._happened(said["method"], said["params"])
        except Exception:
            # Closed: whoever waits is told nothing, and has a deadline.
            pass

    def ask(self, method: str, session: str | None = None, **parameters) -> dict:
        self._last += 1
        answer = self._answers[self._last] = queue.Queue()
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters} | ({"sessionId": session} if session else {})))
        said = answer.get(timeout=DEADLINE * PATIENCE)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        return said["result"]

    def page(self, url: str, width: int = 1280, height: int = 900, scheme: str = "light", phone: bool = False) -> "Page":
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        for area in ("Page", "Runtime", "Log"):
            page.ask(f"{area}.enable")
        page.look(width, height, scheme, phone)
        page.go(url)
        return page


class Page:
    def __init__(self, browser: Browser, target: str, session: str):
        self.browser, self.target, self.session = browser, target, session
        self.errors: list[str] = []
        self._is_loaded = threading.Event()

    def ask(self, method: str, **parameters) -> dict:
        return self.browser.ask(method, self.session, **parameters)

    def _happened(self, method: str, said: dict) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"].get("exception", {}).get("description") or said["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif method == "Page.loadEventFired":
            self._is_loaded.set()

    def look(self, width: int, height: int, scheme: str = "light", phone: bool = False) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, url: str) -> None:
        self._is_loaded.clear()
        self.ask("Page.navigate", url=url)
        assert self._is_loaded.wait(DEADLINE * PATIENCE), f"{url} was not loaded"

    def evaluate(self, expression: str):
        """What an expression of JavaScript is, or what its promise comes to."""
        said = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in said:
            raise AssertionError(said["exceptionDetails"].get("exception", {}).get("description") or said["exceptionDetails"]["text"])
        return said["result"].get("value")

    def until(self, what: str, expression: str, wanted=bool, deadline: float = DEADLINE):
        return wait_for(what, lambda: self.evaluate(expression), wanted, deadline, lambda: f"errors of the page: {self.errors}")

    def offline(self, is_offline: bool) -> None:
        self.ask("Network.enable")
        self.ask("Network.emulateNetworkConditions", offline=is_offline, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def picture(self, path: Path, whole: bool = True) -> None:
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """As a person closes a tab; one that is gone already may be closed, too."""
        if any(target["targetId"] == self.target for target in self.browser.ask("Target.getTargets")["targetInfos"]):
            self.browser.ask("Target.closeTarget", targetId=self.target)

    def crash(self) -> None:
        """Its process ends: no page hides, no lock is given back by it."""
        self.browser._socket.send(json.dumps({"id": 0, "method": "Page.crash", "params": {}, "sessionId": self.session}))
