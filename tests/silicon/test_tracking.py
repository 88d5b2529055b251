"""XINUSE and XMODIFIED of AMD parts with XSaveErPtr: the rule of `tracking`, beside the CPU."""

from collections.abc import Callable

import pytest

from tests import skips
from tests.silicon.steady import steadily
from xsave import Host

pytestmark = [skips.needs_native(), *map(skips.needs_cpu, ("xsaveerptr", "avx512f", "xgetbv1"))]

if skips.has_native() and {"xsaveerptr", "avx512f"} <= skips.cpu_flags():
    from tests.silicon import tracking

WIDE = bytes(64)
INITIAL = bytes(24) + b"\x80\x1f" + bytes(4096 - 26)  # an area with nothing in it but MXCSR
TRY = 9  # a context switch settles what is in use


def xinuse(*before: tuple[object, ...], state: "dict[str, bytes] | None" = None) -> int:
    """XGETBV(1) behind these instructions, the most frequent of a few runs."""
    seen = [int(Host.execute("FNOP", INITIAL, before=before, state=state or {}).xinuse_before or 0) for _ in range(TRY)]
    return max(set(seen), key=seen.count)


def test_random_sequences() -> None:
    steps, wrong, repeated, skipped = tracking.run(20_000, 11)
    assert wrong == []
    assert steps >= 20_000
    assert repeated < steps // 100  # what a context switch explains is rare on the busiest machine
    assert set(skipped) == {0, 1, 2, 5, 6, 7}  # each was seen to be left out


def test_writes_count_by_width_whatever_the_value() -> None:
    for register in (0, 7, 8, 15):
        assert xinuse((f"xmm{register}", WIDE[:16])) == 0x2
        assert xinuse((f"xmm{register}", WIDE[:16], "vex")) == 0x2
        assert xinuse((f"ymm{register}", WIDE[:32])) == 0x6
        assert xinuse((f"zmm{register}", WIDE)) == 0x46
    assert xinuse(("zmm16", WIDE)) == 0x80
    assert xinuse(("k1", 0)) == 0x20


def test_a_narrower_vex_write_takes_only_its_own_register_away() -> None:
    assert xinuse(("zmm3", WIDE), ("ymm3", WIDE[:32])) == 0x6
    assert xinuse(("zmm3", WIDE), ("xmm3", WIDE[:16], "vex")) == 0x2
    assert xinuse(("zmm3", WIDE), ("xmm4", WIDE[:16], "vex")) == 0x46


def test_a_legacy_write_is_as_wide_as_what_was_used() -> None:
    gone = (("zmm3", WIDE), ("xmm3", WIDE[:16], "vex"))
    assert xinuse(*gone, ("xmm5", WIDE[:16])) == 0x6  # dirty, and no upper half of a ZMM in use
    assert xinuse(("zmm3", WIDE), ("xmm5", WIDE[:16]), ("xmm3", WIDE[:16], "vex")) == 0x46
    assert xinuse(*gone, ("VZEROUPPER",), ("xmm5", WIDE[:16])) == 0x2
    assert xinuse(*gone, ("XRSTOR", 0), ("xmm5", WIDE[:16])) == 0x2  # any mask


def test_a_restore_settles_by_contents() -> None:
    used = (("zmm3", WIDE), ("zmm20", WIDE), ("k1", 0))
    assert xinuse(*used) == 0xE6
    for mask in (2, 4, 0x40):  # one of the three for all three
        assert xinuse(*used, ("XRSTOR", mask)) == 0xA0
    assert xinuse(*used, ("XRSTOR", 0x20)) == 0xC6
    assert xinuse(*used, ("XRSTOR", 0x80)) == 0x66
    assert xinuse(*used, ("XRSTOR", 1)) == 0xE6
    only_upper = {"ymm3": bytes(16) + b"\1" * 16}
    assert xinuse(state=only_upper) == 0x4
    assert xinuse(("xmm9", WIDE[:16]), state=only_upper) == 0x6
    assert xinuse(("VZEROUPPER",), state=only_upper) == 0


def test_st_loaded_counts_until_fninit() -> None:
    assert xinuse(("st0", bytes(10)), ("EMMS",)) == 1
    assert xinuse(("st0", bytes(10)), ("FNINIT",)) == 0
    assert xinuse(("FLDCW", 0x27F)) == 1
    assert xinuse(("FLDCW", 0x27F), ("FLDCW", 0x37F)) == 0


@steadily
def test_after_a_fault_contents_decide() -> None:
    used = [("zmm3", WIDE), ("zmm20", WIDE), ("k1", 0), ("st0", bytes(10)), ("EMMS",)]
    done = Host.execute("XSAVE", before=used, offset=4)
    assert done.fault == ("#GP", 0, None)
    assert done.xinuse_before == 0xE7
    assert done.xinuse_after == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tracker: setattr(tracker, "dirty", False),
        lambda tracker: setattr(tracker, "modified", tracker.modified | 0x80),
        lambda tracker: tracker.wide[2].clear(),
    ],
    ids=["never dirty", "ZMM16-31 always modified", "AVX never counts"],
)
def test_a_wrong_rule_is_seen(wrong: "Callable[[tracking.Tracker], None]", monkeypatch: pytest.MonkeyPatch) -> None:
    right = tracking.Tracker.write

    def write(self: "tracking.Tracker", name: str, register: int, value: bytes) -> None:
        right(self, name, register, value)
        wrong(self)

    monkeypatch.setattr(tracking.Tracker, "write", write)
    assert tracking.run(2_000, 12)[1]
