"""TensorBoard itself, as a server that answers this machine alone."""

import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request


class Server:
    """TensorBoard itself on a free port of this machine."""

    def __init__(self, logdir, *flags):
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--port", "0", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"at (http://\S+?)/? \(", line):
                self.url = found.group(1)
                return
        sys.exit(f"wrong: TensorBoard does not start: {''.join(self.said)}")

    def get(self, path, body=None, **query):
        url = f"{self.url}/data/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def json(self, path, body=None, **query):
        return json.loads(self.get(path, body, **query))

    def stop(self):
        self.process.terminate()
        self.process.wait()
