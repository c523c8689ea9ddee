"""The benchmark of sweeps with a budget that is too short."""

from benchmarks.sweep import summary


def test_repetitions_without_a_whole_trial_are_left_out_of_the_mean() -> None:
    curves = {"TPE + ASHA": [[(1.0, 0.5), (2.0, 0.75)], [], [(3.0, 0.25)]], "random": [[], []]}
    found = summary([{"arm": arm, "curve": curve} for arm, some in curves.items() for curve in some])
    assert (found["TPE + ASHA"]["mean"], found["TPE + ASHA"]["n"]) == (50.0, 2)
    assert found["random"] == {"mean": None, "std": None, "n": 0}
