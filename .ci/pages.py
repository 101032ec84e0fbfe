#!/usr/bin/env python3
"""Opens pages in headless Chromium and fails on what must not be in them.

    .ci/pages.py OUT PAGE…

A page fails on an error in the console, on a request that leaves it, on sideways scrolling at 360
pixels, and on a table that is missing without JavaScript. Pictures are saved below OUT: desktop and
phone, light and dark, and the printed pages (as pictures too where pdftoppm is installed).

Chromium is spoken to over a pipe (--remote-debugging-pipe), so that Python needs no packages.
"""

import base64
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PHONE = 360
DESKTOP = 1280
# Chromium draws no picture that is higher.
HIGHEST = 16000
# Seconds for one page.
LONGEST = 180


class Browser:
    """A headless Chromium with one tab."""

    def __init__(self):
        program = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
        if program is None:
            sys.exit("pages.py: there is no Chromium; install it with: apt-get install -y chromium")
        self.profile = tempfile.TemporaryDirectory()
        ours, theirs = os.pipe(), os.pipe()

        def hand_over():
            # Chromium reads from descriptor 3 and writes to descriptor 4.
            read, write = os.dup(ours[0]), os.dup(theirs[1])
            os.dup2(read, 3)
            os.dup2(write, 4)

        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                   "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
                   f"--user-data-dir={self.profile.name}"]
        self.process = subprocess.Popen(command, preexec_fn=hand_over, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.back = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self.count, self.rest, self.events, self.session = 0, b"", [], None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self(f"{domain}.enable")

    def read(self):
        while b"\0" not in self.rest:
            more = os.read(self.back.fileno(), 1 << 20)
            if not more:
                sys.exit("pages.py: Chromium ended without an answer")
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def __call__(self, method, **parameters):
        """Sends a command and waits for its answer; events on the way are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            answer = self.read()
            if answer.get("id") == self.count:
                if "error" in answer:
                    sys.exit(f"pages.py: {method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, page):
        """Opens a page and waits until it is loaded; gives the events of that time."""
        self.events = []
        self("Page.navigate", url=page.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.read())
        # What comes a moment later, such as an icon, belongs to the page too. No timer of the page
        # is used, which would not go off without JavaScript.
        time.sleep(0.3)
        self.value("0")
        return self.events

    def value(self, expression):
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def size(self, width, phone):
        self("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=2 if phone else 1,
             mobile=phone)

    def theme(self, name):
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path):
        height = min(self.value("document.documentElement.scrollHeight"), HIGHEST)
        width = self.value("document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        data = self("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        self.to.close()
        self.process.wait(timeout=20)
        self.profile.cleanup()


def complaints(events, page):
    """What the console and the network say of a page."""
    for event in events:
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            yield f"an exception: {about['exceptionDetails'].get('text')}"
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            yield f"an error in the console: {about['entry']['text']}"
        elif method == "Runtime.consoleAPICalled" and about["type"] == "error":
            yield f"an error in the console: {about['args']}"
        elif method == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if not url.startswith("data:") and url.split("#")[0] != page.as_uri():
                yield f"a request that leaves the page: {url}"


TABLES = "[...document.querySelectorAll('table')].map(t => t.innerText.trim().length + t.rows.length).join()"
# Text that sticks out of the page without a scrolling box around it widens the page.
WIDTH = "document.documentElement.scrollWidth"


def check(browser, page, out):
    """Gives what is wrong with a page; saves its pictures."""
    found = []
    for theme in ["light", "dark"]:
        for name, width in [("desktop", DESKTOP), ("phone", PHONE)]:
            browser.theme(theme)
            browser.size(width, name == "phone")
            found += complaints(browser.open(page), page)
            if (wide := browser.value(WIDTH)) > width:
                found.append(f"sideways scrolling: it is {wide} pixels wide on a screen of {width}")
            browser.picture(out / f"{page.stem}-{name}-{theme}.png")
    tables = browser.value(TABLES)
    browser("Emulation.setScriptExecutionDisabled", value=True)
    found += complaints(browser.open(page), page)
    without = browser.value(TABLES)
    browser("Emulation.setScriptExecutionDisabled", value=False)
    if not without or without != tables:
        found.append(f"tables are missing without JavaScript: {without or 'none'} instead of {tables or 'any'}")
    browser.theme("light")
    pdf = out / f"{page.stem}.pdf"
    pdf.write_bytes(base64.b64decode(browser("Page.printToPDF", printBackground=True, paperWidth=8.27,
                                             paperHeight=11.69)["data"]))
    if shutil.which("pdftoppm"):
        subprocess.run(["pdftoppm", "-r", "60", "-png", pdf, out / f"{page.stem}-print"], check=True)
    return sorted(set(found))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    browser = Browser()
    wrong = 0
    for name in sys.argv[2:]:
        page = pathlib.Path(name).resolve(strict=True)
        # A browser that does not answer ends the script instead of holding it.
        signal.alarm(LONGEST)
        found = check(browser, page, out)
        wrong += len(found)
        print(f"{name}: {'; '.join(found) if found else 'sound'}")
    browser.close()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
