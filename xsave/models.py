"""`CpuModel`: what one CPU enumerates about extended state, and how it behaves where the architecture lets it.

A model comes from this host, a dict of CPUID leaves, CPUID text, a kvm_cpuid2 structure, the layout note of a
core file, or by name from the table in `xsave.data.models`. It never asks this host about another CPU: all it
answers was in its source.
"""

from collections.abc import Mapping
from types import MappingProxyType

from xsave.components import COMPONENTS, Component, ComponentMask
from xsave.enumeration import (
    REGISTERS,
    STATE,
    ComponentRow,
    ComponentRows,
    brand_of,
    check_extent,
    check_overlaps,
    checked_record,
    enumerated_row,
    instructions_of,
    masks,
    vendor_of,
    walk,
)
from xsave.errors import FormatError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

    Registers = tuple[int, int, int, int]
    Leaves = dict[tuple[int, int], Registers]

__all__ = ["PROFILES", "ComponentRow", "CpuModel"]

# Where CPUs of one architecture differ in behaviour; everything else is the same on all. A knob's values:
#   xinuse                      "history": a write marks a component whatever it wrote; "value": the contents decide
#   xinuse_compat_mode          outside 64-bit mode, "low": registers 0-7 alone count; "all": every register counts
#   ldmxcsr_marks_sse           LDMXCSR sets XINUSE[1] and XMODIFIED[1]
#   mxcsr_mask                  bits of MXCSR that may be 1
#   x87_ptrs                    FIP, FDP and FOP: "always" saved and loaded; "es_only_zero": zero unless FSW.ES;
#                               "es_only_skip": neither written nor loaded unless FSW.ES
#   fdp_excptn_only             FDP and FOP change on unmasked exceptions alone (7.0:EBX[6] where leaf 7 is known)
#   fcs_fds                     "zero" or "kept" (7.0:EBX[13] where leaf 7 is known)
#   fip_width, fdp_width        bits kept of the 64-bit forms, sign-extended from the highest
#   alignment_first             a misaligned address that is not canonical either is #GP for its alignment (not FXSAVE)
#   ac_on_xsave, ac_on_fxsave   #AC for an operand that is not 4-byte aligned, where alignment checks are on
#   xrstor_compacted_extent     components that compacted XRSTOR touches: RFBM & "xcomp_bv" or RFBM & "xstate_bv"
#   legacy_region               probed "always", or only "as_needed" by the components of the mask
#   probe_order_save, _restore  where #PF is looked for, in order: "last" byte, "legacy" region, or an area offset
#   xrstor_priorities           XRSTOR's faults, first wins
#   atomic_faults               a faulting instruction has changed nothing
#   modified_opt                XSAVEOPT and XSAVES skip what has not changed since XRSTOR
#   modified_opt_skips_tilecfg  TILECFG too
#   fxrstor_ends_modified_opt   after FXRSTOR everything counts as modified
#   xfd_extent                  XSAVEOPT and XSAVEC with TILEDATA disabled by XFD: "whole", or "before_disabled"
_AMD_ZEN5 = {
    "xinuse": "value",
    "xinuse_compat_mode": "all",
    "ldmxcsr_marks_sse": False,
    "mxcsr_mask": 0x2FFFF,
    "x87_ptrs": "es_only_zero",
    "fdp_excptn_only": False,
    "fcs_fds": "kept",
    "fip_width": 57,
    "fdp_width": 57,
    "alignment_first": True,
    "ac_on_xsave": False,
    "ac_on_fxsave": True,
    "xrstor_compacted_extent": "xstate_bv",
    "legacy_region": "always",
    "probe_order_save": ("legacy", "last"),
    "probe_order_restore": ("legacy", 512, "last"),
    "xrstor_priorities": ("pf-header", "gp-header", "pf-probes", "nm-xfd", "gp-mxcsr"),
    "atomic_faults": True,
    "modified_opt": True,
    "modified_opt_skips_tilecfg": True,
    "fxrstor_ends_modified_opt": True,
    "xfd_extent": "whole",
}
_INTEL = {
    "xinuse": "history",
    "xinuse_compat_mode": "low",
    "ldmxcsr_marks_sse": True,
    "mxcsr_mask": 0xFFFF,
    "x87_ptrs": "always",
    "fdp_excptn_only": True,
    "fcs_fds": "zero",
    "fip_width": 57,
    "fdp_width": 64,
    "alignment_first": False,
    "ac_on_xsave": True,
    "ac_on_fxsave": True,
    "xrstor_compacted_extent": "xcomp_bv",
    "legacy_region": "as_needed",
    "probe_order_save": ("last", "legacy", 512),
    "probe_order_restore": (520, "last", "legacy"),
    "xrstor_priorities": (
        "pf-header", "gp-xcomp-xcr0", "pf-probes", "gp-header", "nm-xfd", "gp-mxcsr", "pf-interior",
    ),
    "atomic_faults": False,
    "modified_opt": True,
    "modified_opt_skips_tilecfg": False,
    "fxrstor_ends_modified_opt": False,
    "xfd_extent": "before_disabled",
}
PROFILES: "Final[Mapping[str, Mapping[str, object]]]" = MappingProxyType(
    {
        "intel": MappingProxyType(_INTEL),
        "amd-zen5": MappingProxyType(_AMD_ZEN5),
        "amd-legacy": MappingProxyType({**_AMD_ZEN5, "x87_ptrs": "es_only_skip"}),
    }
)
# Vendors whose profile is not the default, and the CPUID bit (leaf, subleaf, register, bit: XSaveErPtr) that
# tells the two apart.
_POINTER_VENDORS = ("AuthenticAMD", "HygonGenuine")
_POINTER_FEATURE = (0x80000008, 0, "ebx", 2)

