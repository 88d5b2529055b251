"""XCR0 in a real hypervisor: what KVM_SET_XCRS takes for this host's guests is what the processor takes."""

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests import skips
from xsave import CpuModel, Processor

KVM_CREATE_VM = 0xAE01
KVM_CREATE_VCPU = 0xAE41
KVM_GET_SUPPORTED_CPUID = 0xC008AE05
KVM_SET_CPUID2 = 0x4008AE90
KVM_SET_XCRS = 0x4188AEA7
ENTRIES = 256
# What a hypervisor that keeps a list of its own accepts, whatever the guest's CPUID says.
LISTED = {0x1, 0x3, 0x7, 0xE7}


def state_leaves(cpuid: bytes | bytearray) -> dict[tuple[int, int], tuple[int, int, int, int]]:
    """Vendor and leaf 0DH of a kvm_cpuid2. Leaf 1 may hide XSAVE from guests that get the registers all the same."""
    found = {}
    for i in range(*struct.unpack_from("<I", cpuid)):
        leaf, index, _, *values = struct.unpack_from("<7I", cpuid, 8 + 40 * i)
        if leaf in (0, 0xD):
            found[leaf, index] = tuple(values)
    return found


@contextmanager
def guest() -> Iterator[tuple[CpuModel, Callable[[int], bool]]]:
    """A virtual CPU with all that KVM offers: its model, and whether KVM takes a value of XCR0."""
    held = []
    try:
        try:
            held.append(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            pytest.skip(skips.NO_KVM)
        cpuid = bytearray(struct.pack("<II", ENTRIES, 0) + bytes(40 * ENTRIES))
        fcntl.ioctl(held[0], KVM_GET_SUPPORTED_CPUID, cpuid)
        held.append(fcntl.ioctl(held[0], KVM_CREATE_VM, 0))
        vcpu = fcntl.ioctl(held[1], KVM_CREATE_VCPU, 0)
        held.append(vcpu)
        fcntl.ioctl(vcpu, KVM_SET_CPUID2, cpuid)

        def accepts(value: int) -> bool:
            # struct kvm_xcrs: count, flags, 16 entries of (index, reserved, value), padding
            request = struct.pack("<IIIIQ", 1, 0, 0, 0, value).ljust(392, b"\0")
            try:
                fcntl.ioctl(vcpu, KVM_SET_XCRS, request)
            except OSError as refused:
                assert refused.errno == errno.EINVAL
                return False
            return True

        yield CpuModel.from_cpuid(state_leaves(cpuid)), accepts
    finally:
        for descriptor in reversed(held):
            os.close(descriptor)


def test_kvm_and_the_processor_take_the_same_values():
    with guest() as (model, accepts):
        values = list(range(1 << 10))
        values += [base | 1 << i for i in range(10, 64) for base in (0, 1, 3, 0xE7, int(model.xcr0_mask))]
        values += [int(model.xcr0_mask), int(model.xcr0_mask) & ~0x60000]
        cpu = Processor(model, xcr0=1, cpl=0)
        kvm = {value for value in values if accepts(value)}
        emulated = {value for value in values if cpu.try_xsetbv(0, value) is None}
    assert 1 in kvm and 1 in emulated
    assert kvm <= emulated
    if kvm != LISTED or not int(model.xcr0_mask) & ~0xE7:
        assert kvm == emulated


def test_kvm_refuses_what_breaks_a_rule():
    with guest() as (model, accepts):
        assert accepts(1)
        for value in (0, 2, 6, 5, 1 << 63 | 1, 1 << 8 | 1, 0x23, 0xC7, ~int(model.xcr0_mask) & 2**64 - 1):
            assert not accepts(value), hex(value)
            assert Processor(model, xcr0=1, cpl=0).try_xsetbv(0, value) is not None
