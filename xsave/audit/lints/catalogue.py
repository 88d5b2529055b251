"""The catalogue of lints: one row each, and what a lint that fires leaves behind.

A row's severity is the lint's, wherever it fires: "error" is state that is lost, corrupt or refused; "warning" what
goes wrong on another CPU, in another program or for the next reader; "note" what a correct program may do too.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

__all__ = ["LINTS", "Finding", "Lint", "markdown"]

SEVERITIES = ("error", "warning", "note")


class Lint:
    """One row of the catalogue.

    `id`, stable; `severity`: "error", "warning" or "note"; `title`; `section` of the manual that states the rule;
    `bug`: the real bug behind it, in one sentence with its source.
    """

    __slots__ = ("bug", "id", "section", "severity", "title")

    def __init__(self, id: str, severity: str, title: str, section: str, bug: str) -> None:
        self.id = id
        self.severity = severity
        self.title = title
        self.section = section
        self.bug = bug

    def __repr__(self) -> str:
        return f"<lint {self.id} ({self.severity}): {self.title}>"


class Finding:
    """One lint that fired.

    `id`: a key of `LINTS`; `message` names the culprit, the place and the rule; `offset`: the first byte to blame,
    counted from the start of the area, or None where no byte is; `where`: what was looked at ("area", "thread 17");
    `tid`: the thread of an image, else None. `severity` and `section` are the catalogue's.
    """

    __slots__ = ("id", "message", "offset", "tid", "where")

    def __init__(
        self, id: str, message: str, offset: "int | None" = None, where: str = "area", tid: "int | None" = None
    ) -> None:
        self.id = id
        self.message = message
        self.offset = offset
        self.where = where
        self.tid = tid

    @property
    def severity(self) -> str:
        """The lint's severity: "error", "warning" or "note"."""
        return LINTS[self.id].severity

    @property
    def section(self) -> str:
        """Where the manual states the rule."""
        return LINTS[self.id].section

    def __repr__(self) -> str:
        return f"<{self.severity} {self.id}: {self.where}: {self.message}>"


_E, _W, _N = SEVERITIES

