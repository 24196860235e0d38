#!/usr/bin/env python3
"""The container image: check_container.py BUILD. Prints TAP. Needs no container engine; runs the image under bubblewrap and
under runc where they are there, each in a network namespace of its own and with a root that nothing can write to."""

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(sys.argv[1])
WARD = os.path.join(BUILD, "ward")
MODEL = os.path.join(ROOT, "models", "phantom")
FILMS = os.path.join(ROOT, "examples")
FILM = os.path.basename(sorted(glob.glob(os.path.join(FILMS, "*.png")))[0])
QUESTION = "Describe this X-ray."
COMMAND = ["run", "-m", "/models", "-i", f"/data/{FILM}", QUESTION]
LIMIT = 25_000_000
CAPABILITIES = ("bounding", "effective", "inheritable", "permitted", "ambient")


def make(out, **more):
    return subprocess.run([os.path.join(ROOT, "tools", "make_container.py"), BUILD, "--out", out], check=True,
                          stdout=subprocess.PIPE, text=True, **more).stdout


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def expected_report():
    return subprocess.run([WARD, "run", "-m", MODEL, "-i", os.path.join(FILMS, FILM), QUESTION], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


class Image:
    """The archive, read as an engine reads it."""

    def __init__(self, path):
        with tarfile.open(path) as tar:
            self.files = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}
        self.blob = lambda digest: self.files["blobs/" + digest.replace(":", "/")]
        self.index = json.loads(self.files["index.json"])
        self.digest = self.index["manifests"][0]["digest"]
        self.manifest = json.loads(self.blob(self.digest))
        self.config = json.loads(self.blob(self.manifest["config"]["digest"]))
        self.layer = self.blob(self.manifest["layers"][0]["digest"])


