#!/usr/bin/env python3
"""Which system calls of a program the kernel refuses: refused_calls.py PROGRAM [ARGUMENT...]

Runs the program with its threads and prints each call that ended in EPERM, EACCES or ENOSYS, how often, and what it was
about, on standard error; the exit status is the program's. Where ward works on a card without the lock and not with it
(docs/offline.md), this names what the driver asked for. A strace for machines without one: Linux 5.3 or later, Python's
standard library; as root it also tells the names of files.
"""

import collections
import ctypes
import ctypes.util
import errno
import os
import signal
import struct
import sys

TRACEME, SYSCALL, SET_OPTIONS, GET_SYSCALL_INFO, PEEK = 0, 24, 0x4200, 0x420E, 2
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000  # stops of calls told apart; forks, threads, exec; the end with ours
ALL_CHILDREN = 0x40000000  # __WALL
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
ENTRY, EXIT = 1, 2
NAMED_FIRST = {"open", "stat", "lstat", "access", "readlink", "mkdir", "unlink", "chmod", "execve"}
NAMED_SECOND = {"openat", "newfstatat", "faccessat", "faccessat2", "readlinkat", "mkdirat", "unlinkat", "statx", "execveat"}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, pid, address=0, data=0):
    return libc.ptrace(request, pid, address, data)


def call_names():
    """A function from a call's number to its name, by libseccomp, which ward is linked with."""
    try:
        seccomp = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return lambda number: f"call {number}"
    resolve = seccomp.seccomp_syscall_resolve_num_arch
    resolve.restype, resolve.argtypes = ctypes.c_char_p, [ctypes.c_uint32, ctypes.c_int]
    native = seccomp.seccomp_arch_native
    native.restype = ctypes.c_uint32
    return lambda number: (resolve(native(), number) or f"call {number}".encode()).decode()


class SyscallInfo(ctypes.Structure):
    """struct ptrace_syscall_info of linux/ptrace.h; `values`: of an entry the number and six arguments, of an exit the
    result."""
    _fields_ = [("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32), ("ip", ctypes.c_uint64),
                ("sp", ctypes.c_uint64), ("values", ctypes.c_uint64 * 8)]


def text_at(pid, address):
    """The string that a pointer of the program leads to, as far as it can be read."""
    text = b""
    for offset in range(0, 256, 8):
        ctypes.set_errno(0)
        word = ptrace(PEEK, pid, address + offset)
        if ctypes.get_errno():
            break
        text += struct.pack("=q", word)
        if b"\0" in text:
            break
    return text.split(b"\0")[0].decode(errors="replace")


def file_of(pid, descriptor):
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return f"descriptor {descriptor}"


def describe(pid, name, arguments):
    """What a call was about: enough to tell it from others of its name."""
    if name in NAMED_FIRST or name in NAMED_SECOND:
        at = 0 if name in NAMED_FIRST else 1
        return repr(text_at(pid, arguments[at]) or hex(arguments[at]))
    if name == "ioctl":
        return f"{file_of(pid, arguments[0] & 0x7FFFFFFF)}, request {arguments[1] & 0xFFFFFFFF:#x}"
    if name in ("mmap", "mprotect"):
        return f"protection {arguments[2]:#x}"
    return ", ".join("a pointer" if argument >> 32 else hex(argument) for argument in arguments[:3])


class Tracer:
    """The program and its threads, until the first of them has ended."""

    def __init__(self, command):
        self.name_of, self.entered, self.refused = call_names(), {}, collections.Counter()
        self.main = os.fork()
        if self.main == 0:
            if ptrace(TRACEME, 0) == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
                try:
                    os.execvp(command[0], command)
                except OSError as problem:
                    sys.stderr.write(f"{command[0]}: {problem.strerror}\n")
            os._exit(127)

    def look(self, pid):
        """At a stop at the beginning or the end of a call."""
        info = SyscallInfo()
        if ptrace(GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info)) <= 0:
            return
        if info.op == ENTRY:
            name, arguments = self.name_of(info.values[0]), list(info.values[1:7])
            self.entered[pid] = (name, describe(pid, name, arguments) if name in NAMED_FIRST | NAMED_SECOND else None, arguments)
        elif info.op == EXIT and pid in self.entered:
            name, about, arguments = self.entered.pop(pid)
            result = ctypes.c_int64(info.values[0]).value
            if -result in REFUSALS:
                self.refused[name, about or describe(pid, name, arguments), errno.errorcode[-result]] += 1

    def run(self):
        """To the end of the program: its exit status."""
        os.waitpid(self.main, 0)
        if ptrace(SET_OPTIONS, self.main, 0, OPTIONS):
            raise OSError(ctypes.get_errno(), "this system does not let one program trace another")
        ptrace(SYSCALL, self.main)
        while True:
            pid, status = os.waitpid(-1, ALL_CHILDREN)
            if not os.WIFSTOPPED(status):
                if pid == self.main:
                    return os.waitstatus_to_exitcode(status)
                continue
            stop, passed_on = os.WSTOPSIG(status), 0
            if stop == signal.SIGTRAP | 0x80:
                self.look(pid)
            elif stop not in (signal.SIGTRAP, signal.SIGSTOP):  # those are the tracing's own
                passed_on = stop
            ptrace(SYSCALL, pid, 0, passed_on)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.split("\n", maxsplit=1)[0])
    tracer = Tracer(sys.argv[1:])
    status = tracer.run()
    for (name, about, error), n in sorted(tracer.refused.items()):
        sys.stderr.write(f"refused {n} x {name}({about}): {error}\n")
    if not tracer.refused:
        sys.stderr.write("nothing was refused\n")
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
