"""The gateway behind nginx and Caddy, with the configurations of docs/gateway.md, over TLS and HTTP/2: each way in, and whom the gateway takes for the client."""

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess

import pytest

from harness import account
from harness.installation import REPOSITORY
from harness.waiting import PATIENCE, wait_for
from stage.gateway import Outside, free_port, read_in_background, token

NAME = "push.example.com"
SHOWN = (REPOSITORY / "docs" / "gateway.md").read_text()


def shown(beginning):
    """The block of the page that begins so."""
    return next(block for block in re.findall(r"^```text\n(.*?)^```", SHOWN, re.M | re.S) if block.startswith(beginning))


@pytest.fixture
def behind(cluster):
    """A gateway that believes a proxy of this machine, and a certificate for it."""
    db = cluster.database()
    db.sql("CREATE ROLE web; CREATE ROLE gateway LOGIN; SELECT pushy.gateway_grant('gateway'); SELECT pushy.channel_grant('orders', 'web')")
    gateway = Outside(db, "gateway", cluster.folder / "gateway.log", hosts=NAME, trusted_proxies="127.0.0.1", keep_alive="1s")
    # Its own name is the proxy's: nobody asks it by another.
    gateway.is_ready = lambda: gateway.get("/healthz").status_code == 200 if gateway.process.poll() is None and is_open(gateway.port) else False
    gateway.start()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
                    "-keyout", cluster.folder / "push.key", "-out", cluster.folder / "push.pem"], check=True, capture_output=True)
    for name in ("push.key", "push.pem"):
        account.give(cluster.folder / name)
    yield gateway
    gateway.stop()


def is_open(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def nginx(folder, port, gateway_port):
    config = shown("map $http_upgrade")
    for old, new in (("listen 443", f"listen 127.0.0.1:{port}"), ("127.0.0.1:8432", f"127.0.0.1:{gateway_port}"), ("/etc/ssl/", f"{folder}/")):
        assert old in config
        config = config.replace(old, new)
    kept = "".join(f"{what}_temp_path {folder}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(f"daemon off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{kept}{config}}}\n")
    return [shutil.which("nginx", path="/usr/sbin:/usr/bin"), "-p", folder, "-c", folder / "nginx.conf"]


def caddy(folder, port, gateway_port):
    config = shown(NAME)
    for old, new in ((f"{NAME} {{", f"https://{NAME}:{port} {{\n    bind 127.0.0.1\n    tls {folder}/push.pem {folder}/push.key"), ("127.0.0.1:8432", f"127.0.0.1:{gateway_port}")):
        assert old in config
        config = config.replace(old, new)
    (folder / "Caddyfile").write_text(f"{{\n    admin off\n    auto_https disable_redirects\n    storage file_system {folder}/caddy\n}}\n{config}")
    return [shutil.which("caddy"), "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_each_way_in_goes_through_the_proxy_that_the_page_shows(behind, proxy):
    from websockets.sync.client import connect

    if shutil.which(proxy.__name__, path="/usr/sbin:/usr/bin") is None:
        pytest.skip(f"no {proxy.__name__}")
    db, folder, port = behind.db, behind.db.cluster.folder, free_port()
    log = folder / "proxy.log"
    running = account.start(proxy(folder, port, behind.port), cwd=folder, log=log, env={"HOME": str(folder)})
    bearer = f"Authorization: Bearer {token(db.value('''SELECT pushy.gateway_key_register('app', role => 'web')'''), sub='ann')}"
    curl = ["curl", "-sSN", "--cacert", folder / "push.pem", "--resolve", f"{NAME}:{port}:127.0.0.1", "-H", bearer, "-H", "X-Forwarded-For: 10.9.9.9", "--interface", "127.0.0.2"]
    url = f"https://{NAME}:{port}"
    try:
        wait_for("the proxy to let through", lambda: subprocess.run([*curl, f"{url}/notices?channel=orders&wait=0s"], capture_output=True, text=True),
                 lambda done: '"notices"' in done.stdout, evidence=lambda: log.read_text())
        # Server-Sent Events, each as it comes: none waits for more in a buffer.
        stream = subprocess.Popen([*curl, "-w", "%{http_version}", f"{url}/events?channel=orders"], stdout=subprocess.PIPE, text=True)
        lines = iter(stream.stdout.readline, "")
        assert any(line.strip() == "event: subscribed" for line in lines)
        for payload in ("a", "b"):
            db.sql("SELECT pushy.notify('orders', %s)", payload)
            assert json.loads(next(line for line in lines if line.startswith('data:') and 'payload' in line)[5:])["payload"] == payload
        # A client's own word for where it comes from is not believed; the proxy's is.
        db.wait_until("SELECT array_agg(address) FROM pushy.sockets", ["127.0.0.2"])
        db.sql("SELECT pushy.socket_close('ann')")
        # The last that curl says: by which version it was spoken to.
        assert stream.communicate(timeout=30 * PATIENCE)[0].rstrip().endswith("2")
        # A WebSocket, longer than the keep-alive.
        trust = ssl.create_default_context(cafile=folder / "push.pem")
        with connect(f"wss://{NAME}:{port}/socket", ssl=trust, sock=socket.create_connection(("127.0.0.1", port)), additional_headers=dict([bearer.split(": ")])) as client:
            client.send(json.dumps({"type": "subscribe", "id": 1, "channel": "orders"}))
            hear = lambda: json.loads(client.recv(30 * PATIENCE))  # noqa: E731
            assert [hear()["type"], hear()["type"]] == ["authenticated", "subscribed"]
            assert next(said for said in iter(hear, None) if said["type"] == "position")
            db.sql("SELECT pushy.notify('orders', 'c')")
            assert next(said for said in iter(hear, None) if said["type"] == "notice")["payload"] == "c"
        # A long poll.
        join = read_in_background(lambda: subprocess.run([*curl, f"{url}/notices?channel=orders&wait=30s"], capture_output=True, text=True).stdout)
        db.wait_until("SELECT array_agg(transport) FROM pushy.sockets", ["poll"])
        db.sql("SELECT pushy.notify('orders', 'd')")
        assert [one["payload"] for one in json.loads(join())["notices"]] == ["d"]
        # Another path is not the gateway's.
        assert '"ok' not in subprocess.run([*curl, f"{url}/metrics"], capture_output=True, text=True).stdout
    finally:
        # Caddy would wait for connections that are kept; the other's children end with it by this signal only.
        running.send_signal(signal.SIGKILL if proxy is caddy else signal.SIGTERM)
        running.wait(30 * PATIENCE)
