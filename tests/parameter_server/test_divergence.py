"""When training is set back and to where: sequences of a parameter server's statuses."""

import math

import pytest

from tfdrl.errors import DivergedError
from tfdrl.parameter_server.divergence import Divergence
from tfdrl.parameter_server.settings import ParameterServerSettings


class Run:
    """What the first parameter server says, one status after the other."""

    def __init__(self, **settings):
        defaults = {"rollback_nonfinite": None, "rollback_loss_factor": None, "max_rollbacks": 3}
        self.divergence = Divergence(ParameterServerSettings(**{**defaults, **settings}))
        self._accepted = self._bad = self._epoch = 0
        self._loss, self._rollbacks, self._order = 0.0, 0, None
        self.snapshots = [[0, 0.0]]

    def __call__(self, accepted=0, loss=1.0, bad=0, epochs=0, back_to=None):
        """After so many more updates of that mean |loss|, and bad gradients; the order, if any.

        A new epoch is a rollback if there was an order before, or one `back_to` a version.
        """
        if epochs and self._order:
            back_to, self._order = self._order.version, None
        if back_to is not None:
            self._rollbacks += 1
            self.snapshots = [taken for taken in self.snapshots if taken[0] <= back_to]
        self._accepted += accepted
        self._loss += accepted * loss if accepted else 0.0
        self._bad += bad
        self._epoch += epochs
        order = self.divergence.add(
            {
                "version": self._accepted + self._epoch,
                "epoch": self._epoch,
                "rollbacks": self._rollbacks,
                "verdicts": {"accepted": self._accepted, "non_finite": self._bad, "stale": 7},
                "losses": [self._loss, self._accepted],
                "snapshots": [list(snapshot) for snapshot in self.snapshots],
            }
        )
        self._order = order or self._order
        return order


#: name: (settings, statuses as of `Run`, which of them leads to an order)
_SEQUENCES = {
    "the first status tells nothing": ({"rollback_nonfinite": 1}, [{"bad": 50}, {}], None),
    "fewer than the limit": ({"rollback_nonfinite": 20}, [{}, {"bad": 19}, {}], None),
    "the limit at once": ({"rollback_nonfinite": 20}, [{}, {"bad": 20}], 1),
    "the limit over several statuses": (
        {"rollback_nonfinite": 20},
        [{}, {"bad": 8}, {}, {"bad": 8}, {"bad": 4}],
        4,
    ),
    "a good one between": (
        {"rollback_nonfinite": 20},
        [{}, {"bad": 19}, {"accepted": 1}, {"bad": 19}, {"accepted": 5, "bad": 30}, {"bad": 19}],
        None,
    ),
    "no limit": ({}, [{}, {"bad": 10_000}], None),
    "another epoch begins at 0": (
        {"rollback_nonfinite": 20},
        [{}, {"bad": 15}, {"bad": 15, "epochs": 1}, {"bad": 19}],
        None,
    ),
    "too high a loss": (
        {"rollback_loss_factor": 10.0},
        [{}, {"accepted": 300, "loss": 2.0}, {"accepted": 5, "loss": 20.1}],
        2,
    ),
    "just not too high": (
        {"rollback_loss_factor": 10.0},
        [{}, {"accepted": 300, "loss": 2.0}, {"accepted": 5, "loss": 19.9}],
        None,
    ),
    "usual is the mean of all updates": (
        {"rollback_loss_factor": 10.0},  # (100 * 8 + 300 * 4) / 400 = 5
        [
            {},
            {"accepted": 100, "loss": 8.0},
            {"accepted": 300, "loss": 4.0},
            {"accepted": 1, "loss": 49.0},
            {"accepted": 1, "loss": 52.0},
        ],
        4,
    ),
    "warm-up": (
        {"rollback_loss_factor": 10.0},
        [{}, {"accepted": 199, "loss": 1.0}, {"accepted": 1, "loss": 1e6}],
        None,
    ),
    "no updates": (
        {"rollback_loss_factor": 10.0},
        [{}, {"accepted": 300}, {}, {}, {"accepted": 5, "loss": 5.0}],
        None,
    ),
    "a loss that is no number": (
        {"rollback_loss_factor": 10.0},
        [{}, {"accepted": 300}, {"accepted": 1, "loss": math.nan}],
        2,
    ),
    "no factor": ({}, [{}, {"accepted": 300}, {"accepted": 5, "loss": 1e9}], None),
    "warm-up again in another epoch": (
        {"rollback_loss_factor": 10.0},
        [{}, {"accepted": 300}, {"epochs": 1}, {"accepted": 100, "loss": 1e3}],
        None,
    ),
}


