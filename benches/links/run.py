#!/usr/bin/env python3
"""What it takes to bring a package to a distribution point, beside rsync and curl.

    run.py [first] [lossy] [cuts]          (all of them if none is named)

first: a copy of real files, and of 100 000 small ones, to an empty point, on loopback and over a link of
1 Gbit/s; lossy: 20 Mbit/s, 80 ms, 1 % loss; cuts: a large file whose transfer is cut fifty times. Needs
root (network namespaces), rsync, curl and a release build. Nothing else should run meanwhile.

CORPORA and DEPOT are as in ../peers/lib.sh; WORK is a folder with room for three times what is copied.
Prints a table to be put into ../RESULTS.md.
"""
import contextlib, json, os, pathlib, random, shutil, socket, struct, subprocess, sys, threading, time

HERE = pathlib.Path(__file__).resolve().parent
HOME = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
CORPORA = pathlib.Path(os.environ.get("CORPORA", HOME / "depot-bench/corpora"))
WORK = pathlib.Path(os.environ.get("WORK", "/var/tmp")) / "depot-bench-links"
DEPOT = os.environ.get("DEPOT", str(HERE.parent.parent / "target/release/depot"))


def free_port():
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


SITE, POINT, PEER = (free_port() for _ in range(3))  # depot's two, and the peer's
rows = []


def row(what, name, value, unit, goal=""):
    rows.append((what, name, value, unit, goal))
    print(f"{what:34} {name:10} {value:>12} {unit:8} {goal}", flush=True)


