"""What gin may set is explained, from docstrings, without an import."""

import textwrap

import pytest

from tfdrl.configuration import catalogue, documented

#: Of the program's own; a name of TensorFlow's for itself.
_PLAIN = {"name", "train_step_counter"}


@pytest.mark.parametrize(
    "item",
    [item for item in catalogue().configurables if item.selector.startswith("tfdrl.")],
    ids=lambda item: item.name,
)
def test_every_setting_of_tfdrl_is_explained(item):
    assert documented.summary(item)
    silent = {found.name for found in documented.settings(item) if not found.about}
    assert silent <= _PLAIN


def test_a_class_has_the_words_of_its_bases():
    found = {s.name: s for s in documented.settings(documented.find("impala"))}
    assert found["environment"].default == documented.REQUIRED
    assert found["actors"].about == "actor processes."  # of ActorsAndLearner
    assert found["unroll_steps"] == documented.Setting(
        "unroll_steps", "20", "T, agent steps of an unroll; it goes on through episode ends."
    )


def test_agents_of_tf_agents_and_wrappers_of_gymnasium_are_found():
    found = {s.name: s for s in documented.settings(documented.find("DqnAgent"))}
    epsilon = found["epsilon_greedy"]
    assert epsilon.default == "0.1" and epsilon.about.startswith("probability of choosing a random")
    assert documented.find("TimeLimit") is not None and documented.find("NoSuchThing") is None


def test_entries_of_a_docstring():
    text = """\
        Does it.

        Args:
          one, other: what
            goes on.
          third (int): last.

        Returns:
          nothing: at all.
        """
    assert documented._entries(textwrap.dedent(text)) == {
        "one": "what goes on.",
        "other": "what goes on.",
        "third": "last.",
    }