@pytest.mark.parametrize("name", _SEQUENCES)
def test_sequences(name):
    settings, statuses, expected = _SEQUENCES[name]
    run = Run(**settings)
    orders = [run(**status) is not None for status in statuses]
    assert orders == [number == expected for number in range(len(statuses))]
    assert run.divergence.rollbacks == (expected is not None)


def test_mean_loss_is_that_of_the_last_updates():
    run = Run()
    run()
    assert math.isnan(run.divergence.mean_loss)
    run(accepted=10, loss=3.0)
    assert run.divergence.mean_loss == 3.0
    run()
    assert run.divergence.mean_loss == 3.0
    run(accepted=2, loss=7.0)
    assert run.divergence.mean_loss == 7.0


def test_reasons_say_what_was_seen():
    run = Run(rollback_nonfinite=20, rollback_loss_factor=10.0)
    run()
    assert run(bad=25).reason == "25 gradients in a row were not finite"
    run(epochs=1)
    run(accepted=300, loss=2.0)
    assert run(accepted=5, loss=50.0).reason == "the mean |loss| is 50, usual is 2"


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        ([[0, 0.0]], 0),
        ([[0, 0.0], [100, 2.0], [200, 3.0]], 200),
        # Its loss was high already: it is part of what went wrong.
        ([[0, 0.0], [100, 2.0], [200, 21.0]], 100),
        ([[0, 0.0], [100, 2.0], [200, math.nan]], 100),
        ([[100, 19.9], [200, 20.1], [300, 400.0]], 100),
    ],
)
def test_the_newest_snapshot_of_which_the_loss_was_usual(snapshots, expected):
    run = Run(rollback_loss_factor=10.0)
    run()
    run.snapshots = snapshots
    run(accepted=300, loss=2.0)
    assert run(accepted=5, loss=90.0).version == expected


def test_without_a_factor_every_snapshot_will_do():
    run = Run(rollback_nonfinite=5)
    run()
    run(accepted=300, loss=2.0)
    run.snapshots = [[0, 0.0], [200, 1e9]]
    assert run(bad=5).version == 200


def test_one_more_than_may_be_is_the_end():
    run = Run(rollback_nonfinite=5, max_rollbacks=2)
    run()
    for number in (1, 2):
        assert run(bad=5).version == 0
        assert run.divergence.rollbacks == number
        run(epochs=1)
    with pytest.raises(DivergedError) as diverged:
        run(bad=6)
    text = str(diverged.value)
    assert text.startswith("training diverged: 6 gradients in a row were not finite, and ")
    assert "parameter_server.max_rollbacks = 2 are used up" in text
    assert "the last checkpoint is kept" in text and diverged.value.exit_code == 3


def test_rollbacks_may_be_forbidden():
    run = Run(rollback_nonfinite=5, max_rollbacks=0)
    run()
    with pytest.raises(DivergedError, match="max_rollbacks = 0 are used up"):
        run(bad=5)


@pytest.mark.parametrize("snapshots", [[], [[200, 500.0]]])
def test_without_a_snapshot_to_go_to_it_is_the_end(snapshots):
    run = Run(rollback_loss_factor=10.0)
    run()
    run(accepted=300, loss=2.0)
    run.snapshots = snapshots
    with pytest.raises(DivergedError, match="is 90, usual is 2, and there is no snapshot"):
        run(accepted=5, loss=90.0)


