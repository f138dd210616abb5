"""The law of the replay ratio: bounds, no deadlock, estimates, and settings that are refused."""

import dataclasses
import random
from types import SimpleNamespace

import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.replay import replay_ratio
from tfdrl.replay.replay_ratio import ReplayRatio, estimated, held_ratio
from tfdrl.types import ItemCounts

#: D = 8 * inserted - sampled between 8 * (1000 - 100) and 8 * (1000 + 100).
RATIO = ReplayRatio(ratio=8.0, samples_per_call=400, min_size=1000, tolerance_items=100)

# Each: inserted, sampled, whether the learner may train, whether actors may insert.
BOUNDS = {
    "at the beginning": (0, 0, False, True),
    "before learning starts": (949, 0, False, True),  # 8 * 949 - 400 < 7200
    "learning starts": (950, 0, True, True),
    "at the centre": (1000, 0, True, True),
    "actors are ahead as far as they may": (1100, 0, True, True),
    "actors are ahead": (1101, 0, True, False),
    "later, at the centre": (3000, 16_000, True, True),
    "later, the learner is ahead as far as it may": (3000, 16_400, True, True),
    "later, the learner is ahead": (3000, 16_401, False, True),
    "later, actors are ahead": (3000, 15_199, True, False),
    "a learner came back with an older checkpoint": (3000, 4_000, True, False),
    "a learner that nobody's reports have reached": (0, 16_000, False, True),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_who_may_go_on(name):
    inserted, sampled, train, insert = BOUNDS[name]
    counts = ItemCounts(inserted, sampled)
    assert RATIO.allows_training(counts) is train
    assert RATIO.allows_inserting(counts) is insert


def test_ahead_of_the_centre():
    assert RATIO.ahead_items(ItemCounts(1000, 0)) == 0
    assert RATIO.ahead_items(ItemCounts(3000, 15_200)) == 100
    assert RATIO.ahead_items(ItemCounts(3000, 16_800)) == -100


def test_the_ratio_that_is_held():
    assert held_ratio(ItemCounts(3000, 16_000), min_size=1000) == 8.0
    assert held_ratio(ItemCounts(1000, 0), min_size=1000) is None
    assert held_ratio(ItemCounts(1100, 0), min_size=1000, tolerance_items=100) is None
    assert held_ratio(ItemCounts(1101, 808), 1000, tolerance_items=100) == pytest.approx(8.0)


@pytest.mark.parametrize("ratio", [0.1, 0.75, 1.0, 8.0, 300.0])
def test_one_of_both_may_always_go_on(ratio):
    """Whatever was counted: at the smallest tolerance that `of_tables` lets through."""
    for tolerance in (1, 3, 50):
        most = int(2 * ratio * tolerance)
        if not most:
            continue
        law = ReplayRatio(ratio, samples_per_call=most, min_size=60, tolerance_items=tolerance)
        for inserted in range(0, 400):
            for sampled in range(0, int(ratio * 500), max(int(ratio), 1)):
                counts = ItemCounts(inserted, sampled)
                assert law.allows_training(counts) or law.allows_inserting(counts), counts


def test_a_call_that_is_too_large_would_deadlock():
    """The bound of `of_tables` is exact: one sample more, and there are counts that block both."""
    law = ReplayRatio(8.0, samples_per_call=2 * 8 * 100 + 9, min_size=1000, tolerance_items=100)
    counts = ItemCounts(1101, 0)
    assert not law.allows_training(counts) and not law.allows_inserting(counts)


# Each: total, own, reported, reported_before, replicas, expected.
ESTIMATES = {
    "alone": (100, 60, 50, 40, 1, 110),
    "nothing reported yet": (0, 10, 0, 0, 4, 40),
    "others since the report before": (100, 60, 50, 40, 4, 100 + 10 + 3 * 20),
    "standing still for one report": (100, 50, 50, 40, 4, 100 + 3 * 10),
    "standing still for two": (100, 50, 50, 50, 4, 100),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates(name):
    *known, expected = ESTIMATES[name]
    assert estimated(*known) == expected


@dataclasses.dataclass
class Actor:
    """As `ActorLimiter` decides: by what it was told at its last report."""

    count: int
    own: int = 0
    totals: ItemCounts = ItemCounts(0, 0)  # noqa: RUF009  (immutable)
    reported: int = 0
    before: int = 0
    told: int = 0  # what the ledger has of it

    def may_insert(self, law):
        known = (self.totals.inserted, self.own, self.reported, self.before)
        inserted = estimated(*known, self.count)
        return law.allows_inserting(ItemCounts(inserted, self.totals.sampled))


def simulate(law, actors, block, speeds, steps, seed):
    """Random turns of actors and a learner; yields (inserted, sampled, who) at each.

    Each actor reports at least once in the time in which each other one does twice, as it is with
    reports once in a period.
    """
    rng = random.Random(seed)
    crew, sampled = [Actor(actors) for _ in range(actors)], 0
    actor_speed, learner_speed = speeds
    for _ in range(steps):
        for actor in rng.sample(crew, actors):  # one period
            for _ in range(rng.randint(0, actor_speed)):
                if actor.may_insert(law):
                    actor.own += block
                    yield sum(a.own for a in crew), sampled, "actor"
            actor.told = actor.own
            actor.totals = ItemCounts(sum(a.told for a in crew), sampled)
            actor.reported, actor.before = actor.own, actor.reported
        for _ in range(rng.randint(0, learner_speed)):
            if law.allows_training(ItemCounts(sum(a.told for a in crew), sampled)):
                sampled += law.samples_per_call
                yield sum(a.own for a in crew), sampled, "learner"


@pytest.mark.parametrize("actors", [1, 4, 30])
@pytest.mark.parametrize("speeds", [(3, 1), (3, 200), (1, 3)])
def test_bounds_hold_with_old_counts(actors, speeds):
    """Whoever is the faster, with reports a period old: the bounds, but for blocks under way."""
    block = 20
    law = ReplayRatio(2.0, samples_per_call=64, min_size=1500, tolerance_items=1500)
    ahead = []
    for inserted, sampled, who in simulate(law, actors, block, speeds, 3000, seed=actors):
        counts = ItemCounts(inserted, sampled)
        if who == "learner":
            assert law.difference(counts) >= law.ratio * (law.min_size - law.tolerance_items)
        ahead.append(law.ahead_items(counts))
        # What all may insert in a period, and a block each.
        assert ahead[-1] <= law.tolerance_items + actors * block * (1 + speeds[0])
    assert sampled > 100 * law.samples_per_call
    late = held_ratio(counts, law.min_size)
    assert late == pytest.approx(2.0, rel=0.1)


def test_nobody_waits_for_ever_at_the_tightest_tolerance():
    law = ReplayRatio(1.0, samples_per_call=64, min_size=100, tolerance_items=32)
    turns = list(simulate(law, 8, 10, (5, 5), 2000, seed=0))
    assert sum(who == "learner" for *_, who in turns) > 500
    assert turns[-1][1] == pytest.approx(turns[-1][0] - 100, abs=500)


def table(min_size=1000, max_size=100_000, **changed):
    limits = SimpleNamespace(
        min_size_to_sample=min_size,
        samples_per_insert=changed.get("samples_per_insert", 1.0),
        min_diff=changed.get("min_diff", -1.797e308),
        max_diff=changed.get("max_diff", 1.797e308),
    )
    return SimpleNamespace(
        name="transitions",
        max_size=max_size,
        max_times_sampled=changed.get("max_times_sampled", 0),
        rate_limiter_info=limits,
    )


def settings(ratio=8.0, tolerance=None):
    return SimpleNamespace(replay_ratio=ratio, replay_ratio_tolerance_items=tolerance)


def test_of_tables():
    law = replay_ratio.of_tables(settings(), "apex", 1024, [table()])
    assert law == ReplayRatio(8.0, 1024, 1000, 1000)
    law = replay_ratio.of_tables(settings(2.0, 70), "gorila", 32, [table(), table()])
    assert law == ReplayRatio(2.0, 32, 2000, 70)
    assert replay_ratio.of_tables(settings(None), "apex", 1024, [table()]) is None
    assert replay_ratio.of_tables(settings(), "apex", 1024, [None]) is None  # told to stop


# Each: settings, samples of a call, table, words of the refusal.
REFUSED = {
    "a call above the tolerance": (
        *(settings(8.0, 63), 1024, table()),
        r"takes 1,024 samples .* apart by 2 \* 8 \* 63 = 1,008 samples .* must be at least 64,",
    ),
    "a ratio so small that a call is above it": (
        *(settings(0.1), 1024, table()),
        r"2 \* 0\.1 \* 1,000 = 200 samples only.* must be at least 5,120,",
    ),
    "a table without room to be ahead": (
        *(settings(), 1024, table(max_size=1500)),
        r"1,000 \+ 1,000 = 2,000 items before they wait, but the replay holds 1,500.* = 500$",
    ),
    "items that are removed too early": (
        *(settings(8.0), 1024, table(max_times_sampled=4)),
        r"apex\.replay_ratio = 8 can never be held.*max_times_sampled = 4 times",
    ),
    "a limiter of its own": (
        *(settings(8.0), 1024, table(samples_per_insert=4.0, min_diff=0.0, max_diff=8000.0)),
        r"rate limiter of its own, of 4 samples for each insert.*samples_per_insert = None",
    ),
    "a queue": (
        *(settings(8.0), 1024, table(min_diff=0.0, max_diff=100.0, max_times_sampled=1)),
        "rate limiter of its own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_can_never_be_sampled_at_the_ratio(name):
    wanted, samples, served, words = REFUSED[name]
    with pytest.raises(ConfigurationError, match=words):
        replay_ratio.of_tables(wanted, "apex", samples, [served])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (settings(0.0), r"apex\.replay_ratio = 0\.0 must be between 1e-6 and 1e6"),
        (settings(-1.0), "must be between"),
        (settings(1e-320), "must be between"),
        (settings(float("nan")), "must be between"),
        (settings(float("inf")), "must be between"),
        (settings(8.0, 0), r"replay_ratio_tolerance_items = 0 must be >= 1"),
        (settings(8.0, float("nan")), "must be >= 1"),
        (settings(None, 100), r"= 100 without apex\.replay_ratio"),
    ],
)
def test_settings_that_no_table_goes_with(wanted, words):
    with pytest.raises(ConfigurationError, match=words):
        replay_ratio.check_settings(wanted, "apex")


def test_sound_settings():
    for wanted in (settings(None), settings(0.5), settings(8, 1)):
        replay_ratio.check_settings(wanted, "apex")
