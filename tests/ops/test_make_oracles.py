"""The generator of test vectors makes what is stored, in the form of what it did not make."""

import make_oracles
import numpy as np
import oracles
import pytest


def test_what_is_stored_is_what_is_made():
    for case, make in make_oracles.MADE.items():
        group, _, name = case.partition("/")
        stored, made = oracles.load(group, name), make()
        assert stored.keys() == {key.rpartition("/")[2] for key in made}
        for key, array in made.items():
            np.testing.assert_array_equal(stored[key.rpartition("/")[2]], array, err_msg=key)


@pytest.mark.parametrize("case", ["0", "1", "2"])
def test_unrolls_of_other_origin_follow_the_same_definition(case):
    v = oracles.load("unrolls", case)
    streams = v["env_ids"], v["run_ids"], v["values"]
    cut = make_oracles.cut_unrolls(*streams, int(v["unroll_length"]), int(v["overlap"]))
    np.testing.assert_array_equal(cut, v["unrolls"])


def test_cases_of_other_origin_have_the_form_of_those_that_are_made():
    made = [case.split("/") for case in make_oracles.MADE]
    for group in {group for group, _ in made}:
        names = {name for name in oracles.cases(group) if [group, name] not in made}
        forms = {frozenset(oracles.load(group, name)) for name in names}
        assert forms == {frozenset(oracles.load(*case)) for case in made if case[0] == group}


def test_made_unrolls_train_on_no_more_steps_than_they_overlap():
    for case in ("equal", "fewer", "third", "one"):
        v = oracles.load("unrolls", case)
        assert v["unroll_length"] <= v["overlap"] and len(v["unrolls"]) > 10
        assert len(set(v["run_ids"])) > 2, "none began again"
