"""What errors of several seeds tell."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t

from benchmarks.common.statistics import paired_difference

errors = st.lists(st.floats(0, 100), min_size=2, max_size=8)


@settings(deadline=None)
@given(better=errors, worse=errors)
def test_a_difference_has_a_sign_only_if_its_interval_does(better, worse):
    first, second = ({str(seed): error for seed, error in enumerate(values)} for values in (better, worse))
    found, turned = paired_difference(first, second), paired_difference(second, first)
    count = min(len(better), len(worse))
    assert found.pairs == count and found.mean == -turned.mean and found.margin == turned.margin
    if found.margin:
        low, high = student_t.interval(0.95, count - 1, found.mean, found.margin / student_t.ppf(0.975, count - 1))
        assert found.sign == (1 if low > 0 else -1 if high < 0 else 0)
    assert turned.sign == -found.sign


def test_one_seed_decides_nothing_and_seeds_are_paired():
    assert paired_difference({"0": 1.0}, {"0": 99.0}).sign == 0
    assert paired_difference({"0": 1.0}, {"1": 99.0}) is None
    found = paired_difference({"0": 5.0, "1": 9.0, "2": 7.0}, {"2": 8.0, "1": 10.0, "0": 6.1, "3": 99.0})
    assert found.pairs == 3 and found.mean == pytest.approx(3.1 / 3) and found.sign == 1
    assert str(found) == "+1.03 ± 0.14 (3 seeds)"  # 4.303 standard errors of three differences
