"""The demo's live page: serves demo/live, makes tickets for whom it lets in (everybody, on the loopback), says what the roll-up is now, and has
pgbench write as long as somebody looks. `demo_page.py FOLDER PORT` is that, for the server whose socket lies in FOLDER."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "demo" / "live"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PACES = (20, 200, 1000)
# pgbench ends by itself, so that a page that was forgotten writes no disk full.
WRITES_FOR_S = 600
# The page asks nobody but this server and the gateway for anything.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' {gateway} {socket}; base-uri 'none'; form-action 'none'"
NOW = """SELECT pushy.log_position()::text, (SELECT json_agg(json_build_object(
             'branch', branch, 'transactions', transactions, 'turnover', turnover, 'net', net) ORDER BY branch) FROM branch_kpi)"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Page:
    """What the page asks for, of the database of `dsn`; `pgbench` is the program."""

    def __init__(self, dsn: str, pgbench: str, gateway: str) -> None:
        self.dsn, self.gateway = dsn, gateway
        self.pgbench = [pgbench, "-n", "-c", "4", "-j", "1", dsn]
        self.writer: subprocess.Popen | None = None
        self.pace = 0
        self.lock = threading.Lock()

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.dsn, autocommit=True)

    def now(self) -> dict:
        """The roll-up, and the cursor that belongs to it: one snapshot, so what is heard after it is what is missing in it."""
        with self.connect() as session:
            cursor, branches = session.execute(NOW).fetchone()
        return {"gateway": self.gateway, "cursor": cursor, "branches": branches, "pace": self.paced(), "paces": PACES}

    def ticket(self) -> dict:
        """A web server of yours would look who it is, and say so: subject => '7'."""
        with self.connect() as session:
            session.execute("SET ROLE web")
            return {"ticket": session.execute("SELECT pushy.ticket_create('{branch_kpi,large_amounts}')").fetchone()[0]}

    def paced(self) -> int:
        return self.pace if self.writer and self.writer.poll() is None else 0

    def write(self, pace: int) -> dict:
        """pgbench at another pace; 0: none."""
        with self.lock:
            if pace != self.paced():
                self.stop()
                if pace in PACES:
                    self.writer = subprocess.Popen([*self.pgbench, "-R", str(pace), "-T", str(WRITES_FOR_S)],
                                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                    self.pace = pace
            return {"pace": self.paced()}

    def stop(self) -> None:
        if self.writer:
            self.writer.terminate()
            self.writer.wait()
            self.writer = None


class Handler(http.server.BaseHTTPRequestHandler):
    page: Page
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self.is_for_us():
            return
        if self.path == "/now":
            return self.say(self.page.now())
        if self.path == "/pace":
            return self.say({"pace": self.page.paced()})
        name = self.path.partition("?")[0].lstrip("/") or "index.html"
        path = (PAGE / name).resolve()
        if not path.is_relative_to(PAGE) or not path.is_file() or path.suffix not in KINDS:
            return self.send_error(404)
        self.answer(path.read_bytes(), KINDS[path.suffix])

    def do_POST(self) -> None:
        # Of a page of another origin: nothing that it may have done here.
        if not self.is_for_us() or self.headers.get("Origin") != f"http://{self.headers['Host']}":
            return self.send_error(403)
        said = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1_000))
        if self.path == "/ticket":
            return self.say(self.page.ticket())
        if self.path == "/write":
            return self.say(self.page.write(json.loads(said)["pace"]))
        self.send_error(404)

    def is_for_us(self) -> bool:
        """A name that somebody has pointed here is none of ours."""
        is_ours = self.headers.get("Host", "").rpartition(":")[0] in ("127.0.0.1", "localhost")
        if not is_ours:
            self.send_error(421)
        return is_ours

    def say(self, what: dict) -> None:
        self.answer(json.dumps(what).encode(), "application/json")

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        gateway = self.page.gateway
        for name, value in (("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
                            ("X-Content-Type-Options", "nosniff"),
                            ("Content-Security-Policy", POLICY.format(gateway=gateway, socket=gateway.replace("http", "ws", 1)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(page: Page, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server that answers in threads of its own, from now on."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"page": page}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def allow(demo, port: int) -> str:
    """The gateway of the shop's database, for pages of that port; its URL."""
    demo.play_file("live.sql")
    gateway = free_port()
    shop = demo.shop
    shop.sql(f"ALTER DATABASE {shop.name} SET pushy.gateway_options = 'origins=http://127.0.0.1:{port},http://localhost:{port}'")
    shop.sql(f"ALTER DATABASE {shop.name} SET pushy.gateway_listen = '127.0.0.1:{gateway}'")
    return f"http://127.0.0.1:{gateway}"


def play(demo, folder: Path, tell) -> None:
    """Leaves a process that serves the page, and says where; it ends with the demo's folder (demo.py stop)."""
    tell("A page that hears it all: the server runs a gateway for browsers (demo/live.sql, demo/live)")
    demo.show_file("live.sql")
    port = free_port()
    gateway = allow(demo, port)
    command = [sys.executable, __file__, demo.cluster.dsn(demo.shop.name), demo.cluster.installation.program("pgbench"), gateway, str(port)]
    with open(folder / "page.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    (folder / "page.pid").write_text(str(process.pid))
    if process.stdout.readline() != b"ready\n":
        sys.exit(f"The page is not served: {(folder / 'page.log').read_text()}")
    print(f"\n   Open  http://127.0.0.1:{port}/\n")
    print("   The roll-up moves while pgbench writes. Cut the connection there, and see that nothing is missing.")


def end(folder: Path) -> None:
    """Ends the process that serves the page, if that is still the one."""
    try:
        pid = int((folder / "page.pid").read_text())
        if b"demo_page.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        pass


def main(dsn: str, pgbench: str, gateway: str, port: str) -> None:
    page = Page(dsn, pgbench, gateway)
    is_over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_over.set())
    serve(page, int(port))
    print("ready", flush=True)
    is_over.wait()
    page.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
