"""Clients in a real browser: Chromium's own EventSource, and the stream of clients/typescript in tabs that share a connection, close and crash."""

import functools
import http.server
import json
import threading

import pytest

from harness.installation import REPOSITORY
from harness.waiting import wait_for
from stage.browser import PROGRAM as CHROMIUM
from stage.browser import Browser
from stage.gateway import PROGRAM, Ways, free_port, token

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

# As tools/package/clients.sh compares it with what is built of clients/typescript.
CLIENT = REPOSITORY / "demo" / "live"


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {".js": "text/javascript", ".html": "text/html"}

    def log_message(self, *_):
        pass


class Outlet:
    """A gateway of a database, a page that may come to it, and what a page's script needs."""

    def __init__(self, cluster):
        self.cluster, self.db = cluster, cluster.database()
        self.site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=CLIENT))
        threading.Thread(target=self.site.serve_forever, daemon=True).start()
        self.page = f"http://127.0.0.1:{self.site.server_address[1]}/icon.svg"
        self.ways = Ways(free_port())
        db = self.db
        db.sql("CREATE ROLE web; SELECT pushy.channel_grant('orders', 'web')")
        self.secret = db.value("SELECT pushy.gateway_key_register('app', role => 'web')")
        db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_options = 'origins={self.page.removesuffix('/icon.svg')}'")
        db.sql(f"ALTER DATABASE {db.name} SET pushy.gateway_listen = '127.0.0.1:{self.ways.port}'")
        self.ready()

    def ready(self):
        headers = {"Authorization": f"Bearer {token(self.secret)}"}
        self.ways.wait_ready(self.cluster.log.tail)
        wait_for("the key to count", lambda: self.ways.get("/notices?channel=orders&wait=0s", headers=headers).status_code, lambda code: code == 200)

    def restart(self):
        self.cluster.restart()
        self.ready()

    def ticket(self):
        with self.db.connect() as session:
            session.execute("SET ROLE web")
            return session.execute("SELECT pushy.ticket_create('{orders}')").fetchone()[0]

    def notify(self, *payloads):
        for payload in payloads:
            self.db.sql("SELECT pushy.notify('orders', %s)", payload)

    def channels(self, wanted):
        """Of each connection that there is, those of its subscriptions."""
        self.db.wait_until("SELECT coalesce(jsonb_agg(to_jsonb(channels)), '[]') FROM pushy.sockets", wanted)


@pytest.fixture(scope="module")
def outlet(new_cluster):
    cluster = new_cluster({"pushy.gateway_program": PROGRAM})
    outlet = Outlet(cluster)
    yield outlet
    outlet.site.shutdown()
    cluster.remove()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def tab(browser, outlet):
    """Opens tabs of the origin that may come in; closed at the end."""
    opened = []

    def open_one():
        opened.append(browser.page(outlet.page))
        return opened[-1]
    yield open_one
    for each in opened:
        each.close()
    outlet.channels([])


def hears(tab, wanted):
    return tab.until(f"the tab to hear {wanted}", "window.heard", lambda heard: heard == wanted)


def test_event_source_hears_by_a_ticket_and_goes_on_after_a_restart_of_the_server(outlet, tab):
    page = tab()
    listen = """
        window.heard ??= []
        window.source = new EventSource(%s)
        source.onmessage = (event) => { heard.push(JSON.parse(event.data).payload); window.cursor = event.lastEventId }
        new Promise((resolve, reject) => { source.addEventListener('subscribed', resolve, { once: true }); source.onerror = reject }).then(() => source.onerror = null)"""
    url = f"{outlet.ways.url}/events?channel=orders"
    page.evaluate(listen % json.dumps(f"{url}&ticket={outlet.ticket()}"))
    outlet.notify("a", "b")
    hears(page, ["a", "b"])
    # Its ticket was used: it comes back with it in vain, and stops.
    outlet.restart()
    page.until("the source to give up", "source.readyState", lambda state: state == 2)
    outlet.notify("c")
    cursor = page.evaluate("cursor")
    page.evaluate(listen % json.dumps(f"{url}&ticket={outlet.ticket()}&after={cursor}"))
    hears(page, ["a", "b", "c"])
    assert page.evaluate(f"new Promise((resolve) => {{ const refused = new EventSource('{url}&ticket=t_none'); refused.onerror = () => resolve(refused.readyState) }})") == 2
    page.evaluate("source.close()")


def subscribe(outlet, tab, **options):
    """A stream of the client's in a tab, which collects what it hears."""
    given = {"firstPauseMs": 50} | options
    tab.evaluate(f"""import('/client/stream/index.js').then(({{ Stream }}) => {{
        window.heard = []
        window.resyncs = 0
        window.stream = new Stream('{outlet.ways.url}', {{ token: () => '{token(outlet.secret, sub="ann")}', ...{json.dumps(given)} }})
        window.subscription = stream.subscribe('orders', {{ onNotice: ({{ payload }}) => heard.push(payload), onResync: () => resyncs += 1 }})
        return subscription.ready
    }})""")
    tab.until("the stream to be live", "stream.state", lambda state: state == "live")


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_the_stream_goes_on_after_a_restart_of_the_server(outlet, tab, transport):
    page = tab()
    subscribe(outlet, page, transport=transport)
    outlet.notify("a")
    hears(page, ["a"])
    outlet.restart()
    outlet.notify("b")
    hears(page, ["a", "b"])
    assert page.evaluate("[stream.status.transport, resyncs]") == [transport, 0]


WITHOUT_LOCKS = "Object.defineProperty(navigator, 'locks', { value: undefined })"


@pytest.mark.parametrize("locks", ["with", "without"])
@pytest.mark.parametrize("how", ["closed", "crashed", "left"])
def test_tabs_share_a_connection_and_go_on_when_the_leader_is_gone(outlet, tab, locks, how):
    tabs = [tab() for _ in range(3)]
    for each in tabs:
        if locks == "without":
            each.evaluate(WITHOUT_LOCKS)
        subscribe(outlet, each, share=f"ann {how} {locks}")
    outlet.channels([["orders"] * 3])
    outlet.notify("a")
    for each in tabs:
        hears(each, ["a"])
    leader, *others = tabs
    if how == "closed":
        leader.close()
    elif how == "crashed":
        leader.crash()
    else:
        leader.go("about:blank")
    # While nobody leads, and after it.
    outlet.notify("b")
    for each in others:
        hears(each, ["a", "b"])
    # One connection, with a subscription of each of them.
    outlet.channels([["orders", "orders"]])
    outlet.notify("c")
    for each in others:
        hears(each, ["a", "b", "c"])
        assert each.evaluate("resyncs") == 0


def test_a_tab_that_is_not_the_leader_leaves_nothing_behind(outlet, tab):
    leader, other = tab(), tab()
    for each in (leader, other):
        subscribe(outlet, each, share="ann leaves")
    outlet.channels([["orders", "orders"]])
    other.crash()
    # As soon as its lock is free the leader hears for itself alone.
    outlet.channels([["orders"]])
    outlet.notify("a")
    hears(leader, ["a"])
