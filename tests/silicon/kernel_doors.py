"""Two doors through which Linux takes an area: PTRACE_SETREGSET on a stopped child, KVM_SET_XSAVE on a virtual CPU."""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
from collections.abc import Iterator

import pytest

from tests import skips

_TRACEME, _GETREGSET, _SETREGSET = 0, 0x4204, 0x4205
_NT_X86_XSTATE = 0x202
_CREATE_VM, _CHECK_EXTENSION, _CREATE_VCPU = 0xAE01, 0xAE03, 0xAE41
_GET_SUPPORTED_CPUID, _SET_CPUID2, _GET_XSAVE, _SET_XSAVE, _GET_XSAVE2 = (
    0xC008AE05,
    0x4008AE90,
    0x9000AEA4,
    0x5000AEA5,
    0x9000AECF,
)
_CAP_XSAVE2 = 208


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Tracee:
    """A child that stands still."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
        self.libc.ptrace.restype = ctypes.c_long
        self.pid = os.fork()
        if not self.pid:
            try:
                if self.libc.ptrace(_TRACEME, 0, None, None) == 0:
                    os.kill(os.getpid(), signal.SIGSTOP)
            finally:
                os._exit(1)
        _, status = os.waitpid(self.pid, 0)
        if not os.WIFSTOPPED(status):
            pytest.skip(skips.NO_PTRACE)

    def _call(self, request: int, buffer: "ctypes.Array[ctypes.c_char]", length: int) -> tuple[str | None, int]:
        vector = _Vector(ctypes.addressof(buffer), length)
        done = self.libc.ptrace(request, self.pid, _NT_X86_XSTATE, ctypes.addressof(vector))
        return (None if done == 0 else errno.errorcode[ctypes.get_errno()]), vector.length

    def get(self) -> bytes:
        buffer = ctypes.create_string_buffer(1 << 15)
        error, length = self._call(_GETREGSET, buffer, len(buffer))
        assert error is None
        return buffer.raw[:length]

    def set(self, data: bytes) -> str | None:
        """The name of the error, or None."""
        return self._call(_SETREGSET, ctypes.create_string_buffer(data, len(data)), len(data))[0]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class VirtualCpu:
    """A virtual CPU with all that KVM offers. `xcr0`: the components of it."""

    def __init__(self) -> None:
        try:
            self.kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            pytest.skip(skips.NO_KVM)
        self.vm = self.vcpu = -1
        try:
            self.vm = fcntl.ioctl(self.kvm, _CREATE_VM, 0)
            self.vcpu = fcntl.ioctl(self.vm, _CREATE_VCPU, 0)
        except OSError:
            self.close()
            pytest.skip(skips.NO_KVM)
        cpuid = bytearray(struct.pack("<II", 256, 0) + bytes(40 * 256))
        fcntl.ioctl(self.kvm, _GET_SUPPORTED_CPUID, cpuid)
        fcntl.ioctl(self.vcpu, _SET_CPUID2, cpuid)
        (count,) = struct.unpack_from("<I", cpuid)
        entries = [struct.unpack_from("<7I", cpuid, 8 + 40 * i) for i in range(count)]
        self.xcr0 = next(e[3] | e[6] << 32 for e in entries if e[:2] == (0xD, 0))
        self.size = max(4096, fcntl.ioctl(self.kvm, _CHECK_EXTENSION, _CAP_XSAVE2))

    def get(self) -> bytes:
        data = bytearray(self.size)
        fcntl.ioctl(self.vcpu, _GET_XSAVE if self.size == 4096 else _GET_XSAVE2, data)
        return bytes(data)

    def set(self, data: bytes) -> str | None:
        """The name of the error, or None."""
        try:
            fcntl.ioctl(self.vcpu, _SET_XSAVE, bytearray(data))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return None

    def close(self) -> None:
        for each in (self.vcpu, self.vm, self.kvm):
            if each >= 0:
                os.close(each)


@contextlib.contextmanager
def door(name: str) -> "Iterator[Tracee | VirtualCpu]":
    """The door of that name, closed at the end."""
    made: "Tracee | VirtualCpu" = Tracee() if name == "ptrace" else VirtualCpu()
    try:
        yield made
    finally:
        made.close()
