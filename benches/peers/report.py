#!/usr/bin/env python3
"""report.py DIR...: what the scripts measured, as markdown tables, and each goal as PASS or FAIL with its ratio.

Reads ingest.tsv, serve.tsv and bounds.tsv of each DIR; rows of several are pooled, so that a run of depot alone
can be held against peers recorded before (good for a hint; a goal is decided by one run of both).
A figure is the median over its quiet rounds: those in which the rest of the machine did next to nothing. Where there
are fewer of them than QUIET_ROUNDS (default 2), it is the median over the less busy half of all, and marked ~.
"""
import os
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

ENOUGH = int(os.environ.get("QUIET_ROUNDS", 2))
INGEST = ("source", "wall", "cpu", "rss", "stored", "other", "exit")
SERVE = ("req_s", "mb_s", "p50", "p99", "cpu_gb", "cpu_req", "rss", "errors", "other")
REAL, PACKED, SMALL, BIG = "real/unpacked", "real/packed", "small", "big"
SIZES = {1 << 10: "1 KiB", 16 << 10: "16 KiB", 1 << 20: "1 MiB", 256 << 20: "256 MiB"}


class Measured:
    """Every row, and the figure to quote for each."""

    def __init__(self, folders):
        self.ingest, self.serve, self.bounds = defaultdict(list), defaultdict(list), {}
        self.broken = set()  # (series or "serve", peer) that failed or gave other bytes back
        for folder in map(Path, folders):
            for series, peer, _round, step, *values in rows(folder / "ingest.tsv"):
                if float(values[-1]) != 0:
                    self.broken.add((series, peer))
                if step != "differs":
                    self.ingest[series, peer, step].append(dict(zip(INGEST, map(float, values))))
            for peer, size, connections, _round, *values in rows(folder / "serve.tsv"):
                row = dict(zip(SERVE, map(float, values)))
                row["wall"] = SERVE_SECONDS
                self.serve[peer, int(size), int(connections)].append(row)
            for peer, *_ in rows(folder / "serve-wrong.tsv"):
                self.broken.add(("serve", peer))
            for name, value, *_ in rows(folder / "bounds.tsv"):
                self.bounds[name] = float(value)

    def figure(self, rows, what):
        """(median, whether it was taken on a quiet machine); None if nothing was measured."""
        if what in ("source", "stored"):  # no noise in a count of bytes
            return (median(row[what] for row in rows), True) if rows else None
        quiet = [row[what] for row in rows if row["other"] <= 0.1 * row["wall"] + 0.1]
        if rows and len(quiet) >= min(ENOUGH, len(rows)):
            return median(quiet), True
        least_busy = sorted(rows, key=lambda row: row["other"] / max(row["wall"], 1e-3))[: (len(rows) + 1) // 2]
        return (median(row[what] for row in least_busy), False) if rows else None

    def step(self, series, peer, step, what="wall"):
        """One step's figure, or the sum over v02 and on for the step `later`."""
        if step != "later":
            return self.figure(self.ingest.get((series, peer, step), []), what)
        parts = [self.step(series, peer, s, what) for s in self.later(series, peer)]
        return (sum(v for v, _ in parts), all(q for _, q in parts)) if parts else None

    def later(self, series, peer):
        return sorted(s for (a, p, s) in self.ingest if (a, p) == (series, peer) and s.startswith("v"))

    def stored(self, series, peer, last=False):
        """Bytes stored after the first version, or after the last."""
        steps = self.later(series, peer)
        return self.step(series, peer, steps[-1] if last and steps else "first", "stored")

    def added(self, series, peer):
        """Bytes that the later versions added."""
        first, last = self.stored(series, peer), self.stored(series, peer, last=True)
        return (last[0] - first[0], True) if first and self.later(series, peer) else None

    def point(self, peer, size, connections, what):
        return self.figure(self.serve.get((peer, size, connections), []), what)

    def peak_rss(self, series):
        peaks = [row["rss"] for (s, p, _), found in self.ingest.items() if (s, p) == (series, "depot") for row in found]
        return (max(peaks), True) if peaks else None


SERVE_SECONDS = 4.0


def rows(path):
    if path.exists():
        for line in path.read_text().splitlines():
            yield line.split("\t")


def show(figure, unit=1.0, digits=2):
    if figure is None:
        return "-"
    return f"{figure[0] / unit:.{digits}f}" + ("" if figure[1] else "~")


def table(head, lines):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


def ingest_tables(m):
    for series in (REAL, PACKED, SMALL, BIG):
        peers = list(dict.fromkeys(p for (s, p, _) in m.ingest if s == series))
        if not peers:
            continue
        lines = []
        for peer in peers:
            line = [peer + (" **broken**" if (series, peer) in m.broken else "")]
            for step in ("first", "later", "again", "reread", "restore"):
                wall = m.step(series, peer, step)
                line.append(show(wall, digits=3 if step == "again" else 2))
                line.append(show(m.step(series, peer, step, "cpu")))
            peak = max(row["rss"] for (s, p, _), found in m.ingest.items() if (s, p) == (series, peer) for row in found)
            n_rounds = len(m.ingest[series, peer, "first"])
            lines.append(line + [f"{peak:.0f}", show(m.stored(series, peer), 1e6, 1), show(m.stored(series, peer, last=True), 1e6, 1), str(n_rounds)])
        some = peers[0]
        sizes = [m.step(series, some, s, "source")[0] / 1e6 for s in ["first", *m.later(series, some)]]
        print(f"### {series}: " + " + ".join(f"{size:.0f}" for size in sizes) + " MB\n")
        table(["", "first s", "cpu", "later s", "cpu", "again s", "cpu", "read all s", "cpu", "restore s", "cpu",
               "peak MiB", "stored v01 MB", "stored all MB", "rounds"], lines)


def serve_table(m):
    if not m.serve:
        return
    print("### serving\n")
    lines = []
    for size, connections in sorted({(s, c) for (_, s, c) in m.serve}):
        for peer in dict.fromkeys(p for (p, s, c) in m.serve if (s, c) == (size, connections)):
            get = lambda what: m.point(peer, size, connections, what)
            lines.append([SIZES.get(size, str(size)), str(connections), peer, show(get("req_s"), digits=0), show(get("mb_s"), digits=0),
                          show(get("p50"), digits=0), show(get("p99"), digits=0), show(get("cpu_gb"), digits=3), show(get("cpu_req"), digits=1),
                          show(get("rss"), digits=0), f"{sum(row['errors'] for row in m.serve[peer, size, connections]):.0f}"])
    table(["object", "connections", "", "req/s", "MB/s", "p50 us", "p99 us", "cpu s/GB", "cpu us/req", "peak MiB", "errors"], lines)


def goals(m):
    """Yields (goal, (series, peer) that must not be broken, our figure, theirs, limit, unit).

    The limit holds for ours over theirs, or for ours alone where there is no peer; -1 asks for at least theirs.
    """

    def cost(title, series, step, peer, limit, their_step=None):
        return title, (series, "depot"), m.step(series, "depot", step), m.step(series, peer, their_step or step), limit, "s"

    for step, title in (("first", "first ingest"), ("later", "v02 and on")):
        for peer, limit in (("restic", 1 / 3), ("bupstash", 0.55), ("tarzstd", 0.75)):
            yield cost(f"{REAL}, {title} <= {limit:.2f} {peer}", REAL, step, peer, limit)
    others = {p: m.stored(REAL, p, last=True) for p in ("restic", "borg", "casync", "bupstash")}
    have = {p: v for p, v in others.items() if v}
    best = min(have, key=lambda p: have[p][0]) if have else None
    missing = "" if len(have) == 4 else f" (without {', '.join(sorted(set(others) - set(have)))})"
    yield f"{REAL}, stored v01 to v04 <= the best store, {best}{missing}", (REAL, "depot"), m.stored(REAL, "depot", last=True), have.get(best), 1.0, "bytes"
    yield cost(f"{REAL}, unchanged again <= bupstash", REAL, "again", "bupstash", 1.0)
    yield cost(f"{REAL}, reading all bytes again <= 1.3 b3sum", REAL, "reread", "b3sum", 1.3, their_step="again")
    yield cost(f"{REAL}, restore <= bupstash / 1.2", REAL, "restore", "bupstash", 1 / 1.2)
    yield cost(f"{PACKED}, first ingest <= 0.50 bupstash", PACKED, "first", "bupstash", 0.5)
    yield cost("big, first ingest at >= 0.8 the speed of cp and fsync", BIG, "first", "cp", 1 / 0.8)
    for step, title in (("first", "first ingest"), ("again", "unchanged again"), ("restore", "restore")):
        yield cost(f"small, {title} <= bupstash", SMALL, step, "bupstash", 1.0)
    yield "small, stored v01 <= casync", (SMALL, "depot"), m.stored(SMALL, "depot"), m.stored(SMALL, "casync"), 1.0, "bytes"
    yield "small, v02 adds <= restic", (SMALL, "depot"), m.added(SMALL, "depot"), m.added(SMALL, "restic"), 1.0, "bytes"

    points = sorted({(s, c) for (_, s, c) in m.serve}) or [(s, c) for s in SIZES for c in (1, 64)]
    for size, connections in points:
        at = f"GET {SIZES.get(size, size)}, {connections} connections"

        def both(what):
            return ("serve", "depot"), m.point("depot", size, connections, what), m.point("nginx", size, connections, what)

        rate = "req_s" if size < 1 << 20 else "mb_s"
        yield f"{at}: {'req/s' if rate == 'req_s' else 'MB/s'} >= nginx", *both(rate), -1.0, ""
        if size < 256 << 20:  # too few of the largest finish for a percentile to mean anything
            yield f"{at}: p99 <= nginx", *both("p99"), 1.0, "us"
        yield f"{at}: server CPU per GB <= 1.5 nginx", *both("cpu_gb"), 1.5, "s"

    failures = [row["errors"] for (peer, _, _), found in m.serve.items() if peer == "depot" for row in found]
    yield "GET: errors", ("serve", "depot"), (sum(failures), True) if failures else None, None, 0, "errors"

    def bound(title, figure, limit, unit):
        return title, ("", "depot"), figure, None, limit, unit

    def recorded(name):
        return (m.bounds[name], True) if name in m.bounds else None

    yield bound("cold open with 1M contents < 1 s", recorded("cold_open_s"), 1.0, "s")
    yield bound("cold open after kill -9 < 1 s", recorded("cold_open_after_kill_s"), 1.0, "s")
    rebuilt, read = recorded("rebuild_index_s"), recorded("pack_tails_read_s")
    yield "rebuild-index of 1M contents at >= 0.8 the speed of reading the packs' tails", ("", "depot"), rebuilt, read, 1 / 0.8, "s"
    yield bound("peak RSS, ingest of one 4 GiB file < 512 MiB", recorded("rss_4gib_file_mib"), 512.0, "MiB")
    yield bound("peak RSS, 100k files < 512 MiB", m.peak_rss(SMALL), 512.0, "MiB")
    served = [row["rss"] for (peer, _, _), found in m.serve.items() if peer == "depot" for row in found]
    yield bound("peak RSS, serving < 512 MiB", (max(served), True) if served else None, 512.0, "MiB")


def shown(figure, unit):
    """A figure of the goals' table, with its unit."""
    if figure is None:
        return "-"
    if unit == "bytes":
        return show(figure, 1e6, 1) + " MB"
    return show(figure, digits=3 if unit == "s" else 0) + (f" {unit}" if unit in ("s", "us", "MiB") else "")


def goal_table(m):
    lines, passed, failed = [], 0, 0
    for title, who, ours, theirs, limit, unit in goals(m):
        bound = unit in ("MiB", "errors") or theirs is None and who[0] == ""
        if ours is None or (theirs is None and not bound):
            lines.append([title, shown(ours, unit), shown(theirs, unit), "-", "not measured"])
            continue
        if bound:
            ratio, ok, near = ours[0], ours[0] <= limit, False
        elif limit < 0:  # more is better
            ratio = ours[0] / max(theirs[0], 1e-9)
            ok, near = ratio >= -limit, ratio >= -limit * 0.95
        else:
            ratio = ours[0] / max(theirs[0], 1e-9)
            ok, near = ratio <= limit, ratio <= limit * 1.05
        verdict = "PASS" if ok else "**FAIL**" + (" (within 5 %)" if near else "")
        if who in m.broken:
            verdict, ok = "**FAIL**: exit code or bytes wrong", False
        passed, failed = passed + ok, failed + (not ok)
        lines.append([title, shown(ours, unit), shown(theirs, unit), "-" if bound else f"{ratio:.3f}", verdict])
    print("### goals\n")
    table(["goal", "depot", "peer", "ratio", "verdict"], lines)
    print(f"{passed} goals passed, {failed} failed, {len(lines) - passed - failed} not measured. ~ marks a figure taken while the machine had other work.\n")


def main(*folders):
    m = Measured(folders)
    ingest_tables(m)
    serve_table(m)
    goal_table(m)


if __name__ == "__main__":
    main(*sys.argv[1:])
