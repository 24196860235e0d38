#!/usr/bin/env python3
"""A container image of ward FROM scratch, without a container engine: make_container.py [BUILD] [--out FILE | --root DIR]

Writes BUILD/ward-container.tar: an OCI image layout that is a docker archive, too, so that `docker load`, `podman load`,
skopeo and umoci take it. In it are ward, the libraries that it runs with, their licences, and no shell. The same program
and libraries give the same digest; the time in it is SOURCE_DATE_EPOCH, or that of the last commit. --root writes the
files to a folder instead, for the Containerfile. Needs Python's standard library, ldd and strip; docs/container.md.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USER = 65532  # "nonroot", as other images without a distribution have it
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LIMIT = 25_000_000
# What NVIDIA's driver names beside libc and libm. They have been part of libc since glibc 2.34, and are empty.
FOR_THE_DRIVER = ("libdl.so.2", "libpthread.so.0", "librt.so.1")


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def time_of_making():
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    try:
        return int(subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct"], check=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return 0


def version():
    with open(os.path.join(ROOT, "include", "ward.h"), encoding="utf-8") as file:
        return re.search(r'WARD_VERSION "(.*)"', file.read()).group(1)


# ---- what is in it --------------------------------------------------------------------------------------------------

class Tree:
    """Files, links and folders by their path in the image."""

    def __init__(self):
        self.entries = {}

    def folder(self, path, mode=0o755, owner=0):
        if path and path not in self.entries:
            self.folder(os.path.dirname(path))
            self.entries[path] = ("folder", mode, owner, None)

    def file(self, path, content, mode=0o644):
        self.folder(os.path.dirname(path))
        self.entries[path] = ("file", mode, 0, content)

    def link(self, path, target):
        self.folder(os.path.dirname(path))
        self.entries[path] = ("link", 0o777, 0, target)

    def tar(self, seconds):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted(self.entries):
                kind, mode, owner, content = self.entries[path]
                member = tarfile.TarInfo(path)
                member.mode, member.uid, member.gid, member.mtime = mode, owner, owner, seconds
                if kind == "folder":
                    member.type = tarfile.DIRTYPE
                elif kind == "link":
                    member.type, member.linkname = tarfile.SYMTYPE, content
                else:
                    member.size = len(content)
                tar.addfile(member, io.BytesIO(content) if kind == "file" else None)
        return out.getvalue()

    def write(self, folder):
        for path in sorted(self.entries):
            kind, mode, _, content = self.entries[path]
            place = os.path.join(folder, path)
            if kind == "folder":
                os.makedirs(place, exist_ok=True)
                os.chmod(place, mode)
            elif kind == "link":
                os.symlink(content, place)
            else:
                with open(place, "wb") as file:
                    file.write(content)
                os.chmod(place, mode)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def stripped(program):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "ward")
        run(os.environ.get("STRIP", "strip"), "-o", out, program)
        return read(out)


def libraries(program):
    """(name, path) of the loader and of each library as the loader finds it."""
    found = []
    for line in run("ldd", program).splitlines():
        match = re.match(r"\s*(\S+)(?: => (\S+))? \(0x", line)
        if match and "vdso" not in match[1]:
            found.append((os.path.basename(match[1]), match[2] or match[1]))
        elif "not found" in line:
            sys.exit(f"make_container: {program}: {line.strip()}")
    return sorted(found)


def with_the_drivers(found):
    """The same, and beside libc what NVIDIA's driver needs when a container's runtime brings it in."""
    folder = os.path.dirname(dict(found)["libc.so.6"])
    more = [(name, os.path.join(folder, name)) for name in FOR_THE_DRIVER]
    return sorted({**dict(one for one in more if os.path.exists(one[1])), **dict(found)}.items())


def copyright_of(path):
    """(package, its copyright file), as far as the distribution tells."""
    for name in (os.path.realpath(path), path):
        for tried in (name, name.removeprefix("/usr")):
            done = subprocess.run(["dpkg", "-S", tried], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            package = done.stdout.split(":")[0] if done.returncode == 0 else None
            place = f"/usr/share/doc/{package}/copyright"
            if package and os.path.exists(place):
                return package, read(place)
    return None


def make_tree(build):
    program = os.path.join(build, "ward")
    tree = Tree()
    tree.link("lib", "usr/lib")
    tree.link("lib64", "usr/lib64")
    tree.file("usr/bin/ward", stripped(program), 0o755)
    triplet = run(os.environ.get("CC", "gcc"), "-print-multiarch").strip() or f"{os.uname().machine}-linux-gnu"
    for name, path in with_the_drivers(libraries(program)):
        tree.file(f"usr/lib/{triplet}/{name}", read(path), 0o755)
        if name.startswith("ld-linux"): # where the program names it
            tree.link(os.path.join("usr", path.lstrip("/").removeprefix("usr/")), f"../lib/{triplet}/{name}")
        known = copyright_of(path) if shutil.which("dpkg") else None
        if known:
            tree.file(f"usr/share/doc/{known[0]}/copyright", known[1])
    tree.folder("usr/lib64")
    tree.file("usr/share/doc/ward/LICENSE", read(os.path.join(ROOT, "LICENSE")))
    tree.file("etc/passwd", f"root:x:0:0:root:/:/nonexistent\nward:x:{USER}:{USER}:ward:/data:/nonexistent\n".encode())
    tree.file("etc/debian_version", b"scratch\n") # NVIDIA's runtime puts the driver into lib64, unless it sees this
    tree.file("etc/group", f"root:x:0:\nward:x:{USER}:\n".encode())
    for name in ("dev", "proc", "sys", "models"): # the first three for runtimes that cannot make them
        tree.folder(name)
    tree.folder("data", 0o755, USER)
    tree.folder("tmp", 0o1777)
    return tree


# ---- the image ------------------------------------------------------------------------------------------------------

def digest(content):
    return hashlib.sha256(content).hexdigest()


def as_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def make_image(tree, seconds):
    """(the blobs by digest, the manifest's digest, the archive)"""
    import datetime # pylint: disable=import-outside-toplevel
    created = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {
        "org.opencontainers.image.title": "ward",
        "org.opencontainers.image.description": "MedGemma on one machine, offline. Not a medical device.",
        "org.opencontainers.image.version": version(),
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.created": created,
    }
    layer = tree.tar(seconds)
    config = as_json({
        "architecture": ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "created": created,
        "config": {
            "User": f"{USER}:{USER}",
            "Entrypoint": ["/usr/bin/ward"],
            "Cmd": ["--help"],
            "WorkingDir": "/data",
            # read by NVIDIA's runtime alone: a card's driver for computing, and its meters
            "Env": ["PATH=/usr/bin", "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"],
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}"]},
        "history": [{"created": created, "created_by": "tools/make_container.py"}],
    })

    def descriptor(kind, content, **more):
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest(content)}", "size": len(content),
                **more}

    manifest = as_json({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config),
        "layers": [descriptor("layer.v1.tar", layer)],
        "annotations": labels,
    })
    blob = lambda content: f"blobs/sha256/{digest(content)}"
    files = {
        "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": as_json({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor("manifest.v1+json", manifest,
                                     annotations={"org.opencontainers.image.ref.name": version()})],
        }),
        "manifest.json": as_json([{ # what docker load looks for
            "Config": blob(config), "RepoTags": [f"ward:{version()}", "ward:latest"], "Layers": [blob(layer)],
        }]),
        **{blob(content): content for content in (layer, config, manifest)},
    }
    archive = Tree()
    for name, content in files.items():
        archive.file(name, content)
    return digest(manifest), len(layer), archive.tar(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("build", nargs="?", default="build", help="the build folder")
    parser.add_argument("--out", help="the archive (BUILD/ward-container.tar)")
    parser.add_argument("--root", help="write the image's files to this folder instead")
    options = parser.parse_args()
    tree = make_tree(options.build)
    if options.root:
        tree.write(options.root)
        return
    name, size, archive = make_image(tree, time_of_making())
    if size > LIMIT:
        sys.exit(f"make_container: the image has {size} bytes; at most {LIMIT} are expected")
    out = options.out or os.path.join(options.build, "ward-container.tar")
    with open(out + ".part", "wb") as file:
        file.write(archive)
    os.replace(out + ".part", out)
    print(f"{out}: ward:{version()}, sha256:{name}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
