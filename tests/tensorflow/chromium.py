"""Chromium without a window, told what to do over the DevTools protocol.

The protocol runs through a pair of pipes (NUL after each JSON message), which needs no library and opens no port.
"""

import base64
import fcntl
import json
import os
import select
import subprocess
import time

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]
# Chromium reads messages from the one and writes them to the other.
INPUT, OUTPUT = 3, 4
# What the page shows, with what web components hide from `innerText`.
TEXT = """(() => {
  const parts = [];
  const walk = node => {
    if (node.nodeType === Node.TEXT_NODE) {
      if (node.data.trim()) parts.push(node.data.trim());
      return;
    }
    if (['STYLE', 'SCRIPT', 'TEMPLATE', 'TITLE'].includes(node.nodeName)) return;
    if (node.nodeType === Node.ELEMENT_NODE && getComputedStyle(node).display === 'none') return;
    for (const child of node.shadowRoot ? node.shadowRoot.childNodes : []) walk(child);
    for (const child of node.childNodes) walk(child);
  };
  walk(document.body);
  return parts.join('\\n');
})()"""


class Chromium:
    """A browser with one page of `size` pixels, whose profile is kept in `profile`, a new folder."""

    def __init__(self, program, profile, size):
        read, write = os.pipe(), os.pipe()
        # Out of the way of the two numbers that Chromium wants.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read[0], write[1])]
        self.input, self.output = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read[1], write[0])]
        for fd in read + write:
            os.close(fd)

        def hand_over():
            os.dup2(theirs[0], INPUT)
            os.dup2(theirs[1], OUTPUT)

        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=hand_over,
            pass_fds=(INPUT, OUTPUT),
        )
        for fd in theirs:
            os.close(fd)
        self.number, self.rest, self.session = 0, b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def call(self, method, **parameters):
        """Sends a command and gives its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.input, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 60
        while True:
            while b"\0" in self.rest:
                line, _, self.rest = self.rest.partition(b"\0")
                answer = json.loads(line)
                if answer.get("id") == self.number:
                    if "error" in answer:
                        raise RuntimeError(f"{method}: {answer['error']}")
                    return answer["result"]
            if not select.select([self.output], [], [], max(0, until - time.monotonic()))[0]:
                raise RuntimeError(f"{method}: Chromium does not answer")
            data = os.read(self.output, 1 << 20)
            if not data:
                raise RuntimeError(f"{method}: Chromium has gone")
            self.rest += data

    def open(self, url):
        # Of two addresses that differ behind the # alone, the second would load nothing.
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)

    def evaluate(self, script):
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def text(self):
        return self.evaluate(TEXT) or ""

    def screenshot(self):
        """The page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def stop(self):
        # Without the pipes it ends by itself, and its helpers with it.
        os.close(self.input)
        os.close(self.output)
        self.process.wait()
