"""The demo's live page in Chromium: the roll-up moves, the connection is cut, the server is restarted, and the page is as the table."""

import json
import re
import sys

import pytest

from harness.installation import REPOSITORY
from harness.waiting import wait_for
from stage.browser import PROGRAM as CHROMIUM
from stage.browser import Browser
from stage.gateway import PROGRAM, Ways

sys.path.append(str(REPOSITORY / "tools"))
from demo import Demo  # noqa: E402
import demo_page  # noqa: E402

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
BRANCHES = 3


class Shown:
    """The page in a tab, and what it says."""

    def __init__(self, tab):
        self.tab = tab

    def text(self, name):
        return self.tab.evaluate(f"document.getElementById('{name}').textContent")

    def count(self, name):
        return int(self.text(name).replace(",", ""))

    def is_live(self):
        self.tab.until("the page to be live", "document.getElementById('state').textContent", lambda state: state == "Live")

    def press(self, selector):
        self.tab.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def pace(self, wanted):
        self.press(f'#choices input[value="{wanted}"]')

    def hears(self, more=1):
        before = self.count("heard")
        wait_for("the page to hear more", lambda: self.count("heard"), lambda now: now >= before + more)

    def rollup(self):
        return self.tab.evaluate("[...document.querySelectorAll('#rollup tr')].map((row) => [...row.children].map((cell) => Number(cell.textContent.replaceAll(',', '').replace('\u2212', '-'))))")


@pytest.fixture(scope="module")
def bank(new_cluster):
    cluster = new_cluster({"pushy.gateway_program": PROGRAM})
    demo = Demo(cluster, cluster.database("shop"))
    cluster.run("pgbench", "-i", "-q", "-s", BRANCHES, *demo.where())
    demo.play_file("rollup.sql")
    server = demo_page.serve(demo_page.Page(cluster.dsn("shop"), str(cluster.installation.program("pgbench")), ""))
    page = server.RequestHandlerClass.page
    page.gateway = demo_page.allow(demo, server.server_address[1])
    gateway = Ways(int(page.gateway.rpartition(":")[2])).wait_ready(cluster.log.tail)
    yield demo, gateway, f"http://127.0.0.1:{server.server_address[1]}/"
    page.stop()
    server.shutdown()
    cluster.remove()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def see(browser):
    """Opens the page in tabs that are closed at the end."""
    opened = []

    def open_one(*arguments, **options):
        opened.append(browser.page(*arguments, **options))
        return Shown(opened[-1])
    yield open_one
    for tab in opened:
        tab.close()


def table(demo):
    return [list(row) for row in demo.shop.rows("SELECT branch, transactions, turnover, net FROM branch_kpi ORDER BY branch")]


