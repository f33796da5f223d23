"""A gateway beside a server: the real program, its ways in, and clients that nobody here wrote."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import httpx_sse

from harness import account
from harness.waiting import DEADLINE, PATIENCE, wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("PUSHY_GATEWAY") or REPOSITORY / "target/gateway/debug/pushy-gateway")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def encoded(part) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(secret, **claims):
    """HS256, by hand: what any library makes."""
    head = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded({'exp': int(time.time()) + 600} | claims)}"
    return f"{head}.{encoded(hmac.new(secret.encode(), head.encode(), hashlib.sha256).digest())}"


class Ways:
    """The three ways into a gateway at a port."""

    def __init__(self, port: int):
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def get(self, path: str, **options) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30 * PATIENCE, **options)

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self, evidence=lambda: "", deadline: float = DEADLINE) -> "Ways":
        wait_for("the gateway to be ready", self.is_ready, bool, deadline, evidence)
        return self

    @contextlib.contextmanager
    def events(self, headers=None, **parameters):
        """A stream of Server-Sent Events by httpx-sse: an iterator of (name, data, id)."""
        with httpx.Client(timeout=30 * PATIENCE) as client:
            with httpx_sse.connect_sse(client, "GET", f"{self.url}/events", params=parameters, headers=headers or {}) as source:
                source.response.raise_for_status()
                yield Stream(source.iter_sse())

    def socket(self, **parameters):
        from websockets.sync.client import connect

        query = str(httpx.QueryParams(parameters))
        return connect(f"ws://127.0.0.1:{self.port}/socket?{query}", open_timeout=30 * PATIENCE)


class Stream:
    def __init__(self, events):
        self.events, self.cursor = events, None

    def next(self):
        """The next event that says something: its name and what it says; a position has none."""
        for event in self.events:
            if event.id:
                self.cursor = event.id
            if event.data:
                return event.event, json.loads(event.data)
        return None

    def notice(self):
        """The next notice, past what else is said."""
        while (said := self.next()) is not None:
            if said[0] == "message":
                return said[1]

    def notices(self, count):
        return [self.notice() for _ in range(count)]

    def until(self, name):
        while (said := self.next()) is not None:
            if said[0] == name:
                return said[1]


class Outside(Ways):
    """`pushy-gateway --dsn`, with a role of its own."""

    def __init__(self, db, role: str, log: Path, **settings):
        super().__init__(settings.pop("port", None) or free_port())
        self.db, self.role, self.log, self.settings = db, role, log, settings
        self.process = None

    def start(self) -> "Outside":
        dsn = f"host={self.db.cluster.folder} port={self.db.cluster.port} user={self.role} dbname={self.db.name}"
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in ({"listen": f"127.0.0.1:{self.port}"} | self.settings).items()]
        # As the account of the server, because its socket is for nobody else.
        self.process = account.start([PROGRAM, *arguments], cwd=self.db.cluster.folder, log=self.log, env={"PUSHY_GATEWAY_DSN": dsn})
        self.wait_ready(self.log.read_text)
        return self

    def stop(self, how=signal.SIGKILL) -> int:
        self.process.send_signal(how)
        return self.process.wait(30 * PATIENCE)

    def restart(self, how=signal.SIGKILL) -> "Outside":
        self.stop(how)
        return self.start()


def read_in_background(work):
    """Runs `work` in a thread; `join()` answers what it answered."""
    answered = []
    thread = threading.Thread(target=lambda: answered.append(work()), daemon=True)
    thread.start()

    def join(deadline=DEADLINE):
        thread.join(deadline * PATIENCE)
        assert answered, "it is not done"
        return answered[0]
    return join
