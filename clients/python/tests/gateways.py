"""A gateway as the server runs it, for the tests of streams, and a wire to it that can be cut."""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from server import Database, eventually


def token(secret: str, **claims: object) -> str:
    def part(data: object) -> str:
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    head = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'exp': int(time.time()) + 600} | claims)}"
    return f"{head}.{part(hmac.new(secret.encode(), head.encode(), hashlib.sha256).digest())}"


class Gateway:
    def __init__(self, db: Database, options: str = "") -> None:
        self.db = db
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        db.rows("DO $$ BEGIN CREATE ROLE web; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        db.rows("SELECT pushy.channel_grant('orders', 'web')")
        self.secret = db.value("SELECT pushy.gateway_key_register('app', role => 'web')")
        db.rows(f"ALTER DATABASE {db.name} SET pushy.gateway_options = '{options}'")
        db.rows(f"ALTER DATABASE {db.name} SET pushy.gateway_listen = '127.0.0.1:{self.port}'")
        self.ready()

    def ready(self) -> None:
        def answers() -> bool:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/notices?channel=orders&wait=0s", headers={"Authorization": f"Bearer {self.token()}"})
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as response:
                return bool(response.status == 200)
            return False

        eventually(answers, "a gateway that is ready")

    def token(self, **claims: object) -> str:
        return token(self.secret, **claims)

    def ticket(self) -> str:
        with self.db.server.connect(self.db.name) as connection:
            connection.execute("SET ROLE web")
            row = connection.execute("SELECT pushy.ticket_create('{orders}', subject => 'ann')").fetchone()
            assert row
            return str(row[0])

    def notify(self, *payloads: str) -> None:
        for payload in payloads:
            self.db.rows("SELECT pushy.notify('orders', %s, topic => %s)", payload, f"order/{payload}")


class Wire:
    """Between a client and the gateway: it cuts what goes through it."""

    def __init__(self, to: int) -> None:
        self.to, self.connections = to, 0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                try:
                    gateway = socket.create_connection(("127.0.0.1", self.to))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, gateway]
                for one, other in ((client, gateway), (gateway, client)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.cut()
        self._listener.close()


@contextlib.contextmanager
def wire(to: int) -> Iterator[Wire]:
    made = Wire(to)
    yield made
    made.stop()
