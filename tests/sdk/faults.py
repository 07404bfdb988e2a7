#!/usr/bin/env python3
"""Sends events with unmodified SDKs through a proxy with faults to a collector.

usage: faults.py BINARY [EVENTS]

Each SDK sends EVENTS events (default 40) for each fault. The proxy answers the first
requests itself (503), forwards them and then answers 503 (stored-503), or forwards
them and cuts the connection (cut); later requests pass. Every event must be stored,
and repetitions must have the same messageId, so that a profile counts it once. The
result table is printed last. The exit code is 1 if an event is lost or counted twice.

SDKs that are not installed here are skipped: those of Node come with package.json,
those of Python with `pip install segment-analytics-python rudder-sdk-python` for the
interpreter in SDK_PYTHON (default python3).
"""
import collections, http.client, http.server, json, os, socket, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.environ.get("SDK_PYTHON", "python3")
FAULTS = ["none", "503", "stored-503", "cut"]
FAULTY_REQUESTS = 2

NODE = """
const [, sdk, url, count, user] = process.argv;
const n = Number(count);
if (sdk === 'segment') {
  const { Analytics } = await import('@segment/analytics-node');
  const c = new Analytics({ writeKey: 'key', host: url, maxRetries: 5 });
  for (let i = 0; i < n; i++) c.track({ userId: user, event: 'Sent', properties: { n: i } });
  await c.closeAndFlush();
} else {
  const { default: Rudder } = await import('@rudderstack/rudder-sdk-node');
  const c = new Rudder('key', { dataPlaneUrl: url, flushInterval: 100, logLevel: 'error' });
  const all = [];
  for (let i = 0; i < n; i++) all.push(new Promise((done) => c.track({ userId: user, event: 'Sent', properties: { n: i } }, done)));
  await Promise.all([c.flush(), ...all]);
}
"""
PY_SEGMENT = """
import sys
from segment.analytics.client import Client
c = Client('key', host=sys.argv[1])
for i in range(int(sys.argv[2])): c.track(sys.argv[3], 'Sent', {'n': i})
c.shutdown()
"""
PY_RUDDER = """
import sys
from rudderstack.analytics.client import Client
c = Client('key', host=sys.argv[1], gzip=True)
for i in range(int(sys.argv[2])): c.track(sys.argv[3], 'Sent', {'n': i})
c.shutdown()
"""


def version(command):
    result = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    return result.stdout.strip() if result.returncode == 0 else ""


def node_version(package):
    try:
        with open(f"{HERE}/node_modules/{package}/package.json") as f:
            return json.load(f)["version"]
    except OSError:
        return ""


def python_version(package):
    return version([PYTHON, "-c", f"import importlib.metadata as m; print(m.version('{package}'))"])


def node(sdk):
    return lambda url, n, user: ["node", "--input-type=module", "-e", NODE, sdk, url, str(n), user]


def python(script):
    return lambda url, n, user: [PYTHON, "-c", script, url, str(n), user]


SDKS = [
    ("Segment Node", node_version("@segment/analytics-node"), node("segment")),
    ("RudderStack Node", node_version("@rudderstack/rudder-sdk-node"), node("rudderstack")),
    ("Segment Python", python_version("segment-analytics-python"), python(PY_SEGMENT)),
    ("RudderStack Python", python_version("rudder-sdk-python"), python(PY_RUDDER)),
]


def proxy(collector, fault):
    """Returns a server in front of the collector that fails its first POSTs."""
    left = [0 if fault == "none" else FAULTY_REQUESTS]
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def reply(self, status, headers, body):
            self.send_response(status)
            for name, value in headers:
                if name.lower() in ("content-type", "retry-after"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                faulty = self.command == "POST" and left[0] > 0
                left[0] -= faulty
            if faulty and fault == "503":
                return self.reply(503, [("Retry-After", "1")], b"{}")
            upstream = http.client.HTTPConnection(collector, timeout=20)
            upstream.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "host"})
            answer = upstream.getresponse()
            text = answer.read()
            if faulty and fault == "stored-503":
                return self.reply(503, [("Retry-After", "1")], b"{}")
            if faulty:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return None
            return self.reply(answer.status, answer.getheaders(), text)

        do_GET = do_POST = handle_any

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def lines(path):
    try:
        with open(path) as f:
            return [json.loads(line) for line in f]
    except FileNotFoundError:
        return []


def main():
    binary, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 40
    folder = tempfile.mkdtemp()
    address = f"127.0.0.1:{free_port()}"
    env = dict(os.environ, COLLECTOR_ADDRESS=address, WRITE_KEY="key", OUTPUT_DIR=folder)
    with open(f"{folder}/log", "w") as log:
        collector = subprocess.Popen([binary, "run", f"{HERE}/collect.yaml"], env=env, stdout=log, stderr=log)
    rows, failed = [], False
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", int(address.split(":")[1]))).close()
                break
            except OSError:
                time.sleep(0.1)
        for name, sdk_version, command in SDKS:
            if not sdk_version:
                print(f"{name}: not installed, skipped", file=sys.stderr)
                continue
            for fault in FAULTS:
                user = f"{name}-{fault}".replace(" ", "-").lower()
                server = proxy(address, fault)
                url = f"http://127.0.0.1:{server.server_address[1]}"
                try:
                    run = subprocess.run(command(url, count, user), cwd=HERE, capture_output=True, text=True, timeout=90)
                    note = "" if run.returncode == 0 else run.stderr.strip().splitlines()[-1][:60]
                except subprocess.TimeoutExpired:
                    note = "did not end in 90 s"
                server.shutdown()
                stored = [e for e in lines(f"{folder}/events.jsonl") if e.get("userId") == user]
                ids = collections.defaultdict(set)
                for e in stored:
                    ids[e["properties"]["n"]].add(e["messageId"])
                twice = sum(len(i) > 1 for i in ids.values())
                repeated = len(stored) - len({e["messageId"] for e in stored})
                ok = len(ids) == count and twice == 0
                failed = failed or not ok
                rows.append((name, sdk_version, fault, count, len(ids), repeated, twice, "ok" if ok else "FAILED " + note))
    finally:
        collector.terminate()
        collector.wait()
    dead = lines(f"{folder}/dead_letters.jsonl")
    print(f"{'SDK':20} {'version':9} {'fault':11} {'sent':>5} {'stored':>7} {'repeated':>9} {'twice':>6}  result")
    for row in rows:
        print("{:20} {:9} {:11} {:5} {:7} {:9} {:6}  {}".format(*row))
    print(f"dead letters: {len(dead)}")
    sys.exit(1 if failed or dead or not rows else 0)


main()
