#!/usr/bin/env python3
"""The agent: memory when it has nothing to do, and a scan of this machine against Debian's security suite.

    benches/agent/run.py [--depot target/release/depot] [--archive URL] [--scans 5]

Starts a site with Debian's own index as its source (the sample of sync/tests/data/apt, or an archive), has an agent join
that looks at this machine's dpkg, and has it scan: with nothing, with all unchanged, and offline. Prints a table in
Markdown. Listens on loopback alone; works in a folder for temporary files, which is deleted.
"""

import argparse
import json
import lzma
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "sync/tests/data/apt"
SUITE = "bookworm-security"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depot", type=pathlib.Path, default=ROOT / "target/release/depot")
    parser.add_argument("--archive")
    parser.add_argument("--scans", type=int, default=5)
    return parser.parse_args()


def sample(folder):
    """The sample as an archive, signed anew, as the signature that came with it has had its time; and its keyring."""
    suite = folder / "archive/dists" / SUITE
    packages = suite / "main/binary-amd64"
    packages.mkdir(parents=True)
    (packages / "Packages").write_bytes(lzma.decompress((DATA / "Packages.xz").read_bytes()))
    fields = {
        "Origin": "Debian", "Label": "Debian-Security", "Suite": "oldstable-security", "Codename": SUITE,
        "Version": "12", "Architectures": "amd64", "Components": "main",
    }
    options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in fields.items()]
    release = subprocess.run(
        ["apt-ftparchive", *options, "release", "."], cwd=suite, stdout=subprocess.PIPE, check=True
    ).stdout
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", keys, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "bench@example.org", "ed25519", "sign"], check=True)
    (suite / "InRelease").write_bytes(
        subprocess.run([*gpg, "--clearsign"], input=release, stdout=subprocess.PIPE, check=True).stdout
    )
    keyring = folder / "archive.gpg"
    keyring.write_bytes(subprocess.run([*gpg, "--export"], stdout=subprocess.PIPE, check=True).stdout)
    return (folder / "archive").as_uri(), keyring


def memory(pid, field):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def resident(pid):
    own = memory(pid, "RssAnon")
    return f"{memory(pid, 'VmRSS'):.1f} MiB, of which {own:.1f} are not the program's file"


class Bench:
    def __init__(self, args, folder):
        self.depot, self.folder = args.depot.resolve(), folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("DEPOT_")}
        self.env["DEPOT_CONFIG"] = "/dev/null"
        self.started = []

    def start(self, words, log):
        out = open(self.folder / log, "w", encoding="utf-8")
        process = subprocess.Popen(
            [self.depot, *words], stdout=subprocess.PIPE, stderr=out, env=self.env, text=True
        )
        self.started.append(process)
        return process

    def run(self, *words):
        done = subprocess.run(
            [self.depot, *words, "--json"], stdout=subprocess.PIPE, env=self.env, text=True, check=True
        )
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None

    def agent(self, *words):
        return self.run("--data", self.folder / "agent", "agent", *words)

    def until(self, what, holds, seconds=300):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                found = holds()
            except subprocess.CalledProcessError:
                found = None
            if found:
                return found
            time.sleep(0.2)
        raise SystemExit(f"{what}: waited in vain; {self.folder}")

    def stop(self):
        for process in self.started:
            process.terminate()
        for process in self.started:
            process.wait()


def measure(args, folder):
    bench = Bench(args, folder)
    try:
        site = bench.start(
            ["serve", "--listen", "127.0.0.1:0", "--data", folder / "site", "--json"], "site.log"
        )
        told = json.loads(site.stdout.readline())
        bench.env |= {"DEPOT_URL": told["url"], "DEPOT_TOKEN_FILE": told["token_file"]}
        debian = DATA / "debian-archive-keyring.gpg"
        archive, keyring = (args.archive, debian) if args.archive else sample(folder)
        bench.run(
            "sync", "source", "add", "debian", "--apt", archive, "--suite", SUITE, "--components", "main",
            "--arch", "amd64", "--keyring", keyring,
        )
        bench.run("sync", "run", "--watch")
        token = folder / "join.token"
        bench.run("client", "join-token", "create", "--name", "bench", "--output", token)
        agent = bench.start(
            ["agent", "run", "--data", folder / "agent", "--join-file", token], "agent.log"
        )
        bench.until("a policy", lambda: bench.agent("status")["updates_enabled"])
        time.sleep(5)
        rows = [("idle, before the first scan, RSS", resident(agent.pid))]
        first = bench.until("a catalogue", lambda: bench.agent("scan", "--force"))
        rows.append(("first scan: bring and assess", f"{first['took']:.2f} s"))
        rows.append(("updates assessed", sum(v for k, v in first["counts"].items() if k != "awaits_restart")))
        rows.append(("brought, compressed", f"{first['refreshed']['bytes']:,} bytes"))
        took = [bench.agent("scan", "--force")["took"] for _ in range(args.scans)]
        rows.append(("scan that asks, nothing new, median", f"{sorted(took)[len(took) // 2]:.3f} s"))
        took = [bench.agent("scan", "--offline")["took"] for _ in range(args.scans)]
        rows.append(("scan offline, median", f"{sorted(took)[len(took) // 2]:.3f} s"))
        rows.append(("required, installed", f"{first['counts']['required']}, {first['counts']['installed']}"))
        bench.agent("report")
        rows.append(("most memory so far", f"{memory(agent.pid, 'VmHWM'):.1f} MiB"))
        time.sleep(30)
        rows.append(("idle, 30 s after scans and a report, RSS", resident(agent.pid)))
        print("| the agent | |\n|---|---:|")
        for name, value in rows:
            print(f"| {name} | {value} |")
    finally:
        bench.stop()


def main():
    args = arguments()
    with tempfile.TemporaryDirectory(prefix="depot-bench-", dir=os.environ.get("WORK")) as folder:
        measure(args, pathlib.Path(folder))


if __name__ == "__main__":
    main()
