"""Random register states through this CPU's XSAVE and XSAVEC, and what the package's codec makes of the images.

What is loaded is placed by the independent model's tables with offsets from CPUID, in columns, so that ten thousand
states cost seconds. As a program it asks for AMX first, which a process cannot give back:
`python -m tests.silicon.codec_images COUNT SEED` prints one line per difference.
"""

import sys

import numpy as np
import reference

from xsave import (
    COMPACTED,
    STANDARD,
    CpuModel,
    Layout,
    LayoutError,
    _native,
    decode_many,
    same_state_many,
    transcode_many,
)

ROWS = 125
REPETITIONS = 3
FILLER = 0xA5
TILEDATA = 18
Columns = dict[str, np.ndarray]
WIDTHS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def this_cpu() -> reference.CpuTable:
    leaves = {(leaf, 0): _native.cpuid(leaf, 0) for leaf in (0, 0xD, 0x80000008)}
    leaves |= {(0xD, i): _native.cpuid(0xD, i) for i in range(1, 63)}
    return reference.cpu_from_cpuid(leaves)


def _numbers(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.integers(0, 256, (ROWS, width), dtype=np.uint8).view(WIDTHS[width])[:, 0]


def _tile_config(rng: np.random.Generator) -> np.ndarray:
    # Palette 1 with legal shapes: any other image would load as the initial one (SDM1 13.5.14).
    config = np.zeros((ROWS, 64), np.uint8)
    config[:, 0] = 1
    config[:, 1] = rng.integers(0, 16, ROWS)
    some = rng.integers(0, 2, (ROWS, 8), dtype=np.uint8)
    config[:, 16:32:2] = some * rng.integers(1, 17, (ROWS, 8), dtype=np.uint8) * 4
    config[:, 48:56] = some * rng.integers(1, 17, (ROWS, 8), dtype=np.uint8)
    return config


def random_columns(rng: np.random.Generator, cpu: reference.CpuTable, mask: int) -> Columns:
    """A value for every register of `mask`, vector registers as zmm, of the kind that XRSTOR loads as it is."""
    found: Columns = {"mxcsr": _numbers(rng, 4) & np.uint32(0xFFFF)}
    for i in reference.bits(mask):
        for name, _, width, integer in reference.FIELDS.get(i, []):
            if name == "tilecfg":
                found[name] = _tile_config(rng)
            elif integer:
                found[name] = _numbers(rng, width)
            else:
                found[name] = rng.integers(0, 256, (ROWS, width), dtype=np.uint8)
    for n in range(32):
        found[f"zmm{n}"] = rng.integers(0, 256, (ROWS, 64), dtype=np.uint8)
    if mask & 1:
        found["fcw"] = found["fcw"] & np.uint16(0x1F3F) | np.uint16(0x40)
        pending = (found["fsw"] & ~found["fcw"] & np.uint16(0x3F)) != 0
        found["fsw"] = found["fsw"] & np.uint16(0x7F7F) | np.where(pending, 0x8080, 0).astype(np.uint16)
        found["fop"] &= np.uint16(0x7FF)
        for name in ("fip", "fdp"):  # canonical whatever the width
            found[name] &= np.uint64((1 << 47) - 1)
        if cpu["profile"] != "intel":  # kept only while an exception is pending
            for name in ("fop", "fip", "fdp"):
                found[name] = np.where(pending, found[name], 0).astype(found[name].dtype)
    if "pkru" in found:  # key 0 stays open, or nothing could be read any more
        found["pkru"] &= ~np.uint32(3)
    return found


def place(columns: Columns, cpu: reference.CpuTable, mask: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Standard images of these registers on random bytes, headers zero."""
    images = rng.integers(0, 256, (ROWS, size), dtype=np.uint8)
    images[:, 512:576] = 0
    slots, _ = reference.layout(cpu, mask, reference.STANDARD)
    for i, (start, _) in slots.items():
        for name, offset, width, _ in reference.FIELDS.get(i, []):
            images[:, start + offset : start + offset + width] = columns[name].view(np.uint8).reshape(ROWS, width)
        if i in reference.VECTOR_PIECES:
            numbers, low, high, position = reference.VECTOR_PIECES[i]
            for n in numbers:
                end = position + high - low
                images[:, start + position : start + end] = columns[f"zmm{n}"][:, low:high]
                position = end
    images[:, 24:28] = columns["mxcsr"].view(np.uint8).reshape(ROWS, 4)
    return images


def loaded(columns: Columns, in_use: np.ndarray) -> Columns:
    """What the registers hold after XRSTOR of all components, `in_use` those that XSTATE_BV lists (SDM1 13.8.1)."""
    live = {i: (in_use >> np.uint64(i) & np.uint64(1)).astype(bool) for i in range(63)}
    found = {"mxcsr": columns["mxcsr"]}
    initial = reference.initial_values(n for n in columns if n[:3] != "zmm")
    for name, column in columns.items():
        if name == "mxcsr":
            continue
        if name[:3] == "zmm":
            found[name] = column.copy()
            for numbers, low, high, _ in (reference.VECTOR_PIECES[i] for i in reference.VECTOR_PIECES):
                if int(name[3:]) in numbers:
                    part = next(i for i, row in reference.VECTOR_PIECES.items() if row[:3] == (numbers, low, high))
                    found[name][~live[part], low:high] = 0
            continue
        (component,) = reference.components_of(name)
        value = initial[name]
        if isinstance(value, bytes):
            found[name] = np.where(live[component][:, None], column, np.frombuffer(value, np.uint8))
        else:
            found[name] = np.where(live[component], column, value).astype(column.dtype)
    return found


def expected(state: Columns, names: list[str], mask: int, mxcsr_mask: int) -> Columns:
    """The columns that an image of `mask` must decode to."""
    found = {}
    for name in names:
        if name == "mxcsr_mask":
            found[name] = np.full(ROWS, mxcsr_mask, np.uint32)
        elif name[:3] in reference.VECTOR_SIZES:
            wide = state[f"zmm{name[3:]}"].copy()
            for i, (numbers, low, high, _) in reference.VECTOR_PIECES.items():
                if int(name[3:]) in numbers and not mask >> i & 1:
                    wide[:, low:high] = 0
            found[name] = wide[:, : reference.VECTOR_SIZES[name[:3]]]
        else:
            found[name] = state[name]
    return found


def written(cpu: reference.CpuTable, mask: int, fmt: str, size: int, present: int) -> np.ndarray:
    """Which bytes of an image the instruction writes for the components `present`, headers and MXCSR left out."""
    found = np.zeros(size, bool)
    slots, _ = reference.layout(cpu, mask, fmt)
    for i in reference.bits(present):
        start, length = slots[i]
        length = 4 if i == reference.PKRU else length  # hardware may leave the upper half alone
        for offset, count in reference.LEGACY_EXTENTS.get(i, [(0, length)]):
            found[start + offset : start + offset + count] = True
    return found


def save(instruction: str, images: np.ndarray, mask: int, **options: object) -> tuple[np.ndarray, list[str]]:
    outs = np.full((ROWS, _native.area_size()), FILLER, np.uint8)
    outs[:, 512:576] = 0
    traps = _native.roundtrip_many(images, outs, ROWS, save=instruction, save_mask=mask, **options)
    return outs, [f"{instruction} {mask:#x}: {trap}" for trap in traps]


def u64(areas: np.ndarray, offset: int) -> np.ndarray:
    return areas[:, offset : offset + 8].copy().view(np.uint64)[:, 0]


def judge(
    rng: np.random.Generator, cpu: reference.CpuTable, model: CpuModel, allowed: int, mask: int
) -> list[str]:
    """What is wrong with ROWS states saved with EDX:EAX = `mask`."""
    xcr0, size = _native.xgetbv(0), _native.area_size()
    rfbm = mask & xcr0
    columns = random_columns(rng, cpu, xcr0)
    in_use = rng.integers(0, 2**63, ROWS, dtype=np.uint64)
    in_use[rng.random(ROWS) < 0.5] = 2**63 - 1
    in_use &= np.uint64(xcr0 & allowed)
    images = place(columns, cpu, xcr0, size, rng)
    images[:, 512:520] = in_use.view(np.uint8).reshape(ROWS, 8)
    state = loaded(columns, in_use)
    wrong: list[str] = []

    def check(what: str, good: np.ndarray | bool) -> None:
        if not np.all(good):
            row = int(np.argmin(good)) if isinstance(good, np.ndarray) else 0
            wrong.append(f"mask {mask:#x}, row {row}, XSTATE_BV {int(in_use[row]):#x}: {what}")

    areas = {}
    kinds = [("XSAVE", STANDARD)] + ([("XSAVEC", COMPACTED)] if cpu["d1eax"] >> 1 & 1 else [])
    for instruction, fmt in kinds:
        layout = Layout(model, rfbm, fmt)
        areas[fmt], traps = save(instruction, images, mask)
        wrong += traps
        found = decode_many(areas[fmt], layout)
        names = reference.registers(rfbm, reference.COMPACTED if fmt else reference.STANDARD)
        check(f"{instruction}: other registers than {names}", sorted(found) == sorted(names))
        for name, column in expected(state, names, rfbm, cpu["mxcsr_mask"]).items():
            same = found[name] == column
            check(f"{instruction}: {name}", same.all(axis=1) if same.ndim == 2 else same)
    # the image that was loaded is an area too
    whole = Layout(model, xcr0, STANDARD)
    for name, column in expected(state, list(decode_many(images[:1], whole)), xcr0, 0).items():
        if name != "mxcsr_mask":
            same = decode_many(images, whole, [name])[name] == column
            check(f"loaded image: {name}", same.all(axis=1) if same.ndim == 2 else same)
    if COMPACTED not in areas:
        return wrong

    standard, compacted = Layout(model, rfbm, STANDARD), Layout(model, rfbm, COMPACTED)
    no_home = bool(rfbm & 4 and not rfbm & 2)  # XSAVE writes MXCSR for AVX, XSAVEC does not
    if no_home and (columns["mxcsr"] != reference.MXCSR_INIT).any():
        try:
            transcode_many(areas[STANDARD], standard, compacted)
            wrong.append(f"mask {mask:#x}: an MXCSR that is lost raises nothing")
        except LayoutError:
            pass
    lost = "drop" if no_home else "raise"
    ours = transcode_many(areas[STANDARD], standard, compacted, lost=lost)
    theirs = areas[COMPACTED]
    live = u64(theirs, 512)
    # An interrupt between the two saves may bring SSE into use, or another component that has initial values.
    differ = (u64(ours, 512) ^ live) & ~np.uint64(2)
    check("XSTATE_BV of XSAVE made compacted", differ & ~np.uint64(rfbm & ~1) == 0)
    for i in reference.bits(rfbm & ~3):
        rows = (differ >> np.uint64(i) & np.uint64(1)).astype(bool)
        bytes_ = written(cpu, rfbm, reference.COMPACTED, compacted.size, 1 << i)
        used = np.where((live >> np.uint64(i) & np.uint64(1)).astype(bool)[:, None], theirs[:, : compacted.size], ours)
        check(f"component {i} in use in one save alone", ~rows | (used[:, bytes_] == 0).all(axis=1))
    check("XCOMP_BV of XSAVE made compacted", u64(ours, 520) == u64(theirs, 520))
    both = u64(ours, 512) & live
    for i in reference.bits(rfbm):
        rows = (both >> np.uint64(i) & np.uint64(1)).astype(bool)
        bytes_ = written(cpu, rfbm, reference.COMPACTED, compacted.size, 1 << i)
        same = (ours == theirs[:, : compacted.size])[:, bytes_].all(axis=1)
        check(f"component {i} of XSAVE made compacted", same | ~rows)
        if i == 1:
            check("MXCSR of XSAVE made compacted", (ours[:, 24:32] == theirs[:, 24:32]).all(axis=1) | ~rows)
            check("MXCSR without SSE", rows | (columns["mxcsr"] == reference.MXCSR_INIT))

    ours, theirs = transcode_many(areas[COMPACTED], compacted, standard), areas[STANDARD]
    check("XSTATE_BV of XSAVEC made standard", (u64(ours, 512) ^ u64(theirs, 512)) & ~(differ | np.uint64(2)) == 0)
    bytes_ = written(cpu, rfbm, reference.STANDARD, standard.size, rfbm)
    if rfbm & 2:
        bytes_[24:32] = True
    check("XSAVEC made standard", (ours == theirs[:, : standard.size])[:, bytes_].all(axis=1))
    if not no_home:
        check("same_state", same_state_many(areas[STANDARD], standard, areas[COMPACTED], compacted))

    if rfbm == xcr0:  # what we make, the CPU takes
        again = np.full((ROWS, size), FILLER, np.uint8)
        transcode_many(areas[STANDARD], standard, compacted, again)
        back, traps = save("XSAVE", again, mask)
        wrong += [f"XRSTOR of our compacted area: {trap}" for trap in traps]
        check("restored from our compacted area", same_state_many(back, standard, areas[STANDARD], standard))
    return wrong


def run(count: int, seed: int, allowed: int) -> list[str]:
    """Takes `count` random states through this CPU, ROWS of them with one EDX:EAX each; all that was wrong.

    The masks: XCR0, each bit alone, then all subsets of XCR0 in random order with random bits outside it.
    """
    rng = np.random.default_rng(seed)
    cpu, model, xcr0 = this_cpu(), CpuModel.host(), _native.xgetbv(0)
    bits = reference.bits(xcr0)
    masks = [xcr0, (1 << 64) - 1, *(1 << i for i in bits)]
    for chosen in rng.permutation(1 << len(bits)):
        subset = sum(1 << bit for place, bit in enumerate(bits) if chosen >> place & 1)
        masks.append(subset | int(rng.integers(0, 2**63)) & ~xcr0)
    wrong: list[str] = []
    for group in range(-(-count // ROWS)):
        mask = masks[group % len(masks)]
        found = judge(np.random.default_rng([seed, group]), cpu, model, allowed, mask)
        # A context switch between load and save may bring a component into use; what is wrong is wrong every time.
        for _ in range(REPETITIONS):
            if not found:
                break
            again = set(judge(np.random.default_rng([seed, group]), cpu, model, allowed, mask))
            found = [line for line in found if line in again]
        wrong += found
    return wrong


if __name__ == "__main__":
    _native.arch_prctl(0x1023, TILEDATA)
    differences = run(int(sys.argv[1]), int(sys.argv[2]), -1)
    print(*differences, sep="\n")
    sys.exit(bool(differences))
