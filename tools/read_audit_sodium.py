"""What read_audit.py uses of PyNaCl's bindings, from libsodium through ctypes."""

import ctypes
import ctypes.util

_library = ctypes.CDLL(ctypes.util.find_library("sodium") or "libsodium.so.23")
if _library.sodium_init() < 0:
    raise ImportError("libsodium does not start")
crypto_pwhash_ALG_ARGON2ID13 = 2


class CryptoError(Exception):
    pass


def _call(name, size, *arguments):
    """The function with a buffer of so many bytes as its first argument."""
    out = ctypes.create_string_buffer(max(size, 1))
    if getattr(_library, name)(out, *arguments):
        raise CryptoError(name)
    return out.raw[:size]


def _long(number):
    return ctypes.c_ulonglong(number)


def crypto_sign_open(signed, key):
    length = ctypes.c_ulonglong()
    return _call("crypto_sign_open", len(signed), ctypes.byref(length), signed, _long(len(signed)), key)[:length.value]


def crypto_box_seal_open(sealed, public, secret):
    return _call("crypto_box_seal_open", len(sealed) - 48, sealed, _long(len(sealed)), public, secret)


def crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, associated, nonce, key):
    return _call("crypto_aead_xchacha20poly1305_ietf_decrypt", len(ciphertext) - 16, None, None, ciphertext,
                 _long(len(ciphertext)), associated, _long(len(associated)), nonce, key)


def crypto_pwhash_alg(size, passphrase, salt, ops, memory, algorithm):
    return _call("crypto_pwhash", size, _long(size), passphrase, _long(len(passphrase)), salt, _long(ops),
                 ctypes.c_size_t(memory), algorithm)
