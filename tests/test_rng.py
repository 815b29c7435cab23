"""Random numbers depend on what they are for."""

import itertools

from avssl.rng import sample_generator, step_seed


def test_equal_keys_give_equal_numbers_and_others_differ():
    keys = list(itertools.product((0, 1), (0, 1), (0, 7), (0, 1)))
    first = [sample_generator(*key).random(4).tolist() for key in keys]
    again = [sample_generator(*key).random(4).tolist() for key in reversed(keys)]
    assert first == again[::-1]
    assert len({tuple(numbers) for numbers in first}) == len(keys)


def test_step_seed_fits_torch_and_differs_by_step():
    seeds = {step_seed(seed, step) for seed in range(4) for step in range(100)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