def the_same_twice(place):
    """Two builds, the second from another folder and under another umask."""
    first, second = os.path.join(place, "1.tar"), os.path.join(place, "2.tar")
    make(first)
    make(second, cwd=place, preexec_fn=lambda: os.umask(0o077), env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C"})
    one, two = (open(path, "rb").read() for path in (first, second))
    assert one == two, f"{sha256(one)} and {sha256(two)}"
    other = os.path.join(place, "3.tar")
    make(other, env={**os.environ, "SOURCE_DATE_EPOCH": "1"})
    assert Image(other).digest != Image(first).digest
    print(f"# {Image(first).digest}")


def sound(place):
    """Every digest and size is that of its bytes, as an OCI layout and as docker load has it."""
    image = Image(os.path.join(place, "1.tar"))
    assert json.loads(image.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for descriptor in (*image.index["manifests"], image.manifest["config"], *image.manifest["layers"]):
        content = image.blob(descriptor["digest"])
        assert (sha256(content), len(content)) == (descriptor["digest"], descriptor["size"]), descriptor
    docker, = json.loads(image.files["manifest.json"])
    assert sha256(image.files[docker["Config"]]) == image.manifest["config"]["digest"]
    assert [sha256(image.files[name]) for name in docker["Layers"]] == image.config["rootfs"]["diff_ids"]
    assert docker["RepoTags"][0].startswith("ward:")


def small_and_bare(place):
    """No shell, no root, nothing that others may write to but /tmp; licences are there."""
    image = Image(os.path.join(place, "1.tar"))
    print(f"# {len(image.layer)} bytes")
    assert len(image.layer) <= LIMIT, f"{len(image.layer)} bytes"
    assert image.config["config"]["User"] not in ("", "0", "root", "0:0")
    assert image.config["config"]["Entrypoint"] == ["/usr/bin/ward"]
    with open(os.path.join(place, "layer.tar"), "wb") as file:
        file.write(image.layer)
    with tarfile.open(os.path.join(place, "layer.tar")) as tar:
        members = {member.name: member for member in tar}
    programs = [name for name in members if "/bin/" in name or "/sbin/" in name]
    assert programs == ["usr/bin/ward"], programs
    for name, member in members.items():
        assert not member.mode & 0o6000, f"{name} runs as another user"
        assert not member.mode & 0o022 or member.issym() or name == "tmp", f"others may write to {name}"
        assert not name.startswith("/") and ".." not in name.split("/"), name
    assert "usr/share/doc/ward/LICENSE" in members
    assert "etc/debian_version" in members, "NVIDIA's runtime would put the driver where no loader looks"


def unpacked(place):
    root = os.path.join(place, "rootfs")
    if not os.path.exists(root):
        with tarfile.open(os.path.join(place, "layer.tar")) as tar:
            tar.extractall(root)
    return root


def run(command, **more):
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, **more)


def bubblewrap(root, *command):
    return ["bwrap", "--unshare-all", "--cap-drop", "ALL", "--clearenv", "--uid", "65532", "--gid", "65532",
            "--ro-bind", root, "/", "--ro-bind", MODEL, "/models", "--ro-bind", FILMS, "/data",
            "--proc", "/proc", "--dev", "/dev", "/usr/bin/ward", *command]


def why_not_bubblewrap():
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed"
    done = run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"])
    return None if done.returncode == 0 else "namespaces are not permitted here"


def runs_under_bubblewrap(place):
    done = run(bubblewrap(unpacked(place), *COMMAND))
    assert (done.returncode, done.stdout) == (0, expected_report()), done


def is_locked_under_bubblewrap(place):
    """The lock holds inside as outside, and no home means that nothing is remembered."""
    done = run(bubblewrap(unpacked(place), *COMMAND[:-1], "--json", QUESTION))
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["offline"]["seccomp"] is True, done.stdout


def why_not_driver():
    if not os.path.exists(f"{BUILD}/cuda/kernels.fatbin"):
        return "this build has no kernels for NVIDIA cards"
    return why_not_bubblewrap()


def takes_a_driver(place):
    """A driver's library in the folder where NVIDIA's runtime mounts it: the emulated one names the same libraries."""
    root = os.path.join(place, "with-driver")
    shutil.copytree(unpacked(place), root, symlinks=True)
    folder, = glob.glob(f"{root}/usr/lib/*-linux-gnu")
    driver = f"{BUILD}/tests/cuda/libcuda.so.1"
    shutil.copy(driver, folder)
    for line in run(["ldd", driver], text=True).stdout.splitlines(): # of the emulation alone
        if "libstdc++" in line or "libgcc_s" in line:
            shutil.copy(line.split()[2], folder)
    done = run(bubblewrap(root, *COMMAND[:-1], "--device", "cuda", "-n", "2", "--json", QUESTION))
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["device"] == "cuda", done.stdout


def why_not_runc():
    if not shutil.which("runc"):
        return "runc is not installed"
    return None if os.geteuid() == 0 else "runc without root needs a user namespace set up for it"


def runs_under_runc(place):
    """An OCI runtime, set up as docker run --network none --read-only --cap-drop ALL does."""
    bundle = os.path.join(place, "oci")
    os.makedirs(bundle)
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    path = os.path.join(bundle, "config.json")
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    spec["root"] = {"path": unpacked(place), "readonly": True}
    spec["process"].update({"terminal": False, "args": ["/usr/bin/ward", *COMMAND], "user": {"uid": 65532, "gid": 65532},
                            "noNewPrivileges": True, "capabilities": {name: [] for name in CAPABILITIES}})
    spec["mounts"] += [{"destination": inside, "type": "bind", "source": outside, "options": ["rbind", "ro"]}
                       for inside, outside in (("/models", MODEL), ("/data", FILMS))]
    assert {"type": "network"} in spec["linux"]["namespaces"], "a network namespace of its own, without interfaces"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(spec, file)
    done = run(["runc", "--root", os.path.join(place, "state"), "run", f"ward-test-{os.getpid()}"], cwd=bundle)
    assert (done.returncode, done.stdout) == (0, expected_report()), done


def main():
    tests = [
        ("two builds make the same digest", the_same_twice, None),
        ("every digest and size is right", sound, None),
        ("at most 25 MB, no shell, no root, licences inside", small_and_bare, None),
        ("it reports under bubblewrap without a network", runs_under_bubblewrap, why_not_bubblewrap),
        ("it is locked there, too", is_locked_under_bubblewrap, why_not_bubblewrap),
        ("NVIDIA's driver works in it", takes_a_driver, why_not_driver),
        ("it reports under runc without a network", runs_under_runc, why_not_runc),
    ]
    missing = [program for program in ("ldd", "strip") if not shutil.which(program)]
    if missing:
        print(f"1..0 # SKIP {', '.join(missing)} not installed")
        return 0
    failures = 0
    print(f"1..{len(tests)}")
    with tempfile.TemporaryDirectory() as place:
        for number, (name, test, why_not) in enumerate(tests, 1):
            reason = why_not() if why_not else None
            if reason:
                print(f"ok {number} - {name} # SKIP {reason}", flush=True)
                continue
            try:
                test(place)
                print(f"ok {number} - {name}", flush=True)
            except Exception as problem: # every failure is reported, and the next test runs
                failures += 1
                print(f"not ok {number} - {name}\n# {problem!r}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