_host: "CpuModel | None" = None
_named: "dict[str, CpuModel]" = {}


class CpuModel:
    """What one CPU enumerates about XSAVE (SDM1 13.2), and its behaviour profile. Read-only; pickles and copies.

    `name`: what the model is called. `xcr0_mask` and `xss_mask`: the bits of XCR0 and IA32_XSS that CPUID lets
    software set, as enumerated, also bits that this package knows no component for. `components`: the rows of the
    known ones, by `Component`, number or any name. `vendor` is CPUID's string, `brand` the brand string, both ""
    where unknown. `profile` names the row of `PROFILES` that `knobs` was made from (with what CPUID leaf 7 says of
    `fcs_fds` and `fdp_excptn_only`). `cpuid` is the record, {(leaf, subleaf): (eax, ebx, ecx, edx)}, `instructions`
    the set of "xsave", "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd" that it has. `provenance` says where it
    comes from.

    Two models are equal if record, rows, masks and profile are; names do not count.
    """

    __slots__ = (
        "brand", "components", "cpuid", "instructions", "knobs", "name", "profile", "provenance", "vendor",
        "xcr0_mask", "xss_mask",
    )

    brand: str
    components: "Mapping[Component, ComponentRow]"
    cpuid: "Mapping[tuple[int, int], Registers]"
    instructions: "frozenset[str]"
    knobs: "Mapping[str, object]"
    name: str
    profile: str
    provenance: str
    vendor: str
    xcr0_mask: ComponentMask
    xss_mask: ComponentMask

    @property
    def mxcsr_mask(self) -> int:
        """MXCSR_MASK: the bits of MXCSR that are not reserved (SDM1 11.6.6)."""
        return int(self.knobs["mxcsr_mask"])  # type: ignore[call-overload, no-any-return]

    def __init__(self, *_: object) -> None:
        raise TypeError("use CpuModel.host, .named, .from_cpuid, .from_text, .from_kvm_cpuid2 or .from_layout_note")

    @classmethod
    def host(cls) -> "CpuModel":
        """This CPU, asked once per process: CPUID is a VM exit in a guest. Its name is the brand string.

        Raises: `UnsupportedError` in a build without the native module, or on a CPU without XSAVE.
        """
        global _host
        if _host is None:
            try:
                from xsave._native import cpuid
            except ImportError:
                raise UnsupportedError("this build cannot execute CPUID: it has no native module") from None
            _host = cls.from_cpuid(walk(cpuid), provenance="this host")
        return _host

    @classmethod
    def named(cls, name: str) -> "CpuModel":
        """A known CPU, by QEMU's name for it, in any case: `SapphireRapids`, `EPYC-Genoa` (see `names`).

        Raises: `ValueError` for an unknown name, with a suggestion.
        """
        from xsave.data.models import ALIASES, MODELS

        keys = {key.lower(): key for key in MODELS}
        keys.update(ALIASES)
        wanted = str(name).strip().lower().replace("_", "-").replace(" ", "-")
        key = keys.get(str(name).strip().lower()) or keys.get(wanted)
        if key is None:
            from difflib import get_close_matches

            close = get_close_matches(wanted, keys, n=1)
            names = {key.lower(): key for key in MODELS}
            hint = f"did you mean {names.get(close[0], close[0])!r}?" if close else f"known: {', '.join(MODELS)}"
            raise ValueError(f"unknown CPU model {name!r}; {hint}")
        if key not in _named:
            brand, provenance, rows = MODELS[key]
            leaves: Leaves = {(row[0], row[1]): row[2:] for row in rows}
            _named[key] = cls.from_cpuid(leaves, name=key, brand=brand, provenance=provenance)
        return _named[key]

    @classmethod
    def names(cls) -> "tuple[str, ...]":
        """The names that `named` knows (aliases left out), by vendor and age."""
        from xsave.data.models import MODELS

        return tuple(MODELS)

    @classmethod
    def from_text(cls, text: "str | bytes", profile: "str | None" = None, name: "str | None" = None) -> "CpuModel":
        """The first CPU in a text of CPUID values; `xsave.cpuid` lists the forms that are recognised.

        Raises: `FormatError` naming the line; `UnsupportedError` for a CPU without XSAVE.
        """
        from xsave.cpuid import read_text

        leaves, form = read_text(text)
        return cls.from_cpuid(leaves, profile, name, provenance=f"CPUID text ({form})")

    @classmethod
    def from_kvm_cpuid2(
        cls, data: "bytes | bytearray | memoryview", profile: "str | None" = None, name: "str | None" = None
    ) -> "CpuModel":
        """The CPU that a `struct kvm_cpuid2` (KVM_GET_CPUID2) gives to a guest.

        Raises: `FormatError`, `TruncatedError` naming the byte; `UnsupportedError` for a CPU without XSAVE.
        """
        from xsave.cpuid import read_kvm_cpuid2

        return cls.from_cpuid(read_kvm_cpuid2(data), profile, name, provenance="kvm_cpuid2")

    @classmethod
    def from_cpuid(
        cls,
        leaves: "Mapping[tuple[int, int], Sequence[int]]",
        profile: "str | None" = None,
        name: "str | None" = None,
        *,
        brand: "str | None" = None,
        provenance: str = "CPUID",
    ) -> "CpuModel":
        """A CPU from its leaves, {(leaf, subleaf): (eax, ebx, ecx, edx)}.

        A bit is a user component if 0DH.0:EDX:EAX has it, a supervisor component if 0DH.1:EDX:ECX has it and
        0DH.1:EAX[3] is set; sub-leaves of other bits are ignored. An enumerated component whose sub-leaf is
        missing or all zero gets its architectural size and alignment, and no standard offset. `profile`
        overrides the choice by vendor and features.

        Raises: `UnsupportedError` for a record without XSAVE; `FormatError` for values that no CPU has, naming
        leaf and register; `ValueError` for an unknown profile.
        """
        record = checked_record(leaves)
        user, supervisor = masks(record)
        rows = [
            enumerated_row(component, record.get((STATE, component)), bool(supervisor >> component & 1))
            for component in ComponentMask(user | supervisor)
        ]
        vendor = vendor_of(record)
        return cls._made(
            record,
            rows,
            user,
            supervisor,
            profile or _profile(vendor, record),
            name=name,
            vendor=vendor,
            brand=brand_of(record) if brand is None else brand,
            instructions=instructions_of(record),
            provenance=provenance,
        )

    @classmethod
    def from_layout_note(
        cls,
        entries: "Sequence[tuple[int, int, int, int]]",
        *,
        vendor: str = "",
        name: str = "layout note",
        profile: "str | None" = None,
    ) -> "CpuModel":
        """A CPU from the records (component, size, offset, flags) of an NT_X86_XSAVE_LAYOUT note.

        Such a note lists user components from 2 up; alignment and XFD are the architecture's, the record of
        CPUID stays empty. `vendor` chooses the profile; the kernels that write the note are of 2024 and later,
        so an AMD or Hygon CPU is taken for one with XSaveErPtr.

        Raises: `FormatError` naming the entry.
        """
        mask, rows = 3, [enumerated_row(component, None, False) for component in ComponentMask(3)]
        for number, (bit, size, offset, _flags) in enumerate(entries):
            if not 2 <= bit <= 62 or mask >> bit & 1:
                raise FormatError(f"layout note entry {number}: found component {bit}, expected each of 2 to 62 once")
            mask |= 1 << bit
            if bit in COMPONENTS:
                info = COMPONENTS[Component(bit)]
                check_extent(f"layout note entry {number} ({info.name})", ("size", "offset"), info, size, offset)
                rows.append(ComponentRow(info.component, size, offset, info.align64, False, info.xfd))
        made = profile or ("amd-zen5" if vendor in _POINTER_VENDORS else "intel")
        return cls._made(
            {}, rows, mask, 0, made,
            name=name, vendor=vendor, brand="", instructions={"xsave"}, provenance="NT_X86_XSAVE_LAYOUT",
        )

    @classmethod
    def _made(
        cls,
        record: "Leaves",
        rows: "list[ComponentRow]",
        user: int,
        supervisor: int,
        profile: str,
        *,
        name: "str | None",
        vendor: str,
        brand: str,
        instructions: "set[str]",
        provenance: str,
    ) -> "CpuModel":
        if profile not in PROFILES:
            raise ValueError(f"unknown profile {profile!r}: expected one of {', '.join(PROFILES)}")
        check_overlaps(rows, user)
        self = object.__new__(cls)
        put = object.__setattr__
        put(self, "brand", brand)
        put(self, "components", ComponentRows(rows))
        put(self, "cpuid", MappingProxyType(record))
        put(self, "instructions", frozenset(instructions))
        put(self, "knobs", _knobs(profile, record))
        put(self, "name", name or brand or f"{vendor or 'unknown vendor'} {record.get((1, 0), (0,))[0]:08x}")
        put(self, "profile", profile)
        put(self, "provenance", provenance)
        put(self, "vendor", vendor)
        put(self, "xcr0_mask", ComponentMask(user))
        put(self, "xss_mask", ComponentMask(supervisor))
        return self

    def feature(self, leaf: int, subleaf: int, register: str, bit: int) -> bool:
        """Whether a bit of the record is set; False where the record lacks the leaf. `register`: "eax" to "edx"."""
        return _bit(self.cpuid, leaf, subleaf, register, bit)

    def __setattr__(self, name: str, value: object) -> "NoReturn":
        raise AttributeError(f"a CpuModel is read-only: {name}")

    def __delattr__(self, name: str) -> "NoReturn":
        raise AttributeError(f"a CpuModel is read-only: {name}")

    def _key(self) -> "tuple[object, ...]":
        return self.profile, int(self.xcr0_mask), int(self.xss_mask), tuple(self.components.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CpuModel):
            return NotImplemented
        return self is other or (self._key() == other._key() and self.cpuid == other.cpuid)

    def __hash__(self) -> int:
        return hash(self._key())

    def __copy__(self) -> "CpuModel":
        return self

    def __deepcopy__(self, memo: object) -> "CpuModel":
        return self

    def __reduce__(self) -> "tuple[object, tuple[object, ...]]":
        state = (self.name, self.vendor, self.brand, tuple(self.instructions), self.provenance)
        rows = [row._key() for row in self.components.values()]
        return _restored, (dict(self.cpuid), rows, int(self.xcr0_mask), int(self.xss_mask), self.profile, *state)

    def __repr__(self) -> str:
        return f"<CpuModel {self.name}: {self.profile}, XCR0 {self.xcr0_mask}, XSS {self.xss_mask}>"


