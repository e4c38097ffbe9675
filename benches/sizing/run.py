#!/usr/bin/env python3
"""What a site takes: of disk for the index of a library, of memory and CPU for clients that wait, join and report.

    benches/sizing/run.py [--depot target/release/depot] [--source /usr/lib] [--waiting 1000] [--fleet 5000]

Starts a site on loopback. A package is made of the source, and what index and packs take is summed. Machines join, and
each keeps a question for the next policy waiting at the site, over HTTP/2 and TLS with a certificate of its own, as an
agent does; then each asks ROUNDS times, and then connects anew as often. A simulated fleet (`depot fleet simulate`)
joins and reports once, and another one, of the same size, three times: the difference is what a report takes. CPU
seconds are the site's, to a hundredth. Needs openssl. Works in a folder for temporary files ($WORK), which is deleted.
"""

import argparse
import json
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depot", type=pathlib.Path, default=ROOT / "target/release/depot")
    parser.add_argument("--source", type=pathlib.Path, default=pathlib.Path("/usr/lib"))
    parser.add_argument("--waiting", type=int, default=1000)
    parser.add_argument("--fleet", type=int, default=5000)
    parser.add_argument("--skip", action="append", default=[], choices=["library", "waiting", "fleet"])
    return parser.parse_args()


def say(name, value, unit):
    print(f"{name}\t{value:,.3f} {unit}", flush=True)


def size(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


class Line:
    """A connection in HTTP/2 that sends one request after the other, and reads no more of an answer than its end."""

    def __init__(self, address, context, name):
        sock = socket.create_connection(address)
        self.sock = context.wrap_socket(sock, server_hostname=name)
        assert self.sock.selected_alpn_protocol() == "h2"
        self.stream = -1
        self.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(4, 0, 0, b""))

    @staticmethod
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def send(self, path):
        """Asks; RFC 7541, 6.2.2: each field is a literal with its name, and goes into no table."""
        self.stream += 2
        fields = {":method": "GET", ":scheme": "https", ":authority": "site", ":path": path}
        block = b"".join(
            b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in fields.items()
        )
        self.sock.sendall(self.frame(1, 0x5, self.stream, block))

    def read(self, count):
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError("the site closed a connection")
            data += piece
        return data

    def answer(self):
        body, stream = b"", self.stream
        while True:
            head = self.read(9)
            payload = self.read(int.from_bytes(head[:3], "big"))
            kind, flags, of = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == 4 and not flags & 1:
                self.sock.sendall(self.frame(4, 1, 0, b""))
            if kind == 0 and payload:
                body += payload
                for at in (0, of):
                    self.sock.sendall(self.frame(8, 0, at, struct.pack(">I", len(payload))))
            if of == stream and kind in (0, 1) and flags & 1:
                return body
            assert kind not in (3, 7), f"the site ended a stream: {payload[:200]!r}"