def settles(demo, shown):
    """pgbench stops, its jobs are done, and the page comes to be as the table: without a gap, and nothing twice."""
    shown.pace(0)
    wait_for("pgbench to be gone", lambda: demo.shop.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'"), lambda left: left == 0)
    assert demo.shop.value("CALL pushy.jobs_wait('branch_kpi', '1 minute')")
    wanted = table(demo)
    wait_for("the page to be as the table", shown.rollup, lambda seen: seen == wanted)
    assert sum(row[1] for row in wanted) > 0
    assert (shown.text("missing"), shown.text("twice")) == ("0", "0")


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_the_connection_is_cut_and_nothing_is_missing(bank, see, transport):
    demo, _, url = bank
    shown = see(f"{url}?transport={transport}")
    shown.is_live()
    # It has pgbench write where nothing does.
    shown.hears(10)
    shown.pace(200)
    shown.hears(50)
    shown.press("#cut")
    shown.tab.until("the page to be cut off", "document.getElementById('state').textContent", lambda state: state in ("Cut off", "Connecting"))
    heard, booked = shown.count("heard"), sum(row[1] for row in table(demo))
    wait_for("pgbench to go on", lambda: sum(row[1] for row in table(demo)), lambda now: now > booked + 50)
    assert shown.count("heard") == heard
    shown.press("#cut")
    shown.is_live()
    settles(demo, shown)
    assert shown.count("late") > 50
    assert [error for error in shown.tab.errors if "ERR_ABORTED" not in error] == []


def test_a_server_that_is_restarted_or_crashes_loses_nothing_either(bank, see):
    demo, gateway, url = bank
    shown = see(url)
    shown.is_live()
    shown.hears(10)
    for restart in (demo.cluster.restart, demo.cluster.crash):
        restart()
        gateway.wait_ready(demo.cluster.log.tail)
        shown.is_live()
        shown.tab.until("the page to know that pgbench is gone", "document.querySelector('#choices :checked').value", lambda value: value == "0")
        shown.pace(200)
        shown.hears(20)
    settles(demo, shown)


# The contrast of each text with what is behind it, as WCAG 2 reckons.
CONTRASTS = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number)
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0)
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parts(getComputedStyle(at).backgroundColor)
      if (a === 1) return [r, g, b]
    }
    return [255, 255, 255]
  }
  const texts = [...document.querySelectorAll('body *')].filter((element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) && element.checkVisibility() && element.tagName !== 'NOSCRIPT')
  return texts.map((element) => {
    const [one, other] = [light(parts(getComputedStyle(element).color)), light(behind(element))]
    return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.outerHTML.slice(0, 80)]
  }).filter(([ratio]) => ratio < 4.5)
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_phone_and_on_a_desk_by_day_and_by_night(bank, see, scheme):
    _, _, url = bank
    shown = see(url, 390, 844, scheme, phone=True)
    tab = shown.tab
    shown.is_live()
    shown.hears(5)
    for width, height, phone in ((390, 844, True), (320, 568, True), (768, 1024, True), (1280, 800, False), (1920, 1080, False)):
        tab.look(width, height, scheme, phone)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, f"{width} pixels are not enough"
        assert tab.evaluate(CONTRASTS) == []
        # Large enough for a finger.
        assert tab.evaluate("[...document.querySelectorAll('button, .choices label')].filter((one) => one.offsetHeight < 44).length") == 0
    shown.press("#cut")
    tab.until("the page to be cut off", "document.getElementById('status').dataset.state", lambda state: state == "waiting")
    assert tab.evaluate(CONTRASTS) == []
    names = tab.ask("Accessibility.getFullAXTree")["nodes"]
    controls = [(node["role"]["value"], node["name"]["value"]) for node in names if node.get("role", {}).get("value") in ("button", "radio", "table", "image", "status", "group")]
    assert all(name for role, name in controls if role in ("button", "radio", "table", "image", "group")), controls
    assert {role for role, _ in controls} >= {"button", "radio", "table", "image", "status"}, controls


def test_what_is_not_the_pages_is_refused(bank):
    import httpx

    _, _, url = bank
    assert httpx.get(url, headers={"Host": "evil.example:80"}).status_code == 421
    assert httpx.post(f"{url}ticket", headers={"Origin": "https://evil.example"}).status_code == 403
    assert httpx.post(f"{url}ticket").status_code == 403
    assert httpx.get(f"{url}../../tools/demo.py").status_code == 404
    assert httpx.get(f"{url}%2e%2e/rollup.sql").status_code == 404


def test_the_demo_leaves_a_page_which_ends_with_it(make_cluster, tmp_path, capsys):
    import httpx

    cluster = make_cluster({"pushy.gateway_program": PROGRAM})
    demo = Demo(cluster, cluster.database("shop"))
    cluster.run("pgbench", "-i", "-q", "-s", 1, *demo.where())
    demo.play_file("rollup.sql")
    demo_page.play(demo, tmp_path, print)
    url = re.search(r"http://127\.0\.0\.1:\d+/", capsys.readouterr().out)[0]
    assert "A bank, live" in httpx.get(url).text
    now = httpx.get(f"{url}now").json()
    assert [branch["branch"] for branch in now["branches"]] == [1]
    Ways(int(now["gateway"].rpartition(":")[2])).wait_ready(cluster.log.tail)
    origin = {"Origin": url.removesuffix("/")}
    assert httpx.post(f"{url}write", headers=origin, json={"pace": 20}).json() == {"pace": 20}
    assert httpx.post(f"{url}write", headers=origin, json={"pace": 10**9}).json() == {"pace": 0}
    assert httpx.post(f"{url}write", headers=origin, json={"pace": 20}).json() == {"pace": 20}
    demo_page.end(tmp_path)
    wait_for("pgbench to be gone", lambda: demo.shop.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'"), lambda left: left == 0)
    with pytest.raises(httpx.TransportError):
        wait_for("the page to be gone", lambda: httpx.get(url).status_code, lambda _: False)