def _profile(vendor: str, record: "Leaves") -> str:
    """The row of `PROFILES` for a CPU: by vendor and features, never by family and model."""
    if vendor not in _POINTER_VENDORS:
        return "intel"
    return "amd-zen5" if _bit(record, *_POINTER_FEATURE) else "amd-legacy"


def _knobs(profile: str, record: "Leaves") -> "Mapping[str, object]":
    """The profile's knobs, with what leaf 7 says of the x87 pointers where the record has it."""
    knobs = dict(PROFILES[profile])
    if (7, 0) in record:
        knobs["fdp_excptn_only"] = _bit(record, 7, 0, "ebx", 6)
        knobs["fcs_fds"] = "zero" if _bit(record, 7, 0, "ebx", 13) else "kept"
    return MappingProxyType(knobs)


def _bit(record: "Mapping[tuple[int, int], Registers]", leaf: int, subleaf: int, register: str, bit: int) -> bool:
    values = record.get((leaf, subleaf))
    return values is not None and bool(values[REGISTERS.index(register)] >> bit & 1)


def _restored(
    record: "Leaves",
    rows: "list[tuple[Component, int, int | None, bool, bool, bool]]",
    user: int,
    supervisor: int,
    profile: str,
    name: str,
    vendor: str,
    brand: str,
    instructions: "tuple[str, ...]",
    provenance: str,
) -> CpuModel:
    """A pickled model."""
    made = [ComponentRow(*row) for row in rows]
    known = set(instructions)
    return CpuModel._made(
        record, made, user, supervisor, profile,
        name=name, vendor=vendor, brand=brand, instructions=known, provenance=provenance,
    )
