#!/usr/bin/env python3
"""ward bundle as a user has it: test_bundle.py WARD [--quick]. Prints TAP; needs Python's standard library, and where they
are there minisign, debootstrap and root."""
import base64
import glob
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

from harness import (MODELS, PHANTOM, ROOT, WARD, Skip, equal, misused, refused, run, run_tests, scratch, succeeds, temporary,
                     test)

QUICK = "--quick" in sys.argv
MODEL = os.path.join(MODELS, "hybrid")
QUESTION = "Describe this X-ray."
KEY, PUB, FOLDER, TAR = (os.path.join(scratch, name) for name in ("k.key", "k.pub", "bundle", "bundle.tar"))


def prepare():
    succeeds("bundle", "keygen", "--out", os.path.join(scratch, "k"), "-W")
    succeeds("bundle", "create", FOLDER, "--model", MODEL, "--key", KEY)
    succeeds("bundle", "create", TAR, "--model", MODEL, "--key", KEY)


def folder():
    return tempfile.mkdtemp(dir=scratch)


def copy_of_bundle():
    """A copy whose large files are links to the same bytes: who damages one replaces it."""
    place = os.path.join(folder(), "b")
    shutil.copytree(FOLDER, place, copy_function=os.link)
    return place


def replace(path, content):
    mode = os.stat(path).st_mode if os.path.exists(path) else 0o644
    if os.path.exists(path):
        os.remove(path)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def verify(bundle, key=PUB):
    return succeeds("bundle", "verify", bundle, "--key", key)


