"""The fuzzer's targets, with a few hundred inputs each; `make fuzz` gives them millions."""

import random

import pytest

from tests.fuzz.targets import TARGETS, mutated

SEED = 20_300_103
INPUTS = 400


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_make_a_decoder_raise_an_undocumented_error(name: str) -> None:
    target, seeds = TARGETS[name]
    numbers = random.Random(SEED)
    for seed in seeds:
        target(seed)
    for _ in range(INPUTS):
        target(mutated(numbers.choice(seeds), numbers))
