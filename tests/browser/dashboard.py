"""The dashboard in a real browser: it shows the verdict, follows what is posted without being loaded again, says when
the process is gone, and comes back with it."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from webdriver import Browser, Missing

OUT = pathlib.Path("target/browser")
PATIENCE = 60


class Instance:
    """A running server on ports of its own."""

    def __init__(self, binary, data, admin="127.0.0.1:0"):
        self.log = OUT / "server.log"
        with open(self.log, "w") as log:
            backend = f"embedded:{data}"
            self.process = subprocess.Popen(
                [binary, "run", "all", "--log", backend, "--store", backend, "--hot", "memory:"]
                + ["--listen", "127.0.0.1:0", "--admin-listen", admin, "--log-format", "json"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        addresses = until("the server listens on both ports", self._addresses)
        self.http, self.admin = addresses["http"], addresses["admin"]

    def _addresses(self):
        if self.process.poll() is not None:
            fail(f"the server has ended:\n{self.log.read_text()}")
        found = {}
        for line in self.log.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            event = {**event, **event.get("fields", {})}
            if event.get("message") == "listening":
                found[event["what"]] = event["address"]
        return found if {"http", "admin"} <= found.keys() else None

    def get(self, path):
        with web().open(f"http://{self.admin}{path}", timeout=10) as answer:
            return json.load(answer)

    def post(self, count):
        items = [{"counter": "page_views", "tags": {"path": f"/{n % 50}"}, "id": f"{time.time_ns()}-{n}"} for n in range(count)]
        request = urllib.request.Request(
            f"http://{self.http}/v1/increments", json.dumps(items).encode(), {"Content-Type": "application/json"}
        )
        with web().open(request, timeout=30) as answer:
            check(answer.status == 202, f"increments answer {answer.status}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def web():
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(Exception):
    pass


def fail(why):
    raise Failed(why)


def check(holds, what):
    if not holds:
        fail(what)


def until(what, ask):
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = ask()
        if seen:
            return seen
        if time.monotonic() > deadline:
            fail(f"never happened: {what}; last seen: {seen!r}")
        time.sleep(0.1)


def text(browser, selector):
    return browser.run("return document.querySelector(arguments[0]).textContent.trim()", selector)


def cells(browser, name):
    """The numbers of one column of the table of lanes; none is 0."""
    found = browser.run(
        "return [...document.querySelectorAll(`#lanes [data-cell=${arguments[0]}]`)].map((cell) => cell.textContent)", name
    )
    return [int(cell.replace(",", "")) if cell[:1].isdigit() else 0 for cell in found]


def pictures(browser, name):
    for width in (1280, 400):
        for scheme in ("light", "dark"):
            browser.view(width, 900, scheme)
            across = browser.run("return document.documentElement.scrollWidth")
            check(across <= width, f"at {width} pixels the page is {across} wide")
            browser.view(width, browser.run("return document.documentElement.scrollHeight"), scheme)
            browser.screenshot(OUT / f"{name}-{width}-{scheme}.png")
    browser.view(1280, 900)


def shows_a_verdict_before_the_first_item(browser, instance):
    until("the verdict is OK", lambda: text(browser, "#word") == "OK")
    until("the link is live", lambda: text(browser, "#link") == "live")
    lanes = instance.get("/api/v1/lag")["lanes"]
    check(len(cells(browser, "end")) == len(lanes) > 0, "the table has not one row per partition")
    until("the first command names the ingest port", lambda: instance.http in text(browser, "#first-command"))
    check(not browser.run("return document.getElementById('first').hidden"), "the first steps are hidden")
    until("log and store are ok", lambda: text(browser, "#dependencies").count("ok") >= 2)
    check(text(browser, "#first-command").startswith("curl "), "the first command is not a curl command")
    pictures(browser, "empty")


def follows_what_is_posted_without_being_loaded_again(browser, instance):
    browser.run("window.sameDocument = true")
    for _ in range(5):
        instance.post(1000)
    until("the lanes' ends rise", lambda: sum(cells(browser, "end")) > 0)
    until("the rate of items rises", lambda: text(browser, "#ingest-rate") not in ("0", "–"))
    # A seq counts from 0: everything is stored when each lane's last is one below its end.
    until("all is stored", lambda: instance.get("/api/v1/lag")["lag_packs"] == 0)
    until("the page says so", lambda: text(browser, "#lag-packs") == "0" and text(browser, "#word") == "OK")
    ends = [lane["end"] for lane in instance.get("/api/v1/lag")["lanes"]]
    until("the table agrees with the API", lambda: cells(browser, "end") == ends)
    until("a line is drawn", lambda: browser.run("return document.querySelector('#spark-ingest .line').getAttribute('d')"))
    check(browser.run("return document.getElementById('first').hidden"), "the first steps are still there")
    check(browser.run("return window.sameDocument"), "the page was loaded again")
    pictures(browser, "live")


def says_when_the_process_is_gone(browser, instance):
    complaints = browser.console()
    check(not complaints, f"the console has errors: {complaints}")
    instance.kill()
    until("the page is stale", lambda: text(browser, "#link").startswith("stale since"))
    until("the verdict says so", lambda: text(browser, "#word") == "NO CONTACT")
    pictures(browser, "gone")


def comes_back_with_it(browser):
    until("the link is live again", lambda: text(browser, "#link") == "live")
    until("the verdict is OK again", lambda: text(browser, "#word") == "OK")
    check(browser.run("return window.sameDocument"), "the page was loaded again")


def shows_halted_lanes_and_what_remedies_them(browser, instance, binary):
    until("the verdict is HALTED", lambda: text(browser, "#word") == "HALTED")
    command = "tallymark lanes begin-epoch"
    until("the reason names the command", lambda: command in text(browser, "#reasons"))
    shown = browser.run("return [...document.querySelectorAll('#lanes .reason code')].map((code) => code.textContent)")
    check(command in shown, f"the table does not show the command as one: {shown}")
    states = browser.run("return [...document.querySelectorAll('#lanes .state')].map((state) => state.textContent)")
    check(set(states) == {"HALTED"}, f"the lanes are {states}")
    reasons = browser.run("return [...document.querySelectorAll('#reasons li')].map((reason) => reason.textContent)")
    check(len(reasons) == 1 and reasons[0].startswith("Lanes "), f"what all lanes say is not said once: {reasons}")
    check(browser.run("return document.getElementById('first').hidden"), "first steps are shown beside a halt")
    pictures(browser, "halted")
    subprocess.run([binary, *command.split()[1:], "--yes", "--admin-url", f"http://{instance.admin}"], check=True)
    until("the verdict is OK again", lambda: text(browser, "#word") == "OK")


def main(binary):
    OUT.mkdir(parents=True, exist_ok=True)
    try:
        browser = Browser()
    except Missing as missing:
        print(f"tests/browser: {missing}", file=sys.stderr)
        return 2
    instance = None
    with tempfile.TemporaryDirectory(prefix="tallymark-dashboard-") as data:
        try:
            instance = Instance(binary, data)
            browser.view(1280, 900)
            browser.open(f"http://{instance.admin}/")
            shows_a_verdict_before_the_first_item(browser, instance)
            follows_what_is_posted_without_being_loaded_again(browser, instance)
            says_when_the_process_is_gone(browser, instance)
            instance = Instance(binary, data, admin=instance.admin)
            comes_back_with_it(browser)
            instance.kill()
            shutil.rmtree(pathlib.Path(data) / "log")
            instance = Instance(binary, data, admin=instance.admin)
            shows_halted_lanes_and_what_remedies_them(browser, instance, binary)
        except Failed as failed:
            browser.screenshot(OUT / "failed.png")
            print(f"tests/browser: {failed}\n(see {OUT}/failed.png and {OUT}/server.log)", file=sys.stderr)
            return 1
        finally:
            browser.close()
            if instance:
                instance.kill()
    print(f"tests/browser: the dashboard does what it should; pictures are in {OUT}/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
