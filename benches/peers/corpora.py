#!/usr/bin/env python3
"""corpora.py DIR [real] [small] [big] [objects]: builds what the benches read. Run again, it adds what is missing.

real     ten software payloads in four successive versions, as their registries ship them (packed/vNN) and
         unpacked (unpacked/vNN); vNN is the NN-th of a payload's own series. Registries drop old versions,
         so the trees may differ a little between machines: compare figures of one run only.
small    100 000 files of 1 to 8 KiB, half like text and half random; in v02 1 % are edited,
         0.5 % removed and 0.5 % new.
big      one random file (BIG_MIB, default 1024); v02 is not made: no goal reads it.
objects  what the servers hand out, from 1 KiB to 256 MiB.

The made-up ones are the same bytes at every run.
"""
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSIONS = 4

NPM = {
    "esbuild": ("@esbuild/linux-x64", "0.25.10 0.25.11 0.25.12 0.26.0"),
    "swc": ("@swc/core-linux-x64-gnu", "1.15.46 1.15.47 1.16.0 1.16.1"),
    "typescript": ("typescript", "5.5.4 5.6.2 5.6.3 5.7.2"),
    "next-swc": ("@next/swc-linux-x64-gnu", "16.4.1 16.4.2 16.4.3 16.4.4"),
}
PYPI = {"numpy": "2.3.1 2.3.2 2.3.3 2.3.4", "scipy": "1.15.2 1.15.3 1.16.0 1.16.1"}
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64")
# All versions that apt still knows, oldest first; the kernel's versions are packages of their own.
DEBIAN = ("firefox-esr", "chromium", "libreoffice-core")
KERNELS = [f"linux-image-6.1.0-{abi}-amd64" for abi in range(51, 57)]

WORDS = (
    b"content library package distribution point manifest source version update client policy "
    b"deployment boundary group replicate schedule state install detect compliance catalog signature"
).split()


def output(*command):
    """What a command prints; "" where it fails or is missing."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    except FileNotFoundError:
        return ""


def unpack(archive, dest):
    if archive.suffix == ".tgz":
        subprocess.run(["tar", "-xzf", archive, "-C", dest, "--strip-components=1", "--no-same-owner"], check=True)
    elif archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(dest)
    else:
        subprocess.run(["dpkg-deb", "-x", archive, dest], check=True)


def add(root, nn, name, download):
    """Puts one payload in both trees. `download` fetches it into the working folder; False if there is none."""
    unpacked = root / "unpacked" / f"v{nn:02}" / name
    if unpacked.is_dir():
        return True
    with tempfile.TemporaryDirectory(dir=root) as here:
        os.chmod(here, 0o777)  # apt downloads as a user of its own
        try:
            subprocess.run(download, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            pass  # the program is missing: nothing was got
        got = [p for p in Path(here).iterdir() if p.suffix in (".tgz", ".whl", ".deb")]
        if not got:
            print(f"not to be had: {name} {download[-1]}", file=sys.stderr)
            return False
        part = Path(here) / "unpacked"
        part.mkdir()
        unpack(got[0], part)
        packed = root / "packed" / f"v{nn:02}" / (name + got[0].suffix)
        packed.parent.mkdir(parents=True, exist_ok=True)
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(got[0], packed)
        part.chmod(0o755)
        shutil.move(part, unpacked)
    print(f"real v{nn:02} {name} {download[-1]}", flush=True)
    return True


def real(root):
    root.mkdir(parents=True, exist_ok=True)
    for name, (package, versions) in NPM.items():
        for nn, version in enumerate(versions.split(), 1):
            add(root, nn, name, ["npm", "pack", "--silent", f"{package}@{version}"])
    platforms = [f"--platform={p}" for p in PLATFORMS]
    for name, versions in PYPI.items():
        for nn, version in enumerate(versions.split(), 1):
            add(root, nn, name, [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
                                 "--python-version=312", "--implementation=cp", *platforms, f"{name}=={version}"])
    series = {"linux-image": KERNELS}
    for name in DEBIAN:
        known = {line.split("|")[1].strip() for line in output("apt-cache", "madison", name).splitlines() if "|" in line}
        ordered = output("bash", "-c", 'printf "%s\n" "$@" | sort -V', "_", *known).split()
        series[name] = [f"{name}={version}" for version in ordered]
    for name, specs in series.items():
        nn = 1
        for spec in specs:
            if nn <= VERSIONS and add(root, nn, name, ["apt-get", "download", spec]):
                nn += 1


def small_file(rng):
    """Draws a length, then the bytes of one small file."""
    length = rng.randint(1024, 8192)
    if rng.random() < 0.5:
        return rng.randbytes(length)
    text = b" ".join(rng.choices(WORDS, k=length // 6 + 2))
    # The number keeps two texts from being alike; the tail is the text once more.
    return (text + b"\n" + str(rng.getrandbits(64)).encode() + text)[:length]


def small(root, files=100_000):
    rng = random.Random(5001)
    old, new = root / "v01", root / "v02.part"
    for n in range(files):
        if n % 256 == 0:
            folder = f"{n // 256 // 64:02x}/{n // 256 % 64:02x}"
            os.makedirs(old / folder, exist_ok=True)
            os.makedirs(new / folder, exist_ok=True)
        name = f"{folder}/f{n:06x}"
        data = small_file(rng)
        (old / name).write_bytes(data)
        fate = rng.random()
        if fate < 0.005:
            (new / (name + ".new")).write_bytes(small_file(rng))
            continue
        if fate < 0.015:
            at = rng.randrange(len(data) - 64)
            data = data[:at] + rng.randbytes(64) + data[at + 48:]
        (new / name).write_bytes(data)
    new.rename(root / "v02")


def big(root):
    random_file(root / "v01" / "blob", random.Random(5001), int(os.environ.get("BIG_MIB", 1024)) << 20)


def objects(root):
    rng = random.Random(9001)
    part = root.with_suffix(".part")
    for size, count in ((1 << 10, 10_000), (16 << 10, 10_000), (1 << 20, 64), (256 << 20, 2)):
        for n in range(count):
            random_file(part / f"obj-{size}-{n:05}", rng, size)
    part.rename(root)


def random_file(path, rng, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(rng.randbytes(min(1 << 20, size - at)))
    part.rename(path)


def main(where, *wanted):
    where = Path(where)
    where.mkdir(parents=True, exist_ok=True)
    wanted = wanted or ("real", "small", "big", "objects")
    if "real" in wanted:
        real(where / "real")
    for name, make, proof in (("small", small, "small/v02"), ("big", big, "big/v01/blob"), ("objects", objects, "objects")):
        if name in wanted and not (where / proof).exists():
            make(where / name)
            print(f"{name}: made", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
