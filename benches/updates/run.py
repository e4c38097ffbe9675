#!/usr/bin/env python3
"""What it takes to follow a Debian archive and to mirror packages of it, beside apt-get and debmirror.

    run.py DEPOT [sync] [again] [memory] [overlap] [mirror]          (all of them if none is named)

sync: a first sync of the security suite by an empty site, beside `apt-get update` of the same suite into
folders of its own and a pass of grep-dctrl over what that brought; again: a repeated sync, its time and the
requests that it makes; memory: the site's largest resident size for the security suite and for the main
one; overlap: the same after fifty syncs of ten sources of the security suite that were asked for at once, all of
everything, and half a minute later; mirror: thirty packages of the security suite with metadata, beside debmirror with the same ones, both from a
server of this machine that holds all of it in memory: a round before the first one, which counts for nothing,
brings it there. Who begins changes from round to round. (Without that a figure is that of the archive's cache at
the time, and two runs differ by nine times.)

The archive is that of this machine's own apt configuration; peers are installed by apt, which needs root.
DEPOT is the program to measure, of a release build. WORK is a folder with room for some hundred MB. Each
figure is the median of ROUNDS rounds (3). Prints a table to be put into ../RESULTS.md.
"""
import glob, http.server, json, lzma, os, pathlib, re, shutil, statistics, subprocess
import sys, threading, time, urllib.error, urllib.parse, urllib.request

WORK = pathlib.Path(os.environ.get("WORK", "/var/tmp")) / "depot-bench-updates"
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CHOSEN, LARGEST = 30, 2_000_000
ARCH = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True).stdout.strip()
rows = []