def test_an_order_that_is_not_carried_out_yet_is_not_given_twice():
    """A server that is slow says the same for some seconds; that is no second divergence."""
    run = Run(rollback_loss_factor=10.0, max_rollbacks=1)
    run()
    run(accepted=300, loss=2.0)
    assert run(accepted=5, loss=90.0).version == 0
    for _ in range(3):
        run(accepted=5, loss=90.0)  # of the old epoch
    assert run.divergence.rollbacks == 1
    run(epochs=1)
    run(accepted=300, loss=2.0)
    with pytest.raises(DivergedError, match="max_rollbacks = 1 are used up"):
        run(accepted=5, loss=90.0)


def test_a_loss_that_stays_high_after_a_rollback_is_still_too_high():
    """Whoever poisons the parameters goes on until somebody ends it."""
    run = Run(rollback_loss_factor=10.0, max_rollbacks=2)
    run.snapshots = [[0, 1.0], [200, 2.0], [250, 2.0]]
    run()
    run(accepted=300, loss=2.0)
    assert run(accepted=50, loss=1e3).version == 250
    run(epochs=1)
    assert run(accepted=300, loss=1e3).version == 200  # what came of the newest was no better
    run(epochs=1)
    assert run(accepted=300, loss=2.0) is None
    with pytest.raises(DivergedError, match=r"is 1e[+]03, usual is 2, and .*max_rollbacks = 2"):
        run(accepted=50, loss=1e3)


def test_an_order_that_was_lost_is_given_again():
    run = Run(rollback_nonfinite=5)
    run()
    orders = [run(bad=5) is not None for _ in range(13)]
    assert orders == [True] + [False] * 10 + [True, False]
    assert run.divergence.rollbacks == 2


_EXPLODES = "the mean |loss| is 1e+03, usual is 2"


def _crept(**settings):
    """A run whose loss crept from 2 to 15, which is less than ten times the usual, to 1000."""
    run = Run(rollback_loss_factor=10.0, max_rollbacks=2, **settings)
    run()
    run(accepted=300, loss=2.0)
    run.snapshots = [[0, 0.0], [250, 2.0]]
    for _ in range(3):
        assert run(accepted=300, loss=15.0) is None
    return run


def test_what_a_rollback_has_discarded_is_not_usual():
    run = _crept()
    assert run(accepted=300, loss=1e3).reason == "the mean |loss| is 1e+03, usual is 11.8"
    run(epochs=1)
    assert run(accepted=5, loss=1e3).reason == _EXPLODES


@pytest.mark.parametrize("statuses", [0, 15])
def test_nor_is_it_after_a_rollback_that_comes_late_or_by_hand(statuses):
    run = _crept()
    if statuses:
        assert run(accepted=300, loss=1e3)
    for _ in range(statuses):  # longer than an order is waited for
        run()
    run(epochs=1, back_to=250)
    run(accepted=5, loss=2.0)
    assert run(accepted=5, loss=1e3).reason == _EXPLODES


def test_a_rollback_to_the_beginning_leaves_what_was_usual_first():
    """Or whoever is still there and poisons would make it."""
    run = _crept()
    run(epochs=1, back_to=0)
    assert run(accepted=300, loss=1e3).reason == _EXPLODES


def test_a_server_that_starts_again_begins_anew():
    run = _crept()
    run(epochs=1)
    assert run(accepted=300, loss=1e3) is None


def test_a_snapshot_of_the_new_epoch_is_not_what_was_gone_back_to():
    run = _crept()
    run.snapshots.append([1202, 9.0])
    run(epochs=1, back_to=1202)
    assert run(accepted=5, loss=1e3).reason == _EXPLODES


def test_between_two_statuses_updates_count_as_even():
    run = Run(rollback_loss_factor=10.0)
    run()
    run.snapshots = [[0, 0.0], [450, 3.0]]
    run(accepted=300, loss=2.0)
    run(accepted=300, loss=8.0)
    run(epochs=1, back_to=450)
    assert run(accepted=5, loss=1e3).reason == "the mean |loss| is 1e+03, usual is 4"
