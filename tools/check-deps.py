#!/usr/bin/env python3
"""Keeps the workspace's crates in the order the design gives them.

Two rules, checked for normal, build and dev-dependencies alike:
* a crate depends only on those of our crates that ALLOWED lists for it, all of them below it;
* versions stand once, in the workspace's root: a crate writes `name.workspace = true`.

A new entry in ALLOWED is a change of design: propose it alone, with its reason.
"""

import json
import pathlib
import subprocess
import sys
import tomllib

# From the bottom up; a crate may only name crates from rows above its own.
ALLOWED = {
    "contentlib": [],
    "sitedb": [],
    # A file format, which knows neither library nor database.
    "backup": [],
    "packager": ["contentlib"],
    "dp": ["contentlib", "sitedb", "packager"],
    "sync": ["sitedb"],
    "compliance": ["sitedb", "sync"],
    "deployment": ["sitedb", "sync", "compliance"],
    # The agent reaches a distribution point over HTTP only, and keeps no site database.
    "client": ["contentlib", "packager", "sync", "compliance", "deployment"],
    "api": [
        "contentlib", "sitedb", "packager", "dp", "sync", "compliance", "deployment", "client",
        "backup",
    ],
    "depot": [
        "contentlib", "sitedb", "packager", "dp", "sync", "compliance", "deployment", "client",
        "backup", "api",
    ],
}

SECTIONS = ("dependencies", "dev-dependencies", "build-dependencies")


def workspace_packages():
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit("check-deps: cargo metadata failed")
    return json.loads(done.stdout)["packages"]


def table_faults():
    """A table that allows a crate to name one above it would prove nothing."""
    order = list(ALLOWED)
    for crate, allowed in ALLOWED.items():
        for dependency in allowed:
            if dependency not in order[: order.index(crate)]:
                yield f"the table in tools/check-deps.py lists {dependency} for {crate}, but it is not below it"


def order_faults(packages):
    ours = {package["name"] for package in packages}
    for package in packages:
        crate = package["name"]
        if crate not in ALLOWED:
            yield f"{crate} has no row in tools/check-deps.py: say there what it may depend on"
            continue
        for dependency in package["dependencies"]:
            name = dependency["name"]
            if name in ours and name not in ALLOWED[crate]:
                kind = f"{dependency['kind']}-" if dependency["kind"] else ""
                may = ", ".join(ALLOWED[crate]) or "none of our crates"
                yield f"{crate} has the {kind}dependency {name}, but may depend on: {may}"


def dependency_tables(manifest):
    """Each table of dependencies in a manifest, under its name, those of single targets too."""
    for section in SECTIONS:
        yield section, manifest.get(section, {})
    for target, tables in manifest.get("target", {}).items():
        for section in SECTIONS:
            yield f"target.{target}.{section}", tables.get(section, {})


def version_faults(packages):
    for package in packages:
        manifest = tomllib.loads(pathlib.Path(package["manifest_path"]).read_text())
        for section, table in dependency_tables(manifest):
            for name, value in table.items():
                if not (isinstance(value, dict) and value.get("workspace") is True):
                    yield (
                        f"{package['name']}: [{section}] {name} does not say `workspace = true`; "
                        "its version belongs in [workspace.dependencies]"
                    )


def main():
    packages = workspace_packages()
    faults = [*table_faults(), *order_faults(packages), *version_faults(packages)]
    for fault in faults:
        print(f"check-deps: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
