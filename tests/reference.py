"""A slow, independent model of XSAVE areas and of the instructions that move them.

It is the judge of the compiled kernels, so it shares nothing with them: it imports only the standard library, spells
every rule out where it applies, and prefers the obvious to the quick. Sections are those of the Intel SDM, volume 1
(SDM1). Where silicon settled what the manual leaves open, the comment says "measured".

Words: `cpu` is a name in CPUS or a CpuTable; `mask` is a component bitmap; `fmt` is STANDARD or COMPACTED; a register
state is a dict name -> int | bytes. This file only gathers the names of `oracle/`, one file a subject.
"""

# ruff: noqa: F401

from oracle.areas import LEGACY_EXTENTS, decode, encode, named_components
from oracle.components import (
    ALL,
    APX,
    AREA_MIN,
    AVX,
    BIT63,
    BNDCSR,
    BNDREGS,
    CET_S,
    CET_U,
    COMPACTED,
    COMPONENT_OF,
    COMPONENTS,
    FIELDS,
    HDC,
    HI16_ZMM,
    HWP,
    LBR,
    LEGACY_SIZE,
    LWP,
    MXCSR_INIT,
    OPMASK,
    PASID,
    PKRU,
    PT,
    SCALEDATA,
    SSE,
    STANDARD,
    TILECFG,
    TILEDATA,
    UINTR,
    X87,
    X87_INITIAL,
    XCOMP_BV,
    XSTATE_BV,
    ZMM_HI256,
    Component,
    Fault,
    Field,
    Slots,
    Value,
    Values,
    bits,
    has,
    u64,
)
from oracle.cpu import Cpu
from oracle.cpus import (
    AMD_ROWS,
    BULLDOZER_ROWS,
    CPUS,
    INTEL_ROWS,
    ROME_ROWS,
    SUPERVISOR_ROWS,
    CpuTable,
    Rows,
    cpu_from_cpuid,
    cpu_table,
)
from oracle.guests import (
    TDX_FIXED0,
    TDX_FIXED1,
    TDX_SUPERVISOR,
    TDX_USER,
    kvm_xcr0,
    kvm_xss,
    tdx_xcr0,
    tdx_xfam,
    xen_xcr0,
)
from oracle.layouts import compacted_offsets, header_faults, layout, standard_offsets, standard_size
from oracle.memory import Buffer, Memory, Operand
from oracle.registers import (
    VECTOR_PIECES,
    VECTOR_SIZES,
    as_bytes,
    as_int,
    component_bytes,
    component_values,
    components_of,
    initial_values,
    non_initial,
    registers,
    same_state,
    vector,
    vector_number,
)
from oracle.states import random_state
from oracle.values import (
    IA32_XFD,
    IA32_XFD_ERR,
    IA32_XSS,
    MSRS,
    restored_fcw,
    restored_fsw,
    sign_extended,
    supervisor_value_fault,
    tilecfg_is_legal,
    xcr0_fault,
    xfd_mask,
)
