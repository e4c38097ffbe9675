#!/usr/bin/env python3
"""A simulated fleet at a site of its own: `depot fleet simulate`, with the memory of the site.

    benches/fleet/run.py [--depot target/release/depot] [--clients 100000] [--duration 15m] [--outage] [--harm 10]

Starts a site on loopback, makes a join token, has the machines join, which the site allows at 500 requests a second
from one address, and report within the duration. What the simulation finds is printed as it says it. Works in a
folder for temporary files, which is deleted.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depot", type=pathlib.Path, default=ROOT / "target/release/depot")
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--duration", default="15m")
    parser.add_argument("--harm", type=int, default=0)
    parser.add_argument("--outage", action="store_true")
    return parser.parse_args()


def main():
    args = arguments()
    depot = args.depot.resolve()
    env = {key: value for key, value in os.environ.items() if not key.startswith("DEPOT_")}
    env["DEPOT_CONFIG"] = "/dev/null"
    with tempfile.TemporaryDirectory(prefix="depot-bench-", dir=os.environ.get("WORK")) as folder:
        folder = pathlib.Path(folder)
        with open(folder / "site.log", "w", encoding="utf-8") as log:
            site = subprocess.Popen(
                [depot, "serve", "--listen", "127.0.0.1:0", "--data", folder / "site", "--json"],
                stdout=subprocess.PIPE, stderr=log, env=env, text=True,
            )
        try:
            told = json.loads(site.stdout.readline())
            env |= {"DEPOT_URL": told["url"], "DEPOT_TOKEN_FILE": told["token_file"]}
            token = folder / "join.token"
            create = [depot, "client", "join-token", "create", "--name", "bench"]
            subprocess.run(
                [*create, "--uses", str(args.clients), "--output", token],
                env=env, check=True, stdout=subprocess.DEVNULL,
            )
            words = ["--clients", args.clients, "--duration", args.duration, "--harm", args.harm]
            words += ["--outage"] * args.outage
            words += ["--join-file", token, "--site-pid", site.pid]
            subprocess.run([depot, "fleet", "simulate", *map(str, words)], env=env, check=True)
        finally:
            site.terminate()
            site.wait()


if __name__ == "__main__":
    main()
