#!/usr/bin/env python3
"""Reads and verifies an audit log of ward, by docs/audit-log.md alone: a second opinion beside `ward audit`.

    read_audit.py verify DIR [--anchor HEX] [--checkpoint FILE]
    read_audit.py show DIR --key KEYFILE          a JSON object per record, as `ward audit show --json` prints

With PyNaCl, or else libsodium through ctypes. Exit status 1 and a sentence where the log is not as the document says.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import struct
import sys
from datetime import datetime, timezone

try:
    import nacl.bindings as sodium
    from nacl.exceptions import CryptoError
except ImportError: # the same functions of libsodium itself, which ward needs anyway
    import read_audit_sodium as sodium
    from read_audit_sodium import CryptoError

HEADER, BEGIN, END, NOTE, CLOSE, RECOVERY, PRUNE = range(1, 8)
NAMES = {HEADER: "header", BEGIN: "begin", END: "end", NOTE: "note", CLOSE: "close", RECOVERY: "recovery", PRUNE: "prune"}
ENCRYPTED = {BEGIN, END, NOTE}
HEAD = 224
MINUTE = 60000


class Bad(Exception):
    pass


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def kdf(secret, number, context):
    return hashlib.blake2b(b"", digest_size=32, key=secret, salt=struct.pack("<Q8x", number),
                           person=context + bytes(8)).digest()


class Frame:
    def __init__(self, data, offset, pruned, where):
        self.where = f"{where}, byte {offset}"
        self.head = data[offset:offset + HEAD]
        if len(self.head) < HEAD:
            raise Bad(f"{self.where}: no whole frame")
        magic, self.type, self.length = struct.unpack_from("<3sBI", self.head)
        self.seq, self.of, self.segment, self.utc, self.uptime = struct.unpack_from("<5Q", self.head, 8)
        self.boot, self.prev, self.body_hash, self.next = (self.head[48:64], self.head[64:96], self.head[96:128],
                                                           self.head[128:160])
        if magic != b"WA1" or self.type not in NAMES or self.length > 64 << 20:
            raise Bad(f"{self.where}: no frame")
        self.body = None
        self.end = offset + HEAD
        if not (pruned and self.type in ENCRYPTED):
            self.body = data[self.end:self.end + self.length]
            self.end += self.length
            if len(self.body) < self.length:
                raise Bad(f"{self.where}: no whole frame")
            if sha256(self.body) != self.body_hash:
                raise Bad(f"{self.where}: another body")
        self.leaf = sha256(b"\0", self.head)
        self.header = None


def is_signed(text, signature, key):
    try:
        return sodium.crypto_sign_open(signature + text, key) == text
    except CryptoError:
        return False


class Log:
    def __init__(self, folder, anchor=None):
        self.frames, self.pruned, self.clock_steps = [], 0, 0
        names = sorted(name for name in os.listdir(folder) if name.endswith(".log"))
        if not names or names != ["%08d.log" % (i + 1) for i in range(len(names))]:
            raise Bad(f"the segments are {names}")
        self.key, self.open = anchor, set()
        named_by_prune = 0
        for number, name in enumerate(names, 1):
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            if data[:8] not in (b"ward-log", b"ward-cut"):
                raise Bad(f"{name}: no segment")
            pruned = data[:8] == b"ward-cut"
            if pruned and self.pruned != number - 1:
                raise Bad(f"{name}: pruned behind one that is not")
            self.pruned += pruned
            self.read_segment(data, name, number, pruned)
            if number < len(names) and self.frames[-1].type != CLOSE:
                raise Bad(f"{name}: has no close")
        for frame in self.frames:
            if frame.type == PRUNE:
                named_by_prune = max(named_by_prune, json.loads(frame.body)["through"])
        if self.pruned > named_by_prune:
            raise Bad("pruned, and no record says so")
        self.check_state(folder)

    def read_segment(self, data, name, number, pruned):
        offset, header = 8, None
        while offset < len(data) or offset == 8:
            frame = Frame(data, offset, pruned, name)
            if (frame.type == HEADER) != (header is None):
                raise Bad(f"{frame.where}: a header at its place, and only there")
            if header and self.frames[-1].type == CLOSE:
                raise Bad(f"{frame.where}: behind the close")
            if frame.type == HEADER:
                header = json.loads(frame.body)
                if header["format"] != "ward-audit-1" or not 1 <= len(header["auditors"]) <= 16:
                    raise Bad(f"{frame.where}: another format")
                named = bytes.fromhex(header["key"])
                self.key = self.key or named
                if self.key != named:
                    raise Bad(f"{frame.where}: another key")
                if number == 1:
                    self.anchor = named
            frame.header = header
            self.take(frame, number)
            offset = frame.end

    def take(self, frame, number):
        last = self.frames[-1] if self.frames else None
        if frame.seq != len(self.frames) or frame.segment != number:
            raise Bad(f"{frame.where}: frame {frame.seq} of segment {frame.segment}")
        if frame.prev != (last.leaf if last else bytes(32)):
            raise Bad(f"{frame.where}: does not follow")
        if not is_signed(frame.head[:160], frame.head[160:], self.key):
            raise Bad(f"{frame.where}: another signature")
        self.key = frame.next
        if frame.type == BEGIN:
            self.open.add(frame.seq)
        if frame.type == END:
            if frame.of not in self.open:
                raise Bad(f"{frame.where}: ends what is not open")
            self.open.remove(frame.of)
        elif frame.of:
            raise Bad(f"{frame.where}: is the end of nothing")
        if last:
            least = frame.uptime - last.uptime if frame.boot == last.boot else 0
            self.clock_steps += frame.utc - last.utc < least - MINUTE
        self.frames.append(frame)

    def check_state(self, folder):
        try:
            with open(os.path.join(folder, "writer", "state"), "rb") as file:
                state = file.read()
        except OSError:
            return
        if len(state) != 240 or state[:8] != b"wardsta1" or sha256(state[:208]) != state[208:]:
            raise Bad("writer/state is damaged")
        known = struct.unpack_from("<Q", state, 16)[0]
        if not known <= len(self.frames) <= known + 1:
            raise Bad(f"the writer knows of {known} frames, {len(self.frames)} are there")

    def root(self, size):
        def of(leaves):
            if len(leaves) == 1:
                return leaves[0]
            k = 1
            while 2 * k < len(leaves):
                k *= 2
            return sha256(b"\1", of(leaves[:k]), of(leaves[k:]))
        return of([frame.leaf for frame in self.frames[:size]])

    def check_checkpoint(self, text):
        body, _, signatures = text.partition("\n\n")
        body += "\n"
        origin, size, root = body.split("\n")[:3]
        if origin != "ward-audit/" + sha256(self.anchor)[:8].hex():
            raise Bad("the checkpoint is of another log")
        size = int(size)
        if not 0 < size <= len(self.frames):
            raise Bad(f"the checkpoint knows of {size} frames, {len(self.frames)} are there")
        if self.root(size) != base64.b64decode(root, validate=True):
            raise Bad("the checkpoint has another root")
        key = bytes.fromhex(self.frames[size - 1].header["note_key"])
        key_id = sha256(origin.encode(), b"\n\x01", key)[:4]
        for line in signatures.splitlines():
            match = re.fullmatch("\u2014 ([^ ]+) ([^ ]+)", line)
            if not match or match.group(1) != origin:
                continue
            signature = base64.b64decode(match.group(2))
            if signature[:4] == key_id and is_signed(body.encode(), signature[4:], key):
                return
        raise Bad("the checkpoint is not signed by its segment's key")


def read_key(path, passphrase=None):
    with open(path, encoding="utf-8") as file:
        key = json.load(file)
    public, secret = bytes.fromhex(key["public"]), bytes.fromhex(key["secret"])
    if key["kdf"] == "argon2id13":
        derived = sodium.crypto_pwhash_alg(32, passphrase, bytes.fromhex(key["salt"]), key["ops"], key["memory"],
                                           sodium.crypto_pwhash_ALG_ARGON2ID13)
        secret = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(secret, public, bytes.fromhex(key["nonce"]), derived)
    return public, secret


def unseal(header, public, secret):
    for auditor in header["auditors"]:
        if auditor["public"] == public.hex():
            return sodium.crypto_box_seal_open(bytes.fromhex(auditor["sealed"]), public, secret)
    return None


def records(log, public, secret):
    content, opened = None, False
    for frame in log.frames:
        record = None
        if frame.type not in ENCRYPTED:
            record = json.loads(frame.body)
        elif content and frame.body is not None:
            record = json.loads(sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
                frame.body[24:], frame.head[:96], frame.body[:24], kdf(content, 1, b"ward-rec")))
        if frame.type == HEADER:
            content = unseal(frame.header, public, secret)
            opened = opened or content is not None
        elif content:
            content = kdf(content, 2, b"ward-rec")
        time = datetime.fromtimestamp(frame.utc // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        line = {"seq": frame.seq, "segment": frame.segment, "type": NAMES[frame.type]}
        if frame.type == END:
            line["of"] = frame.of
        yield {**line, "time": f"{time}.{frame.utc % 1000:03}Z", "uptime_ms": frame.uptime, "boot": frame.boot.hex(),
               "record": record}
    if not opened:
        raise Bad("the key opens none of the segments")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("what", choices=["verify", "show"])
    parser.add_argument("folder")
    parser.add_argument("--anchor")
    parser.add_argument("--checkpoint")
    parser.add_argument("--key")
    options = parser.parse_args()
    try:
        log = Log(options.folder, bytes.fromhex(options.anchor) if options.anchor else None)
        if options.checkpoint:
            with open(options.checkpoint, encoding="utf-8") as file:
                log.check_checkpoint(file.read())
        if options.what == "show":
            passphrase = None if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n").encode()
            for record in records(log, *read_key(options.key, passphrase)):
                print(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
        else:
            print(json.dumps({"records": len(log.frames), "uses_without_end": len(log.open), "pruned_segments": log.pruned,
                              "clock_set_back": log.clock_steps, "anchor": log.anchor.hex()}))
            if log.clock_steps:
                raise Bad("the clock was set back")
    except (Bad, OSError, ValueError, KeyError, UnicodeDecodeError, CryptoError) as problem:
        print(f"read_audit: {problem}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