class Bench:
    def __init__(self, args, folder):
        self.folder, self.depot = folder, args.depot.resolve()
        env = {key: value for key, value in os.environ.items() if not key.startswith("DEPOT_")}
        self.env = env | {"DEPOT_CONFIG": "/dev/null"}
        self.log = open(folder / "site.log", "w", encoding="utf-8")
        words = ["--set", "dp.max_connections=20000", "--set", "log.access=false"]
        self.site = subprocess.Popen(
            [self.depot, "serve", "--listen", "127.0.0.1:0", "--data", folder / "site", "--json", *words],
            stdout=subprocess.PIPE, stderr=self.log, env=self.env, text=True,
        )
        told = json.loads(self.site.stdout.readline())
        self.url, self.pid = told["url"], self.site.pid
        self.env |= {"DEPOT_URL": self.url, "DEPOT_TOKEN_FILE": told["token_file"]}

    def run(self, *words):
        done = subprocess.run([self.depot, *map(str, words)], env=self.env, check=True, stdout=subprocess.PIPE)
        return done.stdout

    def library(self, source):
        self.run("package", "create", "real", "--source", source)
        before, start = cpu(self.pid), time.monotonic()
        self.run("package", "update", "real")
        took, used = time.monotonic() - start, cpu(self.pid) - before
        stats = json.loads(self.run("library", "stats", "--json"))
        print(json.dumps(stats))
        self.run("library", "gc")
        index, packs = (size(self.folder / "site/library" / part) for part in ("index", "packs"))
        plain = size_of(source)
        say("source", plain / 1e9, "GB")
        say("packs", packs / 1e9, "GB")
        say("index", index / 1e6, "MB")
        say("index of a GB stored", index / packs * 1e3, "MB")
        say("index of a GB of source", index / plain * 1e3, "MB")
        say("ingest, CPU of a GB of source", used / (plain / 1e9), "s")
        say("ingest", plain / 1e6 / took, "MB/s")

    def join_token(self, name, uses):
        path = self.folder / f"{name}.token"
        self.run("client", "join-token", "create", "--name", name, "--uses", uses, "--output", path)
        return path

    def waiting(self, count):
        token = self.join_token("waiting", count)
        secret = self.secret(token)
        url = urllib.parse.urlparse(self.url)
        address = (url.hostname, url.port)
        contexts = []
        for n in range(count):
            key, request, chain = (self.folder / f"{n}.{kind}" for kind in ("key", "csr", "pem"))
            subprocess.run(
                ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-subj", "/CN=x", "-keyout", key, "-out", request],
                check=True, stderr=subprocess.DEVNULL,
            )
            body = {"secret": secret, "id": str(uuid.UUID(int=n + 1)), "name": f"pc-{n}", "request": request.read_text()}
            ask = urllib.request.Request(
                f"{self.url}/api/v1/client/join", json.dumps(body).encode(), {"content-type": "application/json"}
            )
            told = json.load(urllib.request.urlopen(ask))
            chain.write_text(told["certificate"])
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(chain, key)
            context.set_alpn_protocols(["h2"])
            contexts.append(context)
        before = resident(self.pid)
        lines = []
        for context in contexts:
            line = Line(address, context, "site.depot")
            line.send("/api/v1/client/policy")
            signed = json.loads(line.answer())
            line.revision = json.loads(signed["policy"])["revision"]
            lines.append(line)
        connected = resident(self.pid)
        for line in lines:
            line.send(f"/api/v1/client/policy?after={line.revision}&wait=60")
        time.sleep(3)
        say("memory of a client that is connected", (connected - before) / count, "KiB")
        say("memory of a client that waits", (resident(self.pid) - before) / count, "KiB")
        for line in lines:
            line.answer()
        used = cpu(self.pid)
        for _ in range(ROUNDS):
            for line in lines:
                line.send(f"/api/v1/client/policy?after={line.revision}&wait=0")
            for line in lines:
                line.answer()
        say("CPU of a question", (cpu(self.pid) - used) / ROUNDS / count * 1e6, "us")
        for line in lines:
            line.sock.close()
        used = cpu(self.pid)
        for _ in range(5):
            for context in contexts:
                Line(address, context, "site.depot").sock.close()
        say("CPU of a connection", (cpu(self.pid) - used) / 5 / count * 1e6, "us")

    @staticmethod
    def secret(token):
        """The secret in a join token: 16 bytes after the 32 of the authority's digest, in hex."""
        return token.read_text().strip().removeprefix("depotjoin1")[64:96]

    def fleet(self, count):
        seconds = []
        for rounds in (1, 3):
            token = self.join_token(f"fleet-{rounds}", count)
            words = ["--clients", count, "--duration", f"{rounds * 30}s", "--rounds", rounds, "--seed", rounds + 10]
            used = cpu(self.pid)
            self.run("fleet", "simulate", *words, "--join-file", token, "--site-pid", self.pid)
            seconds.append(cpu(self.pid) - used)
        one, three = seconds
        say("CPU of a report, with connecting", (three - one) / 2 / count * 1e6, "us")
        say("CPU of joining, policy and a report", one / count * 1e6, "us")

    def ends(self):
        self.site.terminate()
        self.site.wait()
        self.log.close()


def size_of(source):
    seen, total = set(), 0
    for folder, _, names in os.walk(source):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            if (status.st_dev, status.st_ino) not in seen and not os.path.islink(os.path.join(folder, name)):
                seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total


def main():
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="depot-bench-", dir=os.environ.get("WORK")) as folder:
        bench = Bench(args, pathlib.Path(folder))
        try:
            if "library" not in args.skip:
                bench.library(args.source)
            if "waiting" not in args.skip:
                bench.waiting(args.waiting)
            if "fleet" not in args.skip:
                bench.fleet(args.fleet)
        finally:
            bench.ends()


if __name__ == "__main__":
    main()