def row(what, name, value, unit, goal=""):
    rows.append((what, name, value, unit, goal))
    print(f"{what:30} {name:24} {value:>10} {unit:9} {goal}", flush=True)


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{command[0]} failed ({done.returncode}): {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median(figures):
    return statistics.median(figures)


def fresh(name):
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def stored(folder, *left_out):
    out = 0
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_file() and not path.is_symlink() and (not inside or inside[0] not in left_out):
            out += path.stat().st_blocks * 512
    return out


def configured():
    """The entries of this machine's apt configuration: (address, suite, keyring)."""
    entries = []
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    for path in glob.glob("/etc/apt/sources.list.d/*.sources"):
        for stanza in re.split(r"\n\s*\n", pathlib.Path(path).read_text()):
            lines = [line for line in stanza.splitlines() if not line.startswith("#")]
            fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", "\n".join(lines), re.M))
            for uri in fields.get("URIs", "").split():
                for suite in fields.get("Suites", "").split():
                    entries.append((uri, suite, fields.get("Signed-By", keyring)))
    for path in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*.list")]:
        text = pathlib.Path(path).read_text() if os.path.exists(path) else ""
        for options, uri, suite in re.findall(r"^deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)", text, re.M):
            signed = re.search(r"signed-by=(\S+)", options)
            entries.append((uri, suite, signed[1] if signed else keyring))
    return [(uri.rstrip("/"), suite, key) for uri, suite, key in entries if os.path.exists(key)]


def archives():
    entries = configured()
    security = [entry for entry in entries if entry[1].endswith("-security")]
    if not security:
        sys.exit("this machine's apt configuration names no security suite: nothing is measured")
    release = security[0][1].removesuffix("-security")
    main = [entry for entry in entries if entry[1] == release]
    return security[0], main[0] if main else None


class Site:
    """A site of its own, in an empty folder."""

    def __init__(self, depot, folder):
        self.depot, self.folder = depot, folder

    def __enter__(self):
        command = [self.depot, "--json", "--data", self.folder, "serve", "--listen", "127.0.0.1:0"]
        log = open(self.folder.parent / "serve.log", "a")
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=log, text=True)
        said = json.loads(self.process.stdout.readline())
        self.env = {**os.environ, "DEPOT_URL": said["url"], "DEPOT_TOKEN_FILE": said["token_file"]}
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, *arguments):
        return run(self.depot, *arguments, env=self.env)

    def add(self, name, archive, address=None):
        uri, suite, keyring = archive
        self.ask("sync", "source", "add", name, "--apt", address or uri, "--suite", suite, "--components",
                 "main", "--arch", ARCH, "--keyring", keyring)

    def size(self, of="VmHWM"):
        """The largest resident size so far, in bytes, or with VmRSS the one now."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(of + r":\s+(\d+) kB", status)[1]) * 1024


def apt(folder, archive, *command):
    uri, suite, keyring = archive
    for part in ("etc", "state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "etc/sources.list").write_text(f"deb [signed-by={keyring}] {uri} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": folder / "etc/sources.list", "Dir::Etc::sourceparts": "-",
        "Dir::State": folder / "state", "Dir::Cache": folder / "cache", "APT::Architecture": ARCH,
        "APT::Sandbox::User": "root", "Acquire::Languages": "none",
        "DPkg::Post-Invoke::": "", "APT::Update::Post-Invoke-Success::": "",
    }
    sets = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return run("apt-get", *sets, *command)


def lists(folder):
    found = [path for path in (folder / "state/lists").glob("*_Packages*") if path.is_file()]
    return found or sys.exit("apt-get update brought no lists")


def parse(folder):
    """Reads every field that a catalogue needs of every package."""
    for path in lists(folder):
        packed = {".lz4": ["lz4", "-dc"], ".xz": ["xz", "-dc"], ".gz": ["gzip", "-dc"]}.get(path.suffix)
        plain = subprocess.run([*packed, path], capture_output=True, check=True).stdout if packed \
            else path.read_bytes()
        subprocess.run(["grep-dctrl", "-n", "-s", "Package,Version,Architecture,Source,Filename,Size,SHA256",
                        "-F", "Package", ".", "-"], input=plain, stdout=subprocess.DEVNULL, check=True)


def sync(depot, security, _):
    ours, update, parsing = [], [], []
    for n in range(ROUNDS):
        folder = fresh("apt")
        update.append(timed(lambda: apt(folder, security, "update")))
        parsing.append(timed(lambda: parse(folder)))
        with Site(depot, fresh("site")) as site:
            site.add("security", security)
            ours.append(timed(lambda: site.ask("sync", "run", "security", "--watch")))
    peers = median(update) + median(parsing)
    row("first sync, security", "depot", f"{median(ours):.2f}", "s", "<= 2 x peers")
    row("", "apt-get update", f"{median(update):.2f}", "s")
    row("", "grep-dctrl", f"{median(parsing):.2f}", "s")
    row("", "depot / peers", f"{median(ours) / peers:.2f}", "x", "<= 2")


class Counting(http.server.ThreadingHTTPServer):
    """The archive, through a server of this machine that asks for each thing once, keeps it in memory, and counts
    what it is asked itself."""
    daemon_threads = True

    def __init__(self, upstream):
        self.upstream, self.asked, self.kept, self.brought = upstream, [], {}, 0
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def bring(self, path):
        if path not in self.kept:
            self.brought += 1
            try:
                answer = urllib.request.urlopen(self.upstream + path, timeout=60)
            except urllib.error.HTTPError as error:
                answer = error
            body, status = answer.read(), answer.status
            if status == 404 and path.endswith("/Packages"):
                # debmirror asks for a plain index where the archive lists one and has it packed alone.
                packed = urllib.request.urlopen(self.upstream + path + ".xz", timeout=60)
                body, status = lzma.decompress(packed.read()), 200
            if status not in (200, 404):
                return status, {}, b""
            passed = ("ETag", "Last-Modified", "Content-Type")
            headers = {key: answer.headers[key] for key in passed if answer.headers.get(key)}
            self.kept[path] = status, headers, body
        return self.kept[path]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, headers, body = self.server.bring(self.path)
        tag, date = self.headers.get("If-None-Match"), self.headers.get("If-Modified-Since")
        is_same = tag == headers.get("ETag") if tag else date == headers.get("Last-Modified")
        if status == 200 and (tag or date) and is_same:
            status = 304
        self.server.asked.append((status, self.path))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def again(depot, security, _):
    with Site(depot, fresh("site")) as site:
        site.add("security", security)
        site.ask("sync", "run", "security", "--watch")
        took = [timed(lambda: site.ask("sync", "run", "security", "--watch")) for _ in range(3 * ROUNDS)]
    row("repeated sync, security", "depot", f"{1000 * median(took):.0f}", "ms", "< 200")
    counting = Counting(security[0])
    with Site(depot, fresh("site")) as site:
        site.add("security", security, counting.address)
        site.ask("sync", "run", "security", "--watch")
        first, counting.asked = counting.asked, []
        site.ask("sync", "run", "security", "--watch")
    row("", "requests at first", len(first), "")
    row("", "requests again", len(counting.asked), "", "1")
    row("", "of them 304", sum(status == 304 for status, _ in counting.asked), "")
    counting.shutdown()


def memory(depot, security, main):
    for name, archive in (("security", security), ("main", main)):
        if archive is None:
            print("this machine's apt configuration names no main suite: left out")
            continue
        with Site(depot, fresh("site")) as site:
            site.add(name, archive)
            took = timed(lambda: site.ask("sync", "run", name, "--watch"))
            row(f"peak memory, {archive[1]}", "depot", f"{site.size() / 2**20:.0f}", "MiB", "< 256")
            row("", "first sync", f"{took:.1f}", "s")


def overlap(depot, security, _):
    counting = Counting(security[0])
    names = [f"s{n}" for n in range(10)]
    with Site(depot, fresh("site")) as site:
        for name in names:
            site.add(name, security, counting.address)
        print(f"  resident: {site.size('VmRSS') / 2**20:.0f} MiB before the first sync", flush=True)
        for n in range(5):
            asked = [subprocess.Popen([depot, "sync", "run", name, "--watch", "--full"], env=site.env,
                                      stdout=subprocess.DEVNULL) for name in names]
            if any(process.wait() for process in asked):
                sys.exit("a sync failed")
            print(f"  resident: {site.size('VmRSS') / 2**20:.0f} MiB after {10 * (n + 1)} syncs", flush=True)
        row("50 overlapping syncs", "peak memory", f"{site.size() / 2**20:.0f}", "MiB")
        row("", "resident afterwards", f"{site.size('VmRSS') / 2**20:.0f}", "MiB")
        time.sleep(30)
        row("", "half a minute later", f"{site.size('VmRSS') / 2**20:.0f}", "MiB")
    counting.shutdown()


def chosen(folder):
    """Names of packages, spread over the suite, none of them large."""
    sizes = {}
    for path in lists(folder):
        for stanza in path.read_text().split("\n\n"):
            fields = dict(re.findall(r"^(Package|Size): (.*)$", stanza, re.M))
            if len(fields) == 2:
                sizes[fields["Package"]] = max(int(fields["Size"]), sizes.get(fields["Package"], 0))
    names = sorted(name for name, size in sizes.items() if size <= LARGEST)
    return names[:: max(1, len(names) // CHOSEN)][:CHOSEN]


def mirror(depot, security, _):
    if not shutil.which("debmirror"):
        run("apt-get", "install", "-y", "--no-install-recommends", "debmirror")
    folder = fresh("apt")
    apt(folder, security, "-o", "Acquire::GzipIndexes=false", "update")
    names = chosen(folder)
    wanted = WORK / "wanted"
    wanted.write_text("\n".join(names) + "\n")
    uri, suite, keyring = security
    # Both come by the same server of this machine, so neither is nearer to the archive.
    counting = Counting(uri)
    place = urllib.parse.urlsplit(counting.address + "/")
    pattern = "/(" + "|".join(map(re.escape, names)) + ")_"
    ours, peers, bytes_ours, bytes_peers = [], [], [], []

    def theirs():
        target = fresh("debmirror")
        command = ["debmirror", target, f"--method={place.scheme}", f"--host={place.netloc}",
                   "--root=/", f"--dist={suite}", "--section=main", f"--arch={ARCH}",
                   "--nosource", "--diff=none", "--rsync-extra=none", f"--keyring={keyring}",
                   "--exclude=.*", f"--include={pattern}", "--ignore-missing-release"]
        peers.append(timed(lambda: run(*command)))
        bytes_peers.append(stored(target, ".temp"))

    def our_own():
        data = fresh("site")
        with Site(depot, data) as site:

            def all_of_it():
                site.add("security", security, counting.address)
                site.ask("sync", "run", "security", "--watch")
                site.ask("package", "create", "few", "--mirror", "security", "--include", wanted)
                site.ask("package", "update", "few")

            ours.append(timed(all_of_it))
        bytes_ours.append(stored(data / "library/packs"))

    for n in range(ROUNDS + 1):
        brought = counting.brought
        for turn in (theirs, our_own) if n % 2 else (our_own, theirs):
            turn()
        if n == 0:
            print(f"  before the rounds: depot {ours.pop():.2f} s, debmirror {peers.pop():.2f} s, "
                  f"{counting.brought} files brought from the archive", flush=True)
        else:
            print(f"  round {n}: depot {ours[-1]:.2f} s, debmirror {peers[-1]:.2f} s, "
                  f"{counting.brought - brought} files brought from the archive", flush=True)
    counting.shutdown()
    debs = sum(1 for _ in (WORK / "debmirror").rglob("*.deb"))
    row(f"mirror, {len(names)} names, {debs} files", "depot, with first sync", f"{median(ours):.2f}", "s",
        "<= debmirror")
    row("", "debmirror", f"{median(peers):.2f}", "s")
    row("", "depot stores", f"{median(bytes_ours) / 1e6:.2f}", "MB", "<= debmirror")
    row("", "debmirror stores", f"{median(bytes_peers) / 1e6:.2f}", "MB")


def main():
    parts = {"sync": sync, "again": again, "memory": memory, "overlap": overlap, "mirror": mirror}
    if len(sys.argv) < 2 or not os.access(sys.argv[1], os.X_OK):
        sys.exit(__doc__)
    named = sys.argv[2:] or list(parts)
    for name in named:
        if name not in parts:
            sys.exit(f"no part {name}: {', '.join(parts)}")
    depot = os.path.abspath(sys.argv[1])
    security, release = archives()
    for name in named:
        parts[name](depot, security, release)
    shutil.rmtree(WORK, ignore_errors=True)
    print("\n| what | who | value | unit | goal |\n|---|---|---|---|---|")
    for line in rows:
        print("| " + " | ".join(map(str, line)) + " |")


if __name__ == "__main__":
    main()
