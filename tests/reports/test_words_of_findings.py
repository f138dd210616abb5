"""Sentences about runs, by their numbers: what is said, and what is not."""

import made_runs
import pytest

from tfdrl.reports import comparison, findings, measured, run
from tfdrl.reports.groups import grouped


def _waiting(actor, learner):
    shares = {"actor-0": actor, "actor-1": actor, "learner-0": learner}
    return {
        process: {f"{process[:-2]}/waiting_share": share}
        for process, share in shares.items()
        if share is not None
    }


@pytest.mark.parametrize(
    ("actor", "learner", "role", "words"),
    [
        (
            *(0.38, 0.02, "learner"),
            "The learner waited 2 % of the time, the actors 38 %: the learner is the bottleneck.",
        ),
        (
            *(0.05, 0.61, "actor"),
            "The learner waited 61 % of the time, the actors 5 %: acting is the bottleneck.",
        ),
        (
            *(0.30, 0.25, ""),
            "The learner waited 25 % of the time, the actors 30 %: neither is clearly the "
            "bottleneck.",
        ),
        (
            *(None, 0.72, "actor"),
            "The learner waited 72 % of the time for experience: acting is the bottleneck.",
        ),
        (
            *(None, 0.04, "learner"),
            "The learner waited 4 % of the time for experience: training is the bottleneck.",
        ),
        (
            *(None, 0.3, ""),
            "The learner waited 30 % of the time for experience: neither acting nor training is "
            "clearly the bottleneck.",
        ),
        (None, None, "", "Who waited for whom was not measured in this run."),
    ],
)
def test_bottleneck_of_actors_and_learner(tmp_path, actor, learner, role, words):
    scalars = _waiting(actor, learner)
    made = run.read(made_runs.make(tmp_path / "a", made_runs.impala(), scalars=scalars))
    assert findings.bottleneck(made, measured.of(made)) == (role, words)


def test_waiting_for_a_replay_ratio_is_waiting(tmp_path):
    scalars = _waiting(0.1, 0.05)
    for actor in ("actor-0", "actor-1"):
        scalars[actor]["actor/ratio_waiting_share"] = 0.4
    made = run.read(made_runs.make(tmp_path / "a", made_runs.impala(), scalars=scalars))
    found = findings.bottleneck(made, measured.of(made))
    assert found.role == "learner" and "the actors 50 %" in found.words


@pytest.mark.parametrize(
    ("share", "role"), [(0.8, "parameter_server"), (0.05, "worker"), (0.3, "")]
)
def test_bottleneck_of_workers(tmp_path, share, role):
    scalars = {f"worker-{i}": {"actor/waiting_share": share} for i in (0, 1)}
    made = run.read(made_runs.make(tmp_path / "a", made_runs.a3c(), scalars=scalars))
    found = findings.bottleneck(made, measured.of(made))
    assert found.role == role and f"{100 * share:.0f} %" in found.words


def test_sentences_have_the_numbers_of_the_run(tmp_path):
    scalars = _waiting(0.38, 0.02)
    scalars["learner-0"] |= {"learner/policy_lag": 3.0, "learner/sample_age_secs": 0.25}
    usage = {
        "actor-0": (0.6, 100.0, {"replay": (50_000, 1_000, 8), "learner": (1_000, 20_000, 4)}),
        "learner-0": (0.7, 300.0, {"replay": (1_000, 50_000, 0)}),
    }
    directory = made_runs.make(
        tmp_path / "a", made_runs.impala(1), scalars=scalars, usage=usage, frames=33_000
    )
    made = run.read(directory)
    numbers = measured.of(made)
    assert numbers.frames_rate == pytest.approx(1000)  # 10/11 of the frames in the 30 s measured
    assert numbers.bytes_per_frame == pytest.approx((51 + 21 + 51) * 1000 / 1000, rel=1e-3)
    assert findings.findings(made, numbers) == [
        "It reached a mean return of 475 after 33,000 frames and 0:30 of training.",
        "The learner waited 2 % of the time, the actors 38 %: the learner is the bottleneck.",
        "All roles together used 1.3 of 2 cores.",
        "What was trained on was acted 3.00 learner steps before (0.250 s), on average.",
        "For each environment frame 123 bytes passed between roles.",
    ]


