#!/usr/bin/env python3
"""State messages and summaries: depot's compliance beside PostgreSQL and SQLite, in one run.

    benches/states/run.py [--clients 100000] [--updates 100] [--upserts 1000000] [--skip postgres|sqlite|fleet]

All take the same load: a state of each update for each client, then upserts in durable commits of 1,000 rows
(20 clients' messages of 50 states). PostgreSQL is asked through psql on one, two and four connections, and by
COPY into a temporary table with one upsert from it; SQLite in process, with parsed rows, the harder peer.
depot gets encoded batches, and reads, checks and applies them. Prints a table in Markdown with ratios to the
best of each peer. Needs postgresql and sqlite3 (Python's). Work is done in a folder below $WORK, or the
system's own for temporary files, and deleted.
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
STATES, SHARES = (1, 2, 3), (25, 10, 65)
BATCH = 1000
UPSERT = (
    "ON CONFLICT (client_id, update_id) DO UPDATE SET state = excluded.state, time = excluded.time"
)
SUMMARY = "SELECT update_id, state, count(*) FROM state GROUP BY 1, 2"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--upserts", type=int, default=1_000_000)
    parser.add_argument("--skip", action="append", default=[], choices=["postgres", "sqlite", "fleet"])
    return parser.parse_args()


def rows(args):
    """One row for each client and update, in key order."""
    draw = random.Random(11)
    for client in range(args.clients):
        states = draw.choices(STATES, SHARES, k=args.updates)
        for update, state in enumerate(states):
            yield client, update, state, 1_700_000_000 + draw.randrange(1 << 20)


def upserts(args):
    """Commits of BATCH rows each."""
    draw = random.Random(12)
    per_client = min(50, args.updates)
    for number in range(args.upserts // BATCH):
        commit = []
        for client in draw.sample(range(args.clients), BATCH // per_client):
            for update in draw.sample(range(args.updates), per_client):
                state = draw.choices(STATES, SHARES)[0]
                commit.append((client, update, state, 1_800_000_000 + number))
        # In the order of the keys, so that two connections wait for each other and do not lock up.
        yield sorted(commit)


@contextlib.contextmanager
def took(results, name, n_rows=None):
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    results[name] = n_rows / seconds if n_rows else seconds * 1e3


def sync_time(folder):
    """Milliseconds that the disk takes for one commit of 24 KiB: it differs from minute to minute."""
    times = []
    with open(folder / "sync", "wb", buffering=0) as out:
        for _ in range(200):
            out.write(bytes(24 << 10))
            start = time.monotonic()
            os.fdatasync(out.fileno())
            times.append((time.monotonic() - start) * 1e3)
    os.remove(folder / "sync")
    return statistics.median(times)


def postgres(args, folder):
    binaries = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        return None
    place, results = folder / "pg", {}
    place.mkdir()
    # PostgreSQL refuses to run as root.
    become = []
    if os.geteuid() == 0:
        shutil.chown(place, "postgres")
        become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def server(*words):
        command = [*become, str(binaries[-1] / words[0]), *words[1:]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=place)

    def psql(script, **more):
        command = [*become, "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-h", str(place), "-U", "postgres"]
        return subprocess.Popen(
            [*command, "-f", script] if isinstance(script, pathlib.Path) else [*command, "-c", script],
            cwd=place, text=True, stdout=subprocess.PIPE, **more,
        )

    def ask(script, **more):
        process = psql(script, **more)
        answer = process.communicate()[0]
        if process.returncode:
            sys.exit("states: psql failed")
        return answer

    server("initdb", "-D", str(place / "data"), "-A", "trust", "-U", "postgres")
    with open(place / "data/postgresql.conf", "a") as settings:
        settings.write(
            f"listen_addresses = ''\nunix_socket_directories = '{place}'\nshared_buffers = 4GB\n"
            "work_mem = 256MB\nmaintenance_work_mem = 1GB\nmax_wal_size = 8GB\ncheckpoint_timeout = 30min\n"
            "wal_compression = zstd\nmax_parallel_workers_per_gather = 2\njit = off\n"
        )
    server("pg_ctl", "-D", str(place / "data"), "-l", str(place / "log"), "-w", "start")
    try:
        results["version"] = ask("SHOW server_version").split()[0]
        ask("CREATE TABLE state (client_id int, update_id int, state smallint, time bigint)")
        load = place / "load.sql"
        with open(load, "w") as out:
            out.write("COPY state FROM stdin (FORMAT csv);\n")
            out.writelines("%d,%d,%d,%d\n" % row for row in rows(args))
            out.write("\\.\nALTER TABLE state ADD PRIMARY KEY (client_id, update_id);\n")
        with took(results, "load", args.clients * args.updates):
            ask(load)
        ask("VACUUM ANALYZE state")
        ask("CHECKPOINT")
        commits = list(upserts(args))

        def script(name, some, write):
            path = place / name
            with open(path, "w") as out:
                write(out, some)
            return path

        def inserts(out, some):
            for commit in some:
                values = ",".join("(%d,%d,%d,%d)" % row for row in commit)
                out.write(f"INSERT INTO state VALUES {values} {UPSERT};\n")

        def copies(out, some):
            out.write("CREATE TEMP TABLE up (LIKE state) ON COMMIT DELETE ROWS;\n")
            for commit in some:
                out.write("BEGIN;\nCOPY up FROM stdin (FORMAT csv);\n")
                out.writelines("%d,%d,%d,%d\n" % row for row in commit)
                out.write(f"\\.\nINSERT INTO state SELECT * FROM up {UPSERT};\nCOMMIT;\n")

        one, copy = script("one.sql", commits, inserts), script("copy.sql", commits, copies)
        with took(results, "upsert, one connection", args.upserts):
            ask(one)
        with took(results, "upsert by COPY, one connection", args.upserts):
            ask(copy)
        for connections in (2, 4):
            shares = [commits[n::connections] for n in range(connections)]
            scripts = [script(f"{n}.sql", share, inserts) for n, share in enumerate(shares)]
            with took(results, f"upsert, {connections} connections", args.upserts):
                for process in [psql(path) for path in scripts]:
                    process.communicate()
                    if process.returncode:
                        sys.exit("states: psql failed")
        ask("VACUUM ANALYZE state")

        def timed(query):
            times = []
            for _ in range(5):
                # The server's own time: psql's start is nobody's fault.
                answer = ask(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY ON) {query}")
                line = next(it for it in answer.splitlines() if it.startswith("Execution Time"))
                times.append(float(line.split()[2]))
            return statistics.median(times)

        results["summary"] = timed(SUMMARY)
        ask("CREATE INDEX ON state (update_id, state)")
        ask("VACUUM ANALYZE state")
        results["summary"] = min(results["summary"], timed(SUMMARY))
    finally:
        server("pg_ctl", "-D", str(place / "data"), "-m", "fast", "stop")
    return results


def sqlite(args, folder):
    results = {"version": sqlite3.sqlite_version}
    db = sqlite3.connect(folder / "sqlite.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "cache_size=-1048576", "mmap_size=8589934592"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(
        "CREATE TABLE state (client_id int, update_id int, state int, time int, "
        "PRIMARY KEY (client_id, update_id)) WITHOUT ROWID"
    )
    loaded = list(rows(args)) if args.clients * args.updates <= 20_000_000 else rows(args)
    with took(results, "load", args.clients * args.updates):
        db.execute("BEGIN")
        db.executemany("INSERT INTO state VALUES (?,?,?,?)", loaded)
        db.execute("COMMIT")
    del loaded
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    commits = list(upserts(args))
    with took(results, "upsert, one connection", args.upserts):
        for commit in commits:
            db.execute("BEGIN")
            db.executemany(f"INSERT INTO state VALUES (?,?,?,?) {UPSERT}", commit)
            db.execute("COMMIT")

    def timed(query):
        times = []
        for _ in range(5):
            start = time.monotonic()
            db.execute(query).fetchall()
            times.append((time.monotonic() - start) * 1e3)
        return statistics.median(times)

    results["summary"] = timed(SUMMARY)
    db.execute("CREATE INDEX u ON state (update_id, state)")
    results["summary"] = min(results["summary"], timed(SUMMARY))
    db.close()
    return results


def depot(args, folder):
    environment = {
        **os.environ,
        "WORK": str(folder),
        "CLIENTS": str(args.clients),
        "UPDATES": str(args.updates),
        "UPSERTS": str(args.upserts),
    }
    parts = ["load"] if "fleet" in args.skip else ["load", "fleet"]
    command = ["cargo", "bench", "-q", "-p", "compliance", "--bench", "states", "--", *parts]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, check=True
    )
    lines = (line.split("\t") for line in done.stdout.splitlines() if "\t" in line)
    return {name: float(value) for name, value in lines}


def table(args, ours, peers):
    print(f"{args.clients:,} clients, {args.updates} updates, {args.upserts:,} upserts by {BATCH}\n")
    heads = [f"{name} {results['version']}" for name, results in peers.items()]
    print("| what | depot | " + " | ".join(f"{head} | ratio" for head in heads) + " |")
    print("|---|---:|" + "---:|---:|" * len(heads))

    def line(what, own, best, is_rate):
        shown = (lambda it: f"{it:,.0f}") if is_rate else (lambda it: f"{it:,.3f}")
        cells = [what, shown(own)]
        for results in peers.values():
            peer = best(results)
            cells += [shown(peer), f"{own / peer if is_rate else peer / own:.1f}x"]
        print("| " + " | ".join(cells) + " |")

    upsert = max(value for name, value in ours.items() if name.startswith("upsert"))
    line("load, rows/s", ours["load rows/s"], lambda it: it["load"], True)
    best = lambda it: max(value for name, value in it.items() if name.startswith("upsert"))
    line("durable upserts, best, rows/s", upsert, best, True)
    line("summary of all, ms", ours["summary of all ms"], lambda it: it["summary"], False)
    print("\nGoals: upserts 10x PostgreSQL and 3x SQLite; summary 100x PostgreSQL.\n")
    print("| depot alone | |\n|---|---:|")
    for name, value in ours.items():
        print(f"| {name} | {value:,.3f} |")
    for peer, results in peers.items():
        for name, value in results.items():
            if name.startswith("upsert"):
                print(f"| {peer}: {name}, rows/s | {value:,.0f} |")


def main():
    args = arguments()
    # Compiling is no part of what is measured.
    subprocess.run(["cargo", "bench", "-q", "-p", "compliance", "--no-run"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("WORK")) as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        peers, syncs = {}, {}
        for peer, run in (("PostgreSQL", postgres), ("SQLite", sqlite)):
            if run.__name__ in args.skip:
                continue
            syncs[f"before {peer}"] = sync_time(folder)
            results = run(args, folder)
            if results is None:
                print(f"states: {peer} is not installed, and is left out", file=sys.stderr)
            else:
                peers[peer] = results
        syncs["before depot"] = sync_time(folder)
        ours = depot(args, folder)
        syncs["after depot"] = sync_time(folder)
        table(args, ours, peers)
        for when, value in syncs.items():
            print(f"| disk: one sync {when}, ms | {value:,.3f} |")


if __name__ == "__main__":
    main()