class Link:
    """Two ends; commands run at one of them. Bytes are counted where the second receives them."""

    def __init__(self, kind):
        self.kind, self.shaper = kind, None
        if kind == "loopback":
            self.a = self.b = "127.0.0.1"
            return
        self.a, self.b = "10.99.0.1", "10.99.0.2"
        for ns in "AB":
            run("ip", "netns", "add", self.ns(ns))
            run("ip", "-n", self.ns(ns), "link", "set", "lo", "up")
        if kind == "gbit":
            run("ip", "link", "add", "link0", "netns", self.ns("A"), "type", "veth", "peer", "name",
                "link0", "netns", self.ns("B"))
            for ns, address in (("A", self.a), ("B", self.b)):
                run("ip", "-n", self.ns(ns), "addr", "add", address + "/30", "dev", "link0")
                run("ip", "-n", self.ns(ns), "link", "set", "link0", "up")
                run("tc", "-n", self.ns(ns), "qdisc", "add", "dev", "link0", "root", "tbf", "rate",
                    "1gbit", "burst", "256kb", "latency", "20ms")
        else:
            self.shaper = subprocess.Popen(
                [HERE / "link.py", self.ns("A"), self.a, self.ns("B"), self.b, "20e6", "40", "0.01"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self.shaper.stdout.readline() == b"ready\n"

    def ns(self, end):
        return f"depot-bench-{end}"

    def at(self, end, *command):
        inside = [] if self.kind == "loopback" else ["ip", "netns", "exec", self.ns(end)]
        return [*inside, *map(str, command)]

    def received(self):
        """Bytes that the second end received, headers of packets included; nothing on loopback."""
        if self.kind == "loopback":
            return None
        show = run("ip", "-n", self.ns("B"), "-s", "-j", "link", "show", "link0", capture_output=True)
        return json.loads(show.stdout)[0]["stats64"]["rx"]["bytes"]

    def close(self):
        if self.shaper:
            self.shaper.stdin.close()
            self.shaper.wait()
        if self.kind != "loopback":
            for ns in "AB":
                subprocess.run(["ip", "netns", "del", self.ns(ns)], check=False)


def run(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, **options)


@contextlib.contextmanager
def field(kind, port=SITE):
    """A link with a site at one end and an empty point at the other, both in folders of their own; the
    point reaches the site at `port`."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    link, servers = Link(kind), []
    try:
        servers.append(serve(link, "A", "serve", "--data", WORK / "site", "--listen", f"{link.a}:{SITE}"))
        until(lambda: (WORK / "site/admin.token").exists())
        until(lambda: ask(link, "A", f"http://{link.a}:{SITE}/readyz"))
        depot(link, "dp", "join-token", "create", "--name", "branch", "--output", WORK / "token",
              "--site-url", f"https://{link.a}:{port}")
        servers.append(serve(link, "B", "dp", "serve", "--join-file", WORK / "token", "--data",
                             WORK / "point", "--listen", f"{link.b}:{POINT}"))
        until(lambda: ask(link, "B", f"http://{link.b}:{POINT}/readyz"))
        yield link
    finally:
        for server in reversed(servers):
            server.terminate()
            server.wait()
        link.close()
        shutil.rmtree(WORK, ignore_errors=True)


def serve(link, end, *command):
    log = open(WORK / f"{end}.log", "w")
    return subprocess.Popen(link.at(end, DEPOT, *command, "--set=log.access=false"), stdout=log, stderr=log)


def depot(link, *command):
    environment = os.environ | {"DEPOT_URL": f"http://{link.a}:{SITE}",
                                "DEPOT_TOKEN_FILE": str(WORK / "site/admin.token")}
    run(*link.at("A", DEPOT, *command), env=environment, stdout=subprocess.DEVNULL)


def ask(link, end, url):
    found = subprocess.run(link.at(end, "curl", "-sf", "-o", "/dev/null", url), check=False)
    return found.returncode == 0


def until(holds, patience=3600, every=0.02):
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(every)


def bring(link, name, source, meanwhile=lambda: None):
    """Makes a package of a folder and has the point hold it; seconds and bytes that it took."""
    depot(link, "package", "create", name, "--source", source)
    depot(link, "package", "update", name)
    before, began = link.received(), time.monotonic()
    depot(link, "distribute", name, "--dp", "branch")
    meanwhile()
    until(lambda: ask(link, "B", f"http://{link.b}:{POINT}/packages/{name}/2/"))
    took = time.monotonic() - began
    return took, None if before is None else link.received() - before


def rsync(link, source):
    """The same by a daemon of rsync, to an empty folder."""
    conf = WORK / "rsyncd.conf"
    conf.write_text(f"use chroot = no\nuid = 0\ngid = 0\n[m]\npath = {source}\nread only = yes\n")
    command = ["rsync", "--daemon", "--no-detach", f"--config={conf}", f"--port={PEER}",
               f"--address={link.a}"]
    server = subprocess.Popen(link.at("A", *command))
    try:
        time.sleep(0.5)
        began = time.monotonic()
        run(*link.at("B", "rsync", "-az", f"rsync://{link.a}:{PEER}/m/", f"{WORK}/copy/"))
        return time.monotonic() - began
    finally:
        server.terminate()
        server.wait()


def size_of(folder):
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())


def first():
    real, small = CORPORA / "real/unpacked/v01", CORPORA / "small/v01"
    for source, name, goal in ((real, "real", 2.0), (small, "small", 3.0)):
        size = size_of(source)
        with field("loopback") as link:
            took, _ = bring(link, "p", source)
            peer = rsync(link, source)
        what = f"first copy, {name}, {size / 1e6:.0f} MB"
        row(what, "depot", f"{took:.2f}", "s")
        row(what, "rsync -az", f"{peer:.2f}", "s")
        row(what, "ratio", f"{peer / took:.2f}", "times", f">= {goal}")
    with field("gbit") as link:
        took, moved = bring(link, "p", real)
    size = size_of(real)
    row("first copy, real, 1 Gbit/s", "depot", f"{took:.2f}", "s")
    row("first copy, real, 1 Gbit/s", "content", f"{size * 8 / took / 1e9:.2f}", "of link", ">= 0.8")
    row("first copy, real, 1 Gbit/s", "on the wire", f"{moved * 8 / took / 1e9:.2f}", "of link")


def noise(path, size, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    dice = random.Random(seed)
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(dice.randbytes(1 << 20))
        file.write(dice.randbytes(size & ((1 << 20) - 1)))


def lossy():
    # Small enough for minutes: one stream reaches about 2 Mbit/s on such a link.
    for name, files, size in (("one large file", 1, 48 << 20), ("small files", 500, 16 << 10)):
        with field("lossy") as link:
            source = WORK / "source"
            for n in range(files):
                noise(source / f"{n % 10:02}" / f"{n:05}", size, n)
            began = time.monotonic()
            urls = WORK / "urls"
            depot(link, "package", "create", "p", "--source", source)
            depot(link, "package", "update", "p")
            with open(urls, "w") as out:
                for n in range(files):
                    print(f'url = "http://{link.a}:{SITE}/packages/p/2/{n % 10:02}/{n:05}"', file=out)
                    print('output = "/dev/null"', file=out)
            began = time.monotonic()
            # One connection, kept: the single stream that the goal speaks of.
            run(*link.at("B", "curl", "-sf", "-K", urls))
            peer = time.monotonic() - began
            began = time.monotonic()
            depot(link, "distribute", "p", "--dp", "branch")
            until(lambda: ask(link, "B", f"http://{link.b}:{POINT}/packages/p/2/"))
            took = time.monotonic() - began
        what = f"20 Mbit/s, 80 ms, 1 % loss, {name}"
        row(what, "depot", f"{took:.1f}", "s")
        row(what, "curl", f"{peer:.1f}", "s")
        row(what, "ratio", f"{peer / took:.2f}", "times", ">= 0.9")


class Relay:
    """Hands on what comes to a port of its own, counts what goes to the client, and cuts when told."""

    def __init__(self, to):
        self.to, self.counted, self.open = to, 0, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        # What lies in the kernel's buffers counts as sent, and is lost in a cut: as much as a line of
        # 1 Gbit/s and 2 ms has on its way.
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 << 10)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                client.close()
                continue
            self.open += [client, server]
            for pair, counts in (((client, server), 0), ((server, client), 1)):
                threading.Thread(target=self.pump, args=(*pair, counts), daemon=True).start()

    def pump(self, source, to, counts):
        try:
            while piece := source.recv(1 << 18):
                self.counted += counts * len(piece)
                to.sendall(piece)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        cut, self.open = self.open, []
        for end in cut:
            # A reset, and nothing that is under way arrives.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def cuts():
    size, n = int(os.environ.get("CUT_MIB", 4096)) << 20, 50
    what = f"{size >> 20} MiB, {n} cuts"
    relay = Relay(SITE)
    with field("loopback", relay.port) as link:
        noise(WORK / "source/large", size, 1)

        def cut():
            for at in range(n):
                until(lambda: relay.counted > size * (at + 0.5) / n, every=0.002)
                relay.cut()

        took, _ = bring(link, "p", WORK / "source", cut)
    moved, relay.counted = relay.counted, 0
    with field("loopback", relay.port) as link:
        noise(WORK / "source/large", size, 1)
        whole, _ = bring(link, "p", WORK / "source")
    row(what, "depot", f"{took:.1f}", "s")
    row(what, "uncut", f"{whole:.1f}", "s")
    row(what, "sent twice", f"{100 * (moved - relay.counted) / size:.2f}", "%", "< 1")


def main():
    parts = {"first": first, "lossy": lossy, "cuts": cuts}
    named = sys.argv[1:] or list(parts)
    for name in named:
        if name not in parts:
            sys.exit(f"no part {name}: {', '.join(parts)}")
    for name in named:
        parts[name]()
    print("\n|  |  | value | unit | goal |\n|---|---|---|---|---|")
    for line in rows:
        print("| " + " | ".join(line) + " |")


main()
