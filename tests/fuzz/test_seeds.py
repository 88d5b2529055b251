"""Every fuzz target takes its own seeds and their near relatives, without a fuzzer."""

import importlib
from pathlib import Path
from random import Random

import pytest

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("fuzz_*.py"))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutations(name: str) -> None:
    target = importlib.import_module(f"tests.fuzz.{name}")
    rng = Random(1)
    seeds = list(target.seeds())
    assert seeds
    for seed in seeds:
        target.one_input(seed)
        for _ in range(20):
            changed = bytearray(seed)
            for _ in range(rng.choice((1, 1, 4))):
                changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            target.one_input(bytes(changed[: rng.choice((len(changed), len(changed), rng.randrange(len(changed))))]))
