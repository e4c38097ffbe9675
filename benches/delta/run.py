#!/usr/bin/env python3
"""run.py [--from v01] [--to v02] [--peers] CORPORA [SERIES...]: what does bringing the next version cost?

CORPORA holds a folder for each version (v01, v02, ...), and each of those one for each series.
A real site and a real distribution point, both `$DEPOT` (default target/release/depot), on loopback. The
point holds the first version; the second is published, and then distributed. Counted are the bytes of bodies
that the point received, and the CPU seconds of both processes from then until it is held.

With --peers, in the same run: `zstd -3 --long=30 --patch-from` of the two tars, what zstd -3 makes of the
changed files in one tar, and the chunks that casync adds to its store, with its index.

Prints a table as Markdown.
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

DEPOT = os.environ.get("DEPOT", "target/release/depot")
TICK = os.sysconf("SC_CLK_TCK")


def environment():
    """Without the settings of this machine."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DEPOT_") and not k.lower().endswith("_proxy")}
    return kept | {"DEPOT_CONFIG": "/dev/null"}


class Server:
    """A process of depot that serves, with its log."""

    def __init__(self, arguments, log):
        command = [DEPOT, *arguments, "--listen", "127.0.0.1:0", "--set", "log.format=json", "--json"]
        self.log = log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out, env=environment())
        self.url = json.loads(self.process.stdout.readline())["url"]

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def events(self):
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                event = json.loads(line)
                yield event | event.get("fields", {})

    def stop(self):
        self.process.terminate()
        self.process.wait()


def run(command, **more):
    """Runs a command; its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def depot(old, new, work):
    site_data, point_data = work / "site", work / "point"
    site = Server(["serve", "--data", site_data], work / "site.log")
    try:
        at_site = ["--url", site.url, "--token-file", site_data / "admin.token"]

        def ask(*arguments):
            command = [str(part) for part in [DEPOT, *arguments, *at_site]]
            return subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout

        token = json.loads(ask("dp", "join-token", "create", "--name", "p", "--json"))["token"]
        point = Server(["dp", "serve", "--data", point_data, "--join", token], work / "point.log")
        try:
            ask("package", "create", "x")

            def bring(folder, version):
                ask("package", "push", "x", folder)
                before = site.cpu(), point.cpu()
                ask("distribute", f"x@{version}", "--dp", "p")
                while True:
                    if point.process.poll() is not None or site.process.poll() is not None:
                        sys.exit("a server ended; its log is in " + str(work))
                    held = [e for e in point.events() if e.get("message") == "held" and e.get("version") == version]
                    if held:
                        break
                    time.sleep(0.05)
                after = site.cpu(), point.cpu()
                return held[0], after[0] - before[0], after[1] - before[1]

            bring(old, 2)
            # Its report and what else follows is not the next version's.
            time.sleep(3)
            held, sender, receiver = bring(new, 3)
            return held["moved_bytes"], held.get("delta_bytes", 0), sender, receiver
        finally:
            point.stop()
    finally:
        site.stop()


def tar(folder, to, files=None):
    what = ["-T", files] if files else ["."]
    run(["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-C", folder, "-cf", to, *what])


def changed(old, new):
    """The files of `new` that `old` has no file of the same path and bytes for."""
    for path in sorted(p for p in new.rglob("*") if p.is_file() and not p.is_symlink()):
        name = path.relative_to(new)
        before = old / name
        if not before.is_file() or before.is_symlink() or before.read_bytes() != path.read_bytes():
            yield str(name)


def size_below(folder):
    return {p: p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def peers(old, new, work):
    a, b, patch = work / "a.tar", work / "b.tar", work / "patch"
    tar(old, a)
    tar(new, b)
    make = run(["zstd", "-q", "-f", "-3", "--long=30", f"--patch-from={a}", b, "-o", patch])
    apply = run(["zstd", "-q", "-f", "-d", "--long=30", "--memory=2048MB", f"--patch-from={a}", patch, "-o", work / "out"])
    (work / "list").write_text("\n".join(changed(old, new)))
    tar(new, work / "changed.tar", work / "list")
    run(["zstd", "-q", "-f", "-3", work / "changed.tar", "-o", work / "changed.zst"])
    store = work / "store"
    store.mkdir()
    casync = ["casync", "make", "--with=unix", "--compression=zstd", f"--store={store}"]
    run([*casync, work / "a.caidx", old])
    before = size_below(store)
    run([*casync, work / "b.caidx", new])
    added = sum(size for path, size in size_below(store).items() if path not in before)
    sizes = [path.stat().st_size for path in (patch, work / "changed.zst", work / "b.caidx")]
    return sizes[0], make, apply, sizes[1], added + sizes[2]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--from", dest="old", default="v01")
    parser.add_argument("--to", dest="new", default="v02")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("corpora", type=pathlib.Path)
    parser.add_argument("series", nargs="*")
    args = parser.parse_args()
    series = args.series or sorted(p.name for p in (args.corpora / args.new).iterdir() if p.is_dir())
    head = ["series", "moved", "of it deltas", "site s", "point s"]
    if args.peers:
        head += ["zstd patch", "ratio", "make s", "apply s", "changed zstd", "casync"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for name in series:
        old, new = args.corpora / args.old / name, args.corpora / args.new / name
        with tempfile.TemporaryDirectory(prefix="depot-delta-") as work:
            work = pathlib.Path(work)
            moved, deltas, sender, receiver = depot(old, new, work)
            row = [name, f"{moved:,}", f"{deltas:,}", f"{sender:.2f}", f"{receiver:.2f}"]
            if args.peers:
                patch, make, apply, plain, casync = peers(old, new, work)
                row += [f"{patch:,}", f"{moved / patch:.2f}", f"{make:.2f}", f"{apply:.2f}", f"{plain:,}", f"{casync:,}"]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