def test_what_was_not_reached_or_measured_is_not_claimed(tmp_path):
    made = run.read(made_runs.make(tmp_path / "a", made_runs.dqn(), returns=(30.0, 20.0)))
    assert findings.findings(made, measured.of(made)) == [
        "Its best mean return was 30.0 after 30,000 frames; the target is 475.",
        "One process acts and learns in turn: nobody waits for another.",
    ]
    made = run.read(made_runs.make(tmp_path / "b", made_runs.dqn(), returns=()))
    assert "No evaluation was made" in findings.findings(made, measured.of(made))[0]


def test_the_table_has_the_age_of_gradients_and_what_share_was_dropped(tmp_path):
    scalars = {
        "coordinator-0": {
            "gradients/accepted": 30.0,
            "gradients/stale": 10.0,
            "gradients/age": 2.5,
        }
    }
    made = run.read(made_runs.make(tmp_path / "a", made_runs.a3c(), scalars=scalars))
    row = dict(zip(*comparison.rows(grouped([made], ["a"]))))
    assert row["gradients' age"] == "2.50" and row["gradients dropped"] == "25 %"
    other = run.read(made_runs.make(tmp_path / "b", made_runs.impala()))
    assert "gradients dropped" not in comparison.rows(grouped([other], ["b"]))[0]


def test_full_cores_and_dropped_gradients_are_said(tmp_path):
    scalars = {"coordinator-0": {"gradients/accepted": 30.0, "gradients/stale": 10.0}}
    usage = {f"worker-{i}": (0.95, 100.0, {}) for i in (0, 1)}
    made = run.read(made_runs.make(tmp_path / "a", made_runs.a3c(), scalars=scalars, usage=usage))
    found = " ".join(findings.findings(made, measured.of(made)))
    assert "used 1.9 of 2 cores: the machine was full" in found
    assert "Of the gradients 25.0 % were dropped" in found


def _compared(tmp_path, **returns):
    runs, labels = [], []
    for name, of_seeds in returns.items():
        for seed, last in enumerate(of_seeds):
            directory = tmp_path / f"{name}-{seed}"
            made_runs.make(directory, made_runs.dqn(), seed=seed, returns=(last, last), target=None)
            runs.append(run.read(directory))
            labels.append(name)
    return comparison.findings(grouped(runs, labels))


def test_a_difference_is_told_where_intervals_are_apart(tmp_path):
    (first, *_) = _compared(tmp_path, a=(400, 410, 420), b=(100, 150, 120), c=(300, 405, 415))
    assert first == (
        "a ended with the highest return, 410 (400 to 420): above the 95 % interval of b; that of "
        "c overlaps with its own."
    )


def test_no_difference_is_told_that_may_be_chance(tmp_path):
    (first, *_) = _compared(tmp_path, a=(400, 100, 420), b=(100, 350, 300))
    assert "overlaps with all others: with 3 seeds no difference can be told" in first


def test_nothing_is_told_of_who_is_better_with_two_seeds(tmp_path):
    assert not [s for s in _compared(tmp_path, a=(400, 410), b=(1, 2)) if "highest" in s]


def test_fewer_frames_are_told_where_every_seed_needed_fewer(tmp_path):
    runs, labels = [], []
    for name, of_seeds in {"a": (10_000, 20_000, 15_000), "b": (21_000, 40_000, 30_000)}.items():
        for seed, frames in enumerate(of_seeds):
            directory = tmp_path / f"{name}-{seed}"
            made_runs.make(directory, made_runs.dqn(), seed=seed, frames=frames)
            runs.append(run.read(directory))
            labels.append(name)
    told = "a reached the target with 15,000 frames on average, in each of its seeds with fewer "
    assert told + "than b in any." in comparison.findings(grouped(runs, labels))
    same = comparison.findings(grouped(runs[:4], ["a", "a", "a", "b"]))
    assert not [sentence for sentence in same if "reached the target" in sentence]