_ROWS = (
    # Areas.
    Lint("L-XSTATE-XCR0", _E, "XSTATE_BV has a component that XCR0 does not enable", "SDM1 13.8.1",
         "KVM before 2022 saved PKRU for guests without it, and such a virtual machine could not migrate to a host "
         "that keeps guests to their own components (bloomberg/chef-bcpc pull request 2278)"),
    Lint("L-XSTATE-MASK", _E, "XSTATE_BV has a component for which the area's layout has no place", "SDM1 13.4.3",
         "rr set PKRU in XSTATE_BV because CPUID had it, though the kernel had not enabled it: PTRACE_SETREGSET failed "
         "with EINVAL (rr-debugger/rr issue 2655)"),
    Lint("L-XSTATE-XFD", _E, "XSTATE_BV has a component that IA32_XFD disables", "SDM1 13.14",
         "KVM, 2026: kernel code saved a guest's tiles between the guest's write of IA32_XFD and the exit, and the "
         "host's XRSTOR took #NM"),
    Lint("L-XSTATE-XCOMP", _E, "XSTATE_BV has a component that XCOMP_BV lacks", "SDM1 13.8.2",
         "Windows leaves bits 0 and 1 out of CompactionMask: who puts them into XSTATE_BV alone makes an area that "
         "XRSTOR refuses (getsentry/sentry-native, tests/fixtures/minidump.dmp)"),
    Lint("L-XCOMP-XCR0", _E, "XCOMP_BV has a component that XCR0 | IA32_XSS does not enable", "SDM1 13.12",
         "a guest resumed with IA32_XSS 0 took #GP at its first XRSTORS, of an area with CET_U (superfly/firecracker "
         "pull request 10)"),
    Lint("L-XCOMP-FORMAT", _E, "XCOMP_BV is not that of the area's format and mask", "SDM1 13.4.2",
         "ptrace put a bogus XCOMP_BV into a task's area, XRSTOR faulted, and another task's registers stayed live "
         "(CVE-2017-15537, Linux 814fb7bb7db5)"),
    Lint("L-HEADER-RESERVED", _E, "a reserved byte of the header is not 0, and XRSTOR faults on it", "SDM1 13.8",
         "a kernel saved into memory that was not zeroed: a save writes 16 bytes of the header at most, and XRSTOR "
         "faults on the rest (nuta/kerla pull request 136)"),
    Lint("L-HEADER-TAIL", _W, "a reserved byte of the header is not 0, on which no CPU faults in the standard format",
         "SDM1 13.4.2", "KVM_SET_XSAVE and PTRACE_SETREGSET answer EINVAL to areas that XRSTOR loads: they look at all "
         "48 reserved bytes, standard XRSTOR at 8 (measured, Linux 6.18)"),
    Lint("L-MXCSR-RESERVED", _E, "MXCSR has reserved bits where it is loaded", "SDM1 10.2.3",
         "CRIU's fault injection wrote random MXCSR bits, and the kernel refused them with EINVAL "
         "(checkpoint-restore/criu pull request 1880, Linux 145e9e0d8c6f)"),
    Lint("L-MXCSR-ZERO", _W, "MXCSR is 0: every SIMD floating-point exception is unmasked", "SDM1 10.2.3",
         "FEX did not save MXCSR at a signal, it came back as 0, and a game died of an exception that it had masked "
         "(FEX-Emu/FEX pull request 5401)"),
    Lint("L-AREA-CUT", _E, "the area ends before a component that XSTATE_BV has", "SDM1 13.4.3",
         "CRIU, mshv and KVM_GET_XSAVE keep 4,096 bytes, which end inside TILEDATA (checkpoint-restore/criu issue "
         "1448, rust-vmm/mshv issue 295)"),
    Lint("L-STALE-INIT", _N, "a component in its initial configuration has bytes that are neither initial nor 0",
         "SDM1 13.6", "gem5 filled an area in and left XSTATE_BV at 0, so that KVM_SET_XSAVE made all of it initial "
         "(gem5/gem5 issue 296); saves with the init optimisation leave stale bytes too"),
    Lint("L-STALE-LEAK", _E, "a core's note has foreign bytes where its writer puts initial values", "SDM1 13.6",
         "Linux before mid-2020 left parts of the buffer as they were: kernel heap, readable text among it, in core "
         "files (Linux 9e4636545933; lldb's fixture linux-x86_64.core)"),
    Lint("L-TILE-LOST", _E, "tiles are in use and the writer kept no byte of them", "SDM1 13.5.14",
         "CRIU 4.2 writes XSTATE_BV 600E7H without TILECFG and TILEDATA, exits with 0, and the restored process has "
         "initial tiles (measured)"),
    Lint("L-TILE-ZEROS", _N, "tiles are in use and all zero", "SDM1 13.5.14",
         "erratum SPR4: a VM exit during XSAVE may store live tiles as zeros; a thread after TILEZERO looks the same"),
    Lint("L-TILE-CONFIG", _W, "TILECFG is in use with a value that LDTILECFG refuses: XRSTOR makes it initial",
         "SDM1 13.5.14", "Bochs stored rows and colsb of TILECFG in each other's place (its file HISTORY)"),
    Lint("L-TILE-SHAPE", _N, "tile state that no instruction but XRSTOR makes or reaches", "SDM2 TILELOADD",
         "Bochs wrote 8 of the 16 rows of a tile and had XINUSE of tiles inverted (its file HISTORY)"),
    Lint("L-PKRU-OPEN", _N, "PKRU is 0: every protection key gives all access", "SDM3A 4.6.2",
         "rr wrote areas without PKRU in XSTATE_BV, which stands for 0, and Linux 5.2 kept the old value "
         "(rr-debugger/rr pull request 2651)"),
    # CPUID.
    Lint("L-CPUID-FEATURE", _W, "a component is enumerated and the CPUID bit that exposes it is 0", "SDM1 13.2",
         "Zen 2 enumerates PKRU with 7.0:ECX[3] = 0, and tools that go by leaf 0DH alone offer it "
         "(rr-debugger/rr issue 2655)"),
    Lint("L-CPUID-COMPONENT", _E, "a CPUID bit is 1 and the user component that it needs is not enumerated",
         "SDM1 13.2", "hosts gave guests features whose state XCR0 could not enable: #UD at their first use "
         "(microsoft/openvmm pull request 2691)"),
    Lint("L-CPUID-EBX", _E, "CPUID(0DH,0).EBX is not the size of the standard area for XCR0", "SDM1 13.2",
         "COCONUT-SVSM answered with the size for XCR0 = 1 whatever XCR0 was, so that areas were too small "
         "(coconut-svsm/svsm issue 1057)"),
    Lint("L-CPUID-EBX1", _E, "CPUID(0DH,1).EBX is not the size of the compacted area for XCR0 | IA32_XSS",
         "SDM1 13.2", "sums that forget the alignment to 64 bytes: Xen in 2015, early KVM, Bochs, and a TDX host in "
         "2025 (microsoft/openvmm issue 708)"),
    Lint("L-CPUID-ECX", _E, "CPUID(0DH,0).ECX is not the size of the standard area for all user components",
         "SDM1 13.2", "Bochs, and Linux before 2025, took the end of the highest component for the size: wrong since "
         "APX (19) lies below the others"),
    # Masks, of CPUID and of configurations.
    Lint("L-AMX-HALF", _E, "an XCR0 has one of TILECFG and TILEDATA", "SDM1 13.3",
         "KVM offered TILECFG to guests without the permission for TILEDATA, and their XSETBV took #GP "
         "(Linux 55cd57b596e8)"),
    Lint("L-CET-PAIR", _W, "the IA32_XSS on offer has one of CET_U and CET_S", "SDM1 13.3",
         "KVM offers CET state in pairs or not at all, and the TDX module refuses an XFAM with one bit of the pair "
         "(TDX module 1.5, check_xfam)"),
    Lint("L-XCR0-SUPERVISOR", _E, "an XCR0 has a supervisor component", "SDM1 13.3",
         "Cloud Hypervisor took 82FFH for the user part of an XFAM: bit 15 is LBR "
         "(cloud-hypervisor/cloud-hypervisor issue 4170)"),
    Lint("L-MASK-UNSUPPORTED", _E, "XCR0, IA32_XSS or IA32_XFD has a bit that the CPU or the VMM does not offer",
         "SDM1 13.3", "KVM_SET_XCRS failed with EINVAL: a snapshot with XCR0 E7H on a host without AVX-512 "
         "(0vercl0k/wtf issue 18)"),
    # Configurations and snapshots.
    Lint("L-SAVE-NARROW", _E, "the save mask lacks a component that is enabled", "SDM1 13.7",
         "glibc's TLS descriptors did not save vector state, which their callers had live (glibc bug 31372); gem5's "
         "checkpoints lacked AVX (gem5/gem5 issue 958)"),
    Lint("L-SAVE-OVER", _W, "the save mask has a component that the guest does not", "SDM1 13.7",
         "KVM, 2022 and 2023: state that the guest never had makes migration to a smaller host fail "
         "(bloomberg/chef-bcpc pull request 2278)"),
    Lint("L-RESTORE-NARROW", _W, "the restore mask lacks a component that was saved", "SDM1 13.8",
         "KVM saved PKRU with a guest's state and did not load it (bloomberg/chef-bcpc pull request 2278)"),
    Lint("L-BUFFER-SMALL", _E, "the save writes past the end of its buffer", "SDM1 13.7",
         "a buffer of 2,560 bytes, enough until CPUs with AVX-512 or AMX ran the code (rust-lang/stdarch pull "
         "request 1934)"),
    Lint("L-BUFFER-COMPACT", _E, "the size of the compacted area is used for a standard one", "SDM1 13.4.3",
         "Asterinas sizes its buffer by CPUID(0DH,1).EBX and saves with XSAVE (asterinas/asterinas issue 3920)"),
    Lint("L-FORMAT", _E, "who restores does not take the format that is saved", "SDM1 13.8",
         "KVM handed the host's compacted areas to user space, which expects the standard format (Linux "
         "df1daba7d1cb)"),
    Lint("L-XSS-DIFFERS", _E, "IA32_XSS differs between save and restore", "SDM1 13.12",
         "ACRN saved under the IA32_XSS of the firmware (PT) and restored under the guest's 0: #GP in the hypervisor "
         "(projectacrn/acrn-hypervisor pull request 6435)"),
    Lint("L-SNAPSHOT-XSS", _E, "a snapshot lacks IA32_XSS or IA32_XFD, and its areas need bits beyond XCR0",
         "SDM1 13.12", "Firecracker's snapshots lacked IA32_XSS: guests resumed with 0 and lost their state at #GP "
         "(firecracker-microvm/firecracker pull request 5972)"),
)  # fmt: skip

LINTS: "Final[Mapping[str, Lint]]" = {row.id: row for row in _ROWS}


def markdown() -> str:
    """The catalogue as the table of docs/audit.md, a line a lint."""
    lines = ["| id | severity | fires where | manual | the real bug behind it |", "|---|---|---|---|---|"]
    for row in LINTS.values():
        cells = (f"`{row.id}`", row.severity, row.title, row.section, row.bug)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"
