"""This CPU's own instructions: CPUID, XGETBV, the XSAVE family. x86-64 only.

Built as `xsave._native` for `xsave.host` and `xsave.models`. It knows instructions, masks and sizes; what a
component or a register is called is its callers' business.
"""

from libc.stdint cimport uint32_t, uint64_t

from xsave.errors import HostError, UnsupportedError


cdef extern from "insn.h" nogil:
    void insn_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t *out)
    int insn_has_xsave()
    uint64_t insn_xgetbv(uint32_t index)


def cpuid(uint32_t leaf, uint32_t subleaf=0):
    """EAX, EBX, ECX, EDX of one CPUID leaf and sub-leaf. In a virtual machine each call is a VM exit."""
    cdef uint32_t[4] out
    insn_cpuid(leaf, subleaf, out)
    return out[0], out[1], out[2], out[3]


def xgetbv(uint32_t index=0):
    """XCR0 (index 0), or XCR0 & XINUSE (index 1) [SDM1 13.3, 13.6].

    Raises: `UnsupportedError` where the operating system has not enabled XSAVE (CPUID.1:ECX[27] = 0),
    `HostError` for an index that this CPU does not have (the instruction would fault).
    """
    cdef uint32_t[4] out
    if not insn_has_xsave():
        raise UnsupportedError("XGETBV needs XSAVE enabled by the operating system, but CPUID.1:ECX[27] is 0 [SDM1 13.2]")
    if index == 1:
        insn_cpuid(0xD, 1, out)
        if not out[0] >> 2 & 1:
            raise HostError("XGETBV with ECX 1 faults on this CPU: CPUID.0DH.1:EAX[2] is 0 [SDM1 13.2]")
    elif index:
        raise HostError(f"XGETBV with ECX {index} faults: only 0 and 1 are defined [SDM2 XGETBV]")
    return insn_xgetbv(index)