def sign(place):
    """Signs the list of a folder anew, as an owner of the key who makes a bundle by hand."""
    os.remove(os.path.join(place, "SHA256SUMS.minisig"))
    subprocess.run(["minisign", "-S", "-s", KEY, "-m", os.path.join(place, "SHA256SUMS")], input=b"\n", check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


def need(program):
    if not shutil.which(program):
        raise Skip(f"{program} is not installed")


# ---- keys and signatures --------------------------------------------------------------------------------------------

@test
def keys_are_made_once():
    place = os.path.join(folder(), "key")
    said = succeeds("bundle", "keygen", "--out", place, "-W")
    equal(said, read(place + ".pub").decode(), "what was printed")
    equal(os.stat(place + ".key").st_mode & 0o777, 0o600, "mode of the secret key")
    before = read(place + ".key")
    refused("bundle", "keygen", "--out", place, "-W", words="exists")
    os.remove(place + ".pub")
    refused("bundle", "keygen", "--out", place, "-W", words="exists")
    equal(read(place + ".key"), before, "the key that was there")
    refused("bundle", "keygen", "--out", os.path.join(place, "no", "where"), "-W", words="no/where")


@test
def a_passphrase_opens_the_key():
    place = os.path.join(folder(), "key")
    no_terminal = {"start_new_session": True}
    succeeds("bundle", "keygen", "--out", place, stdin=b"correct horse\ncorrect horse\n", **no_terminal)
    out = os.path.join(folder(), "b.tar")
    refused("bundle", "create", out, "--model", MODEL, "--key", place + ".key", stdin=b"wrong horse\n", words="passphrase",
            **no_terminal)
    succeeds("bundle", "create", out, "--model", MODEL, "--key", place + ".key", stdin=b"correct horse\n", **no_terminal)
    verify(out, place + ".pub")
    refused("bundle", "keygen", "--out", place + "2", stdin=b"one\nother\n", words="differ", **no_terminal)
    refused("bundle", "keygen", "--out", place + "2", stdin=b"\n\n", words="passphrase", **no_terminal)


@test
def the_libraries_come_with_their_licences():
    need("dpkg")
    wanted = {}
    linked = subprocess.run(["ldd", WARD], stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in os.listdir(os.path.join(FOLDER, "lib", "ward")):
        path = os.path.realpath(re.search(rf"{re.escape(name)} => (\S+)", linked).group(1))
        for tried in (path, path.removeprefix("/usr")):
            done = subprocess.run(["dpkg", "-S", tried], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            place = f"/usr/share/doc/{done.stdout.split(':')[0]}/copyright"
            if done.returncode == 0 and os.path.exists(place):
                wanted[done.stdout.split(":")[0] + ".txt"] = read(place)
    licences = os.path.join(FOLDER, "licenses")
    equal({name: read(os.path.join(licences, name)) for name in os.listdir(licences)} if wanted else {}, wanted, "licences")
    print(f"# the licences of {len(wanted)} packages")


@test
def minisign_reads_what_ward_signs():
    need("minisign")
    need("sha256sum")
    subprocess.run(["minisign", "-V", "-m", "SHA256SUMS", "-p", PUB], cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)
    line = read(PUB).decode().splitlines()[1]
    subprocess.run(["minisign", "-V", "-m", "SHA256SUMS", "-P", line], cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=FOLDER, check=True)
    file = temporary("text", b"text\n") # and the secret key
    subprocess.run(["minisign", "-S", "-s", KEY, "-m", file], input=b"\n", check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["minisign", "-V", "-m", file, "-p", PUB], check=True, stdout=subprocess.DEVNULL)


@test
def minisign_opens_the_key_with_its_passphrase():
    need("minisign")
    if QUICK:
        raise Skip("scrypt is slow under sanitizers")
    place, file = os.path.join(folder(), "key"), temporary("text", b"text\n")
    succeeds("bundle", "keygen", "--out", place, stdin=b"pass phrase\npass phrase\n", start_new_session=True)
    subprocess.run(["minisign", "-S", "-s", place + ".key", "-m", file], input=b"pass phrase\n", check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    subprocess.run(["minisign", "-V", "-m", file, "-p", place + ".pub"], check=True, stdout=subprocess.DEVNULL)


@test
def ward_reads_what_minisign_makes():
    need("minisign")
    place = folder()
    key, pub, out = (os.path.join(place, name) for name in ("m.key", "m.pub", "b.tar"))
    subprocess.run(["minisign", "-G", "-W", "-s", key, "-p", pub], check=True, stdout=subprocess.DEVNULL)
    succeeds("bundle", "create", out, "--model", MODEL, "--key", key)
    verify(out, pub)
    verify(out, read(pub).decode().splitlines()[1])
    bundle = copy_of_bundle()
    sign(bundle) # the list, signed by minisign itself
    verify(bundle)
    if not QUICK: # with scrypt
        subprocess.run(["minisign", "-G", "-f", "-s", key, "-p", pub], input=b"a b\na b\n", check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        succeeds("bundle", "create", out + "2.tar", "--model", MODEL, "--key", key, stdin=b"a b\n", start_new_session=True)
        verify(out + "2.tar", pub)


@test
def the_key_has_to_be_given_and_to_be_the_one():
    misused("bundle", "verify", FOLDER, words="--key")
    other = os.path.join(folder(), "other")
    succeeds("bundle", "keygen", "--out", other, "-W")
    for bundle in (FOLDER, TAR):
        refused("bundle", "verify", bundle, "--key", other + ".pub", words="was made with the key")
    # the same number, another key
    bytes_of = lambda path: base64.b64decode(read(path).split(b"\n")[1])
    forged = bytes_of(PUB)[:10] + bytes_of(other + ".pub")[10:]
    refused("bundle", "verify", FOLDER, "--key", base64.b64encode(forged).decode(), words="signature is not")
    for key in ("", "RWQ", "not base64!", KEY, os.path.join(ROOT, "LICENSE")):
        refused("bundle", "verify", FOLDER, "--key", key, words="public key" if key != os.path.join(ROOT, "LICENSE") else "")
    refused("bundle", "create", os.path.join(folder(), "b"), "--model", MODEL, "--key", PUB, words="secret key")


# ---- making ---------------------------------------------------------------------------------------------------------

@test
def a_bundle_holds_what_it_says():
    report = json.loads(succeeds("bundle", "verify", FOLDER, "--key", PUB, "--json"))
    equal(report["model_sha256"], succeeds("hash", MODEL).split()[0], "model's hash")
    equal(report["list_sha256"], hashlib.sha256(read(os.path.join(FOLDER, "SHA256SUMS"))).hexdigest(), "list's hash")
    for name in ("bin/ward", "install.sh", "LICENSE", "NOTICE.txt", "README.txt", "bundle.json", "models/config.json"):
        assert os.path.isfile(os.path.join(FOLDER, name)), f"there is no {name}"
    equal(read(os.path.join(FOLDER, "LICENSE")), read(os.path.join(ROOT, "LICENSE")), "LICENSE")
    for name in ("libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"):
        assert not os.path.exists(os.path.join(FOLDER, "lib", "ward", name)), f"{name} is the system's"
    assert os.access(os.path.join(FOLDER, "bin", "ward"), os.X_OK)
    with tarfile.open(TAR) as tar: # the same, as Python reads it
        names = sorted(member.name for member in tar)
        found = sorted(os.path.relpath(path, FOLDER) for path in glob.glob(f"{FOLDER}/**", recursive=True) if os.path.isfile(path))
        equal(names, ["ward-bundle/" + name for name in found], "names in the tar")
        assert all(member.isreg() and member.mode in (0o644, 0o755) and member.uid == 0 for member in tar)
        equal(tar.extractfile("ward-bundle/bin/ward").read(), read(WARD), "the program in the tar")


@test
def the_terms_travel():
    model = os.path.join(folder(), "model")
    shutil.copytree(MODEL, model)
    replace(os.path.join(model, "README.md"), b"---\nlicense: other\nlicense_name: health-ai-developer-foundations\n---\n")
    replace(os.path.join(model, "LICENSE.txt"), b"terms\n")
    out = os.path.join(folder(), "b")
    succeeds("bundle", "create", out, "--model", model, "--key", KEY)
    assert b"Health AI Developer Foundations Terms of Use" in read(os.path.join(out, "NOTICE.txt"))
    equal(read(os.path.join(out, "models", "LICENSE.txt")), b"terms\n", "licence")
    gguf = os.path.join(folder(), "m.gguf")
    succeeds("quantize", model, gguf, "--type", "int8")
    succeeds("bundle", "create", out + "2", "--model", gguf, "--key", KEY)
    equal(sorted(os.listdir(out + "2/models")), ["m.NOTICE.txt", "m.gguf", "mmproj-m.gguf"], "models of GGUF")
    assert b"Health AI" in read(os.path.join(out + "2", "NOTICE.txt"))
    report = json.loads(succeeds("bundle", "verify", out + "2", "--key", PUB, "--json"))
    equal(report["model_sha256"], succeeds("hash", gguf).split()[0], "hash of the GGUF model")
    equal(succeeds("hash", out + "2/models").split()[0], report["model_sha256"], "hash of the model in the bundle")


@test
def the_same_files_make_the_same_bundle():
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    outs = [os.path.join(folder(), "b.tar") for _ in range(2)]
    for out in outs:
        succeeds("bundle", "create", out, "--model", MODEL, "--key", KEY, "-t", "1" if out == outs[0] else "5", env=environment)
    assert read(outs[0]) == read(outs[1]), "two bundles differ"
    assert "2023-11-14T22:13:20Z" in verify(outs[0])
    refused("bundle", "create", outs[0] + "x.tar", "--model", MODEL, "--key", KEY, env={**environment, "SOURCE_DATE_EPOCH": "now"},
            words="SOURCE_DATE_EPOCH")


@test
def nothing_is_replaced_or_left():
    place = folder()
    kept = os.path.join(place, "kept.tar")
    replace(kept, b"kept")
    refused("bundle", "create", kept, "--model", MODEL, "--key", KEY, words="exists")
    refused("bundle", "create", place, "--model", MODEL, "--key", KEY, words="exists")
    refused("bundle", "create", os.path.join(place, "no", "b"), "--model", MODEL, "--key", KEY, words="No such file")
    refused("bundle", "create", os.path.join(place, "b"), "--model", os.path.join(place, "none"), "--key", KEY, words="none")
    for name in ("b", "b.tar"): # a full disk
        limit = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000)))
        refused("bundle", "create", os.path.join(place, name), "--model", MODEL, "--key", KEY, words="cannot be written",
                preexec_fn=limit)
    equal((os.listdir(place), read(kept)), (["kept.tar"], b"kept"), "what was left")


def a_full_disk(place, size):
    """A file system of its own; Skip where that cannot be had."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], stderr=subprocess.DEVNULL)
    if done.returncode:
        raise Skip("mounting is not permitted here")


@test
def full_disks_leave_nothing():
    if not shutil.which("mount") or os.geteuid() != 0:
        raise Skip("mounting needs root")
    size = sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(FOLDER) for name in names)
    for part in (0.3, 0.95):
        place = folder()
        a_full_disk(place, int(size * part))
        try:
            for name in ("b", "b.tar"):
                refused("bundle", "create", os.path.join(place, name), "--model", MODEL, "--key", KEY, words="No space left")
                equal(os.listdir(place), [], "what create left")
            refused("bundle", "install", FOLDER, "--key", PUB, "--prefix", place, words="No space left")
            equal([os.listdir(place), os.listdir(place + "/versions")], [["versions"], []], "what install left")
        finally:
            subprocess.run(["umount", place], check=True)


@test
def interrupted_work_leaves_nothing():
    model = os.path.join(folder(), "model")
    shutil.copytree(MODEL, model)
    with open(os.path.join(model, "large.safetensors"), "wb") as file:
        file.truncate(200 << 20) # a hole: quick to make, slow enough to hash
    for number in (signal.SIGINT, signal.SIGTERM):
        for name in ("b", "b.tar"):
            place = folder()
            process = subprocess.Popen([WARD, "bundle", "create", os.path.join(place, name), "--model", model, "--key", KEY],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            until = time.time() + 20
            while not os.listdir(place) and time.time() < until:
                time.sleep(0.002)
            process.send_signal(number)
            equal(process.wait(), 130, f"exit status after signal {number}")
            equal(os.listdir(place), [], "what was left")


# ---- what is refused ------------------------------------------------------------------------------------------------

@test
def every_file_is_checked():
    for where, _, names in os.walk(FOLDER):
        for name in names:
            path = os.path.relpath(os.path.join(where, name), FOLDER)
            if path in ("SHA256SUMS", "SHA256SUMS.minisig"):
                continue
            bundle = copy_of_bundle()
            content = bytearray(read(os.path.join(bundle, path)))
            content[len(content) // 2] ^= 0x40
            replace(os.path.join(bundle, path), bytes(content))
            refused("bundle", "verify", bundle, "--key", PUB, words=path)
            shutil.rmtree(bundle)
            if QUICK:
                break


@test
def every_byte_of_list_and_signature_is_checked():
    bundle = copy_of_bundle()
    for name in ("SHA256SUMS", "SHA256SUMS.minisig"):
        path = os.path.join(bundle, name)
        content = read(path)
        first = content.index(b"\n") if name.endswith("sig") else 0 # the untrusted comment is not signed
        for at in range(first, len(content), 211 if QUICK else 31):
            changed = bytearray(content)
            changed[at] ^= 1
            replace(path, bytes(changed))
            refused("bundle", "verify", bundle, "--key", PUB)
        for length in (0, 1, len(content) // 2, len(content) - 2):
            replace(path, content[:length])
            refused("bundle", "verify", bundle, "--key", PUB)
        replace(path, content + b"\n")
        refused("bundle", "verify", bundle, "--key", PUB)
        replace(path, content)
        verify(bundle)
        os.remove(path)
        refused("bundle", "verify", bundle, "--key", PUB, words=name)
        replace(path, content)


@test
def the_folder_holds_what_the_list_does_and_no_more():
    def damaged(change, words):
        bundle = copy_of_bundle()
        change(bundle)
        refused("bundle", "verify", bundle, "--key", PUB, words=words)
        place = folder()
        refused("bundle", "install", bundle, "--key", PUB, "--prefix", place, words=words)
        assert not os.path.lexists(os.path.join(place, "current")), "it was installed"

    config = "models/config.json"
    damaged(lambda b: replace(os.path.join(b, "models", "extra.json"), b"{}"), "extra.json")
    damaged(lambda b: replace(os.path.join(b, ".hidden"), b""), ".hidden")
    damaged(lambda b: os.remove(os.path.join(b, config)), "lacks models/config.json")
    damaged(lambda b: os.mkdir(os.path.join(b, "empty")), "empty folder")

    def link(target):
        def change(bundle):
            os.remove(os.path.join(bundle, config))
            os.symlink(target, os.path.join(bundle, config))
        return change
    damaged(link("/etc/passwd"), "link")
    damaged(link(os.path.join(MODEL, "config.json")), "link") # the right bytes, outside
    damaged(lambda b: (shutil.move(os.path.join(b, "models"), b + ".models"), os.symlink(b + ".models", os.path.join(b, "models"))),
            "link")
    damaged(lambda b: (os.remove(os.path.join(b, config)), os.mkfifo(os.path.join(b, config))), "pipe")
    damaged(lambda b: (shutil.copy(os.path.join(b, "bin/ward"), b + ".w"), os.remove(os.path.join(b, "bin/ward")),
                       shutil.move(b + ".w", os.path.join(b, "bin/ward")), os.chmod(os.path.join(b, "bin/ward"), 0o4755)),
            "another user")


@test
def tricks_in_a_signed_list_are_refused():
    need("minisign")
    bundle = copy_of_bundle()
    path = os.path.join(bundle, "SHA256SUMS")
    content = read(path)
    lines = content.splitlines(keepends=True)
    line = hashlib.sha256(b"").hexdigest().encode() + b"  "
    for name in (b"../outside", b"/etc/passwd", b"models/../../x", b"./x", b"models//x", b"models/", b"a\\b", b"a\x01b",
                 b"\xff", b"SHA256SUMS", b".x", b"x" * 300, b""):
        replace(path, b"".join(sorted(lines + [line + name + b"\n"], key=lambda l: l[66:])))
        sign(bundle)
        refused("bundle", "verify", bundle, "--key", PUB, words="SHA256SUMS: ")
    for text in (content[:-1], content.replace(b"  ", b" *"), content + lines[-1], b"".join(reversed(lines)), b"", b"\n",
                 content.upper(), content.replace(b"\n", b"\r\n"), content + b"\0\n"):
        replace(path, text)
        sign(bundle)
        refused("bundle", "verify", bundle, "--key", PUB, words="SHA256SUMS: ")


def tar_of(members, **more):
    """A tar with the members of TAR, changed by a function of (member, content); it returns a list."""
    place = os.path.join(folder(), "t.tar")
    with tarfile.open(TAR) as old, tarfile.open(place, "w", format=more.get("format", tarfile.USTAR_FORMAT)) as new:
        for member in old:
            for changed, content in members(member, old.extractfile(member).read()):
                new.addfile(changed, io.BytesIO(content) if content is not None else None)
    return place


@test
def tricks_in_a_tar_are_refused():
    same = lambda member, content: [(member, content)]
    verify(tar_of(same)) # Python's own spelling of the same

    def at_config(change):
        return lambda member, content: change(member, content) if member.name.endswith("/config.json") else [(member, content)]

    def named(name, kind=tarfile.REGTYPE, content=b"x", link=""):
        def change(member, old):
            extra = tarfile.TarInfo(name)
            extra.type, extra.linkname, extra.mode = kind, link, 0o644
            extra.size = len(content) if kind == tarfile.REGTYPE else 0
            return [(member, old), (extra, content if kind == tarfile.REGTYPE else None)]
        return at_config(change)

    for name in ("ward-bundle/../x", "/etc/passwd", "../x", "other/x", "ward-bundle/x", "ward-bundle//x", "ward-bundle/"):
        refused("bundle", "verify", tar_of(named(name)), "--key", PUB)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S", b"x", b"L"):
        refused("bundle", "verify", tar_of(named("ward-bundle/x", kind, link="/etc")), "--key", PUB, words="regular file")
    refused("bundle", "verify", tar_of(named("ward-bundle/models/config.json")), "--key", PUB, words="two files")
    refused("bundle", "verify", tar_of(at_config(lambda m, c: [])), "--key", PUB, words="lacks")

    def with_mode(member, content):
        member.mode = 0o4755
        return [(member, content)]
    refused("bundle", "verify", tar_of(at_config(with_mode)), "--key", PUB, words="permissions")
    content = read(TAR)
    for length in (0, 1, 511, 512, 1024, len(content) // 1024 * 512, len(content) - 512, len(content) - 1024):
        refused("bundle", "verify", temporary("short.tar", content[:length]), "--key", PUB)
    for more in (b"\0", b"x" * 512, bytes(512) + b"x" * 512, bytes(1 << 20)):
        refused("bundle", "verify", temporary("long.tar", content + more), "--key", PUB)
    # a byte in each block of headers and between files
    for at in range(0, len(content), len(content) // (10 if QUICK else 60)):
        changed = bytearray(content)
        changed[at] ^= 0x20
        refused("bundle", "verify", temporary("changed.tar", bytes(changed)), "--key", PUB)
    refused("bundle", "verify", temporary("text.tar", b"text " * 1000), "--key", PUB)
    refused("bundle", "verify", "/dev/null", "--key", PUB, words="neither")
    refused("bundle", "verify", os.path.join(scratch, "nothing"), "--key", PUB, words="nothing")


# ---- installing -----------------------------------------------------------------------------------------------------

def answer_of(prefix):
    done = subprocess.run([f"{prefix}/current/bin/ward", "run", "-m", f"{prefix}/current/models", "-n", "3", QUESTION],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    equal(done.returncode, 0, f"the installed program ({done.stderr!r})")
    return done.stdout


def current(prefix):
    return os.readlink(os.path.join(prefix, "current"))


@test
def versions_lie_side_by_side():
    prefix = os.path.join(folder(), "opt")
    succeeds("bundle", "install", FOLDER, "--key", PUB, "--prefix", prefix)
    first = current(prefix)
    answer_of(prefix)
    equal(read(f"{prefix}/current/bin/ward"), read(WARD), "the installed program")
    verify(f"{prefix}/{first}")
    refused("bundle", "rollback", "--prefix", prefix, words="no previous version")
    newer = os.path.join(folder(), "newer.tar")
    succeeds("bundle", "create", newer, "--model", os.path.join(MODELS, "flat"), "--key", KEY,
             env={**os.environ, "SOURCE_DATE_EPOCH": "1900000000"})
    succeeds("bundle", "install", newer, "--key", PUB, "--prefix", prefix)
    second = current(prefix)
    equal((first == second, os.readlink(f"{prefix}/previous")), (False, first), "the links")
    answer_of(prefix)
    equal(succeeds("bundle", "rollback", "--prefix", prefix), f"{prefix}/current: {os.path.basename(first)}\n", "rollback")
    equal((current(prefix), os.readlink(f"{prefix}/previous")), (first, second), "the links after going back")
    answer_of(prefix)
    succeeds("bundle", "install", FOLDER, "--key", PUB, "--prefix", prefix) # once more: nothing changes
    equal((current(prefix), os.readlink(f"{prefix}/previous")), (first, second), "the links after the same again")
    replace(f"{prefix}/{second}/models/config.json", b"{}")
    refused("bundle", "install", newer, "--key", PUB, "--prefix", prefix, words="config.json")
    equal(current(prefix), first, "the current version after a refusal")
    shutil.rmtree(f"{prefix}/{second}")
    refused("bundle", "rollback", "--prefix", prefix, words="not there any more")
    equal(sorted(os.listdir(prefix)), ["current", "previous", "versions"], "what there is")


@test
def a_broken_bundle_changes_nothing():
    prefix = os.path.join(folder(), "opt")
    succeeds("bundle", "install", FOLDER, "--key", PUB, "--prefix", prefix)
    before = current(prefix)
    newer = os.path.join(folder(), "b")
    succeeds("bundle", "create", newer, "--model", os.path.join(MODELS, "flat"), "--key", KEY,
             env={**os.environ, "SOURCE_DATE_EPOCH": "1900000000"})
    weights = sorted(glob.glob(f"{newer}/models/*.safetensors"))[-1]
    replace(weights, read(weights)[:-1] + b"!")
    refused("bundle", "install", newer, "--key", PUB, "--prefix", prefix, words="safetensors")
    equal((current(prefix), os.listdir(f"{prefix}/versions")), (before, [os.path.basename(before)]), "what is there")
    answer_of(prefix)
    os.makedirs(f"{prefix}/versions/.remains.part/x") # of a power failure
    succeeds("bundle", "install", FOLDER, "--key", PUB, "--prefix", prefix)
    equal(os.listdir(f"{prefix}/versions"), [os.path.basename(before)], "versions")
    os.remove(f"{prefix}/current")
    os.symlink("/etc", f"{prefix}/current")
    refused("bundle", "install", FOLDER, "--key", PUB, "--prefix", prefix, words="no link to a version")


@test
def another_machine_or_library_is_refused():
    need("minisign")
    for field, value, words in (("machine", "riscv64", "riscv64"), ("libc", "9.99", "9.99"), ("format", "ward bundle 2", "format"),
                                ("ward", "../../x", "ward")):
        bundle = copy_of_bundle()
        facts = json.loads(read(os.path.join(bundle, "bundle.json")))
        facts[field] = value
        text = json.dumps(facts).encode()
        replace(os.path.join(bundle, "bundle.json"), text)
        listed = read(os.path.join(bundle, "SHA256SUMS"))
        replace(os.path.join(bundle, "SHA256SUMS"), re.sub(rb"[0-9a-f]{64}(?=  bundle.json)", hashlib.sha256(text).hexdigest().encode(),
                                                           listed))
        sign(bundle)
        refused("bundle", "install", bundle, "--key", PUB, "--prefix", folder(), words=words)


def install_sh(bundle, *args, path=None, cwd=None):
    environment = {**os.environ, "PATH": path} if path else None
    return subprocess.run(["sh", os.path.join(bundle, "install.sh"), *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120, env=environment, cwd=cwd)


@test
def the_script_installs_with_what_there_is():
    prefix = os.path.join(folder(), "opt")
    without = folder() # a system without minisign
    for name in ("sh", "sha256sum", "cut", "sort", "find", "dirname", "sed", "getconf"):
        os.symlink(shutil.which(name), os.path.join(without, name))
    done = install_sh(FOLDER, "--key", PUB, "--prefix", prefix, path=without)
    equal((done.returncode, b"--list-hash" in done.stderr), (1, True), f"without a verifier ({done.stderr})")
    listed = hashlib.sha256(read(os.path.join(FOLDER, "SHA256SUMS"))).hexdigest()
    done = install_sh(FOLDER, "--key", PUB, "--prefix", prefix, "--list-hash", "0" * 64, path=without)
    equal(done.returncode, 1, "with another hash")
    assert not os.path.exists(prefix)
    done = install_sh(FOLDER, "--key", PUB, "--prefix", prefix, "--list-hash", listed, path=without)
    equal(done.returncode, 0, f"with the list's hash ({done.stderr})")
    answer_of(prefix)
    done = install_sh(FOLDER, "--key", PUB, "--prefix", prefix, path=without) # the installed one verifies now
    equal(done.returncode, 0, f"an update ({done.stderr})")
    done = install_sh(FOLDER, "--rollback", "--prefix", prefix)
    equal((done.returncode, b"no previous" in done.stderr), (1, True), f"rollback ({done.stderr})")
    done = install_sh(FOLDER, "--key", os.path.relpath(PUB, scratch), "--prefix", "second", "--verifier", WARD, cwd=scratch)
    equal(done.returncode, 0, f"with a trusted ward ({done.stderr})")
    answer_of(os.path.join(scratch, "second"))
    for wrong in (["--prefix"], ["--frobnicate"], []):
        equal(install_sh(FOLDER, *wrong).returncode, 2, f"status of {wrong}")
    if shutil.which("minisign"):
        for key in (PUB, read(PUB).decode().splitlines()[1]):
            done = install_sh(FOLDER, "--key", key, "--prefix", os.path.join(folder(), "opt"))
            equal(done.returncode, 0, f"with minisign ({done.stderr})")


@test
def the_script_refuses_what_is_broken():
    other = os.path.join(folder(), "other")
    succeeds("bundle", "keygen", "--out", other, "-W")
    for damage in ("extra", "changed", "link", "key"):
        bundle, prefix = copy_of_bundle(), os.path.join(folder(), "opt")
        if damage == "extra":
            replace(os.path.join(bundle, "extra"), b"")
        elif damage == "changed":
            replace(os.path.join(bundle, "models", "config.json"), b"{}")
        elif damage == "link":
            os.symlink("bin/ward", os.path.join(bundle, "ward"))
        key = other + ".pub" if damage == "key" else PUB
        listed = hashlib.sha256(read(os.path.join(FOLDER, "SHA256SUMS"))).hexdigest()
        for verifier in (["--verifier", WARD], ["--list-hash", listed]):
            done = install_sh(bundle, "--key", key, "--prefix", prefix, *verifier)
            equal(done.returncode, 1, f"status with {damage} and {verifier} ({done.stderr})")
            assert not os.path.lexists(f"{prefix}/current"), f"{damage} was installed"


@test
def a_bare_debian_runs_it_without_a_network():
    """debootstrap --variant=minbase, once for each machine: WARD_BARE_ROOT names one that is there."""
    if QUICK:
        raise Skip("the program under sanitizers needs more than a bare system has")
    root = os.environ.get("WARD_BARE_ROOT")
    if not root:
        raise Skip("WARD_BARE_ROOT names no folder made by debootstrap --variant=minbase")
    if os.geteuid() != 0 or not shutil.which("unshare"):
        raise Skip("chroot needs root")
    films = sorted(glob.glob(os.path.join(ROOT, "examples", "*.png")))
    media = os.path.join(root, "media", "usb")
    shutil.rmtree(media, ignore_errors=True)
    shutil.rmtree(os.path.join(root, "opt", "ward"), ignore_errors=True)
    os.makedirs(media)
    succeeds("bundle", "create", os.path.join(media, "ward"), "--model", PHANTOM, "--key", KEY)
    listed = hashlib.sha256(read(os.path.join(media, "ward", "SHA256SUMS"))).hexdigest()
    shutil.copy(films[0], os.path.join(media, "film.png"))
    key = read(PUB).decode().splitlines()[1]
    script = f"""set -e
        ! command -v minisign
        sh /media/usb/ward/install.sh --key {key} --list-hash {listed}
        /opt/ward/current/bin/ward bundle verify /media/usb/ward --key {key}
        /opt/ward/current/bin/ward run -m /opt/ward/current/models -i /media/usb/film.png "{QUESTION}" """
    inside = 'mount -t proc proc "$1/proc" && exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "$2"'
    done = subprocess.run(["unshare", "-n", "-m", "sh", "-c", inside, "sh", root, script],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    equal(done.returncode, 0, f"in the bare system ({done.stderr.decode()})")
    expected = succeeds("run", "-m", PHANTOM, "-i", films[0], QUESTION)
    assert done.stdout.decode().endswith(expected), f"it said {done.stdout!r}"
    shutil.rmtree(media)


@test
def wrong_usage():
    misused("bundle", words="what is to be done")
    misused("bundle", "unpack", words="unpack")
    misused("bundle", "keygen", words="--out")
    misused("bundle", "create", words="one name")
    misused("bundle", "create", "b", "--key", KEY, words="--model")
    misused("bundle", "create", "b", "--model", MODEL, words="--key")
    misused("bundle", "verify", "--key", PUB, words="one bundle")
    misused("bundle", "install", FOLDER, words="--key")
    for command in ("keygen", "create", "verify", "install", "rollback"):
        assert "Example" in succeeds("bundle", command, "--help")
    assert "keygen" in succeeds("bundle", "--help")


if __name__ == "__main__":
    prepare()
    sys.exit(run_tests())
