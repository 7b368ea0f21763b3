"""A small WebDriver client over chromedriver, with Python's standard library alone.

Chromium runs headless, with a profile of its own that is removed at the end, and asks nobody outside.
"""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


class Missing(Exception):
    """A program that the test needs is not installed."""


class Browser:
    """One browser with one page."""

    def __init__(self):
        driver = shutil.which("chromedriver")
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not driver or not chromium:
            raise Missing("chromium and chromedriver are needed: apt-get install -y chromium chromium-driver")
        self.profile = tempfile.mkdtemp(prefix="tallymark-browser-")
        self.log = open(f"{self.profile}/chromedriver.log", "w+")
        self.driver = subprocess.Popen([driver, "--port=0"], stdout=self.log, stderr=subprocess.STDOUT)
        self.session = None
        try:
            self.base = f"http://127.0.0.1:{self._port()}"
            options = {"binary": chromium, "args": [*ARGUMENTS, f"--user-data-dir={self.profile}/profile"]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.session = answer["sessionId"]
        except BaseException:
            self.close()
            raise

    def _port(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.driver.poll() is None:
            with open(self.log.name) as log:
                for line in log:
                    if "started successfully on port " in line:
                        return int(line.split("on port ")[1].strip().rstrip("."))
            time.sleep(0.05)
        with open(self.log.name) as log:
            raise RuntimeError("chromedriver did not start: " + log.read())

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode(errors='replace')[:500]}") from None

    def command(self, method, path, body=None):
        return self._call(method, f"/session/{self.session}{path}", body)

    def devtools(self, name, **params):
        """Sends a command of the Chrome DevTools protocol."""
        return self.command("POST", "/goog/cdp/execute", {"cmd": name, "params": params})

    def open(self, url):
        self.command("POST", "/url", {"url": url})

    def run(self, script, *args):
        """Runs a script in the page and answers what it returns."""
        return self.command("POST", "/execute/sync", {"script": script, "args": list(args)})

    def view(self, width, height, scheme="light"):
        """Sets the size of the window and the colour scheme that the person prefers."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def console(self):
        """What the page has complained about since the last call."""
        entries = self.command("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def screenshot(self, path):
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def close(self):
        try:
            if self.session:
                self.command("DELETE", "")
        finally:
            self.driver.terminate()
            try:
                self.driver.wait(20)
            except subprocess.TimeoutExpired:
                self.driver.kill()
                self.driver.wait()
            self.log.close()
            shutil.rmtree(self.profile, ignore_errors=True)
