"""Random sequences of all instructions on the processor and on the slow model: pages missing or read-only, operands
misaligned or not canonical, registers written in between, XFD armed, both optimisations on. Every fault (with error
code and CR2), all memory, all registers and XINUSE have to be the same after every step."""

from collections.abc import Callable
from random import Random

import pytest
import reference

from xsave import CpuModel, Fault, Memory, Processor

from .test_against_reference import controls, random_area, random_mask

MODELS = ("SapphireRapids", "DiamondRapids", "AlderLake", "EPYC-Genoa", "EPYC-Milan", "Bulldozer")
SEQUENCES, STEPS = 60, 12
PAGE, PAGES, BASE = 0x1000, 8, 0x40000000
TILES = 1 << 17 | 1 << 18


class Pair:
    """The processor and the slow model, in the same state, over two copies of the same memory."""

    def __init__(self, name: str, rng: Random) -> None:
        self.name, self.rng, self.table = name, rng, reference.CPUS[name]
        c = controls(rng, self.table)
        self.amd = self.table["profile"] != "intel"
        # What AMD's optimisations make of compatibility mode was not measured.
        self.xcr0, self.mode = c["xcr0"], 64 if self.amd else c["mode"]
        everything = self.table["xcr0"] | self.table["xss"]
        state = reference.random_state(rng, everything, sparse=0.4, pending_pointers=self.amd)
        state.pop("IA32_RTIT_CTL", None)
        more = {"ac": rng.random() < 0.3, "cr0_ts": rng.random() < 0.03}
        more["modified_opt"] = rng.random() < 0.8
        more["cpl"] = rng.choice((0, 3))
        self.slow = reference.Cpu(name, state, xcr0=c["xcr0"], xss=c["xss"], xfd=c["xfd"], **more)
        use = reference.non_initial(self.slow.registers) if not self.amd else self.slow.xinuse
        self.slow.xinuse = use
        self.slow.mode64 = self.mode == 64
        self.fast = Processor(
            CpuModel.named(name),
            xcr0=c["xcr0"],
            ia32_xss=c["xss"],
            ia32_xfd=c["xfd"],
            mode=self.mode,
            **more,
        )
        self.fast.load(state, xinuse=use)
        self.allowed = c["xcr0"] | (c["xss"] if more["cpl"] == 0 else 0)
        self.new_memory()

    def new_memory(self) -> None:
        self.bytes = [bytearray(self.rng.randbytes(PAGE * PAGES))]
        self.bytes.append(bytearray(self.bytes[0]))
        self.memory = Memory(), reference.Memory()
        for page in range(PAGES):
            present = self.rng.random() < 0.92
            writable = self.rng.random() < 0.97
            if present:
                for memory, data in zip(self.memory, self.bytes, strict=True):
                    part = memoryview(data)[page * PAGE : (page + 1) * PAGE]
                    memory.map(BASE + page * PAGE, part, writable)

    def put(self, offset: int, data: bytes) -> None:
        for each in self.bytes:
            part = data[: max(0, len(each) - offset)]
            each[offset : offset + len(part)] = part

    def both(self, name: str, *arguments: object, memory: bool, **options: object) -> None:
        """One instruction on both, with the memory before or after the first argument where it has one."""
        fast, slow = getattr(self.fast, "try_" + name), getattr(self.slow, name)
        if memory:
            at = 1 if name.startswith("tile") else 0
            got = fast(*arguments[:at], self.memory[0], *arguments[at:], **options)
            want = slow(*arguments[:at], self.memory[1], *arguments[at:], **options)
        else:
            got, want = fast(*arguments, **options), slow(*arguments, **options)
        what = f"{name} {arguments} {options}: {got}, expected {want}"
        assert (got.vector if isinstance(got, Fault) else None) == (want[0] if want else None), what
        if isinstance(got, Fault):
            assert got.error_code == self.slow.error_code, what
            assert got.vector != "#PF" or got.offset == want[2], what
        self.same(what)

    def same(self, what: str) -> None:
        assert self.bytes[0] == self.bytes[1], what
        got = self.fast.registers()
        wrong = [name for name, value in self.slow.registers.items() if got[name] != value]
        assert not wrong, f"{what}: {wrong}"
        assert int(self.fast.xinuse) == self.slow.xinuse, f"{what}: {int(self.fast.xinuse):#x} {self.slow.xinuse:#x}"
        assert int(self.fast.ia32_xfd_err) == self.slow.xfd_err, what

    # --- steps --------------------------------------------------------------------------------------------------------

    def where(self, alignment: int = 64) -> dict[str, object]:
        """An operand: mostly at the same place, so that the modified optimisation has something to skip."""
        rng = self.rng
        address = BASE + rng.choice((0, 0, 0, PAGE - 128, rng.randrange(0, PAGE, alignment)))
        if rng.random() < 0.04:
            address += rng.choice((1, 4, 8, 16, 32))
        if rng.random() < 0.02 and self.mode == 64:
            address += 0x0000800000000000
        return {"address": address, "segment": rng.choice(("ds", "ds", "ss"))}

    def save(self) -> None:
        insn = self.rng.choice(("xsave", "xsaveopt", "xsaveopt", "xsavec", "xsaves"))
        mask = random_mask(self.rng, self.allowed)
        self.both(insn, mask, memory=True, rexw=self.rng.random() < 0.7, **self.where())

    def restore(self) -> None:
        insn = self.rng.choice(("xrstor", "xrstor", "xrstors"))
        where = self.where()
        if self.rng.random() < 0.9:
            allowed = self.allowed if insn == "xrstors" else self.xcr0
            self.put(int(where["address"]) % PAGE, random_area(self.rng, self.name, allowed)[:12000])
        mask = random_mask(self.rng, self.allowed)
        self.both(insn, mask, memory=True, rexw=self.rng.random() < 0.7, **where)

    def fx(self) -> None:
        where = self.where(16)
        if self.rng.random() < 0.7:
            self.put(int(where["address"]) % PAGE + 24, self.rng.getrandbits(16).to_bytes(4, "little"))
        self.both(self.rng.choice(("fxsave", "fxrstor")), memory=True, rexw=self.rng.random() < 0.7, **where)

    def write(self) -> None:
        rng = self.rng
        names = [n for n in self.slow.registers if reference.vector_number(n) is not None or n[0] == "k"]
        name = rng.choice(names)
        n = reference.vector_number(name)
        if n is not None:
            if n >= 8 and self.mode == 32:
                return
            widest = len(self.slow.registers[name])
            size = rng.choice([each for each in (16, 32, 64) if each <= widest]) if n < 16 else 64
            name = {16: "xmm", 32: "ymm", 64: "zmm"}[size] + str(n)
            value = rng.choice((bytes(size), rng.randbytes(size), rng.randbytes(size // 2) + bytes(size // 2)))
            vex = rng.random() < 0.5 and widest > 16
            if self.amd and size == 16 and not vex and not any(value):
                value = b"\1" + value[1:]  # PXOR and its like: see test_reference.py
            self.if_allowed(
                lambda: self.fast.write(name, value, vex=vex), lambda: self.slow.write(name, value, vex=vex)
            )
        else:
            value = rng.choice((0, rng.getrandbits(64)))
            self.if_allowed(lambda: self.fast.write(name, value), lambda: self.slow.write(name, value))
        self.same(f"write {name} {value!r}")

    def if_allowed(self, fast: Callable[[], object], slow: Callable[[], object]) -> None:
        """The slow model writes registers without asking; the processor asks CR0.TS and XCR0."""
        try:
            fast()
        except Fault as fault:
            assert 0xE6 & ~self.slow.xcr0 if fault.vector == "#UD" else self.slow.cr0_ts and fault.vector == "#NM"
        else:
            slow()

    def whole(self) -> None:
        insn = self.rng.choice(("vzeroupper", "vzeroall", "fninit", "ldmxcsr"))
        if insn == "ldmxcsr":
            value = self.rng.getrandbits(16)
            self.if_allowed(lambda: self.fast.ldmxcsr(value), lambda: self.slow.ldmxcsr(value))
        else:
            self.if_allowed(getattr(self.fast, insn), getattr(self.slow, insn))
        self.same(insn)

    def tiles(self) -> None:
        rng = self.rng
        insn = rng.choice("ldtilecfg sttilecfg tileloadd tileloadd tileloaddt1 tilestored tilezero tilerelease".split())
        where = self.where(1)
        if insn == "ldtilecfg":
            config = bytearray(64)
            config[0] = rng.choice((1, 1, 1, 1, 1, 0, 2))
            config[1] = rng.choice((0, 0, 0, 3, 15))
            for t in range(8):
                config[16 + 2 * t], config[48 + t] = rng.choice(
                    ((64, 16), (0, 0), (rng.randint(1, 16) * 4, rng.randint(1, 16)))
                )
            if rng.random() < 0.2:
                config[rng.randrange(64)] = rng.randrange(256)
            self.put(int(where["address"]) % PAGE, bytes(config))
            self.both(insn, memory=True, **where)
        elif insn == "sttilecfg":
            self.both(insn, memory=True, **where)
        elif insn == "tilezero":
            self.both(insn, rng.randrange(8), memory=False)
        elif insn == "tilerelease":
            self.both(insn, memory=False)
        else:
            stride = rng.choice((0, 64, 64, 300, -64, 1 << 40))
            self.both(insn, rng.randrange(8), stride, memory=True, **where)


@pytest.mark.parametrize("name", MODELS)
def test_sequences(name):
    for seed in range(SEQUENCES):
        rng = Random(f"{name} {seed}")
        pair = Pair(name, rng)
        steps = [pair.save, pair.save, pair.restore, pair.restore, pair.restore, pair.write, pair.whole, pair.fx]
        if pair.table["xcr0"] & TILES:
            steps += [pair.tiles, pair.tiles]
        for _ in range(STEPS):
            rng.choice(steps)()
