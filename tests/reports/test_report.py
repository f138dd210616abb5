"""report.html: what is on it, of which runs; bad input of tfdrl-report."""

import fcntl
import re
import time
from html.parser import HTMLParser

import made_runs
import numpy as np
import pytest

from binaries import report
from tfdrl.errors import ConfigurationError
from tfdrl.launch.tools import runs
from tfdrl.reports import events, page, run
from tfdrl.runtime.metrics import MetricsWriter
from tfdrl.tracking import tracker

_USAGE = {
    "actor-0": (0.5, 100.0, {"replay": (253_000, 1_000, 110), "learner": (4_000, 237_000, 8)}),
    "actor-1": (0.5, 100.0, {"replay": (253_000, 1_000, 110), "learner": (4_000, 237_000, 8)}),
    "learner-0": (0.7, 300.0, {"replay": (3_000, 506_000, 0), "clients": (9_000_000, 1, 0)}),
}
_SCALARS = {
    "actor-0": {"actor/waiting_share": 0.4, "actor/unrolls": 110.0},
    "actor-1": {"actor/waiting_share": 0.4, "actor/unrolls": 110.0},
    "learner-0": {"learner/waiting_share": 0.02, "learner/policy_lag": 3.0},
}


class _Text(HTMLParser):
    """The page's words; fails on tags that do not match."""

    _EMPTY = ("meta", "rect", "line", "circle", "polyline", "polygon")

    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in self._EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in self._EMPTY

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def _words(text):
    return " ".join(" ".join(_Text(text).words).split())


def _impala(directory, **more):
    return made_runs.make(directory, made_runs.impala(), scalars=_SCALARS, usage=_USAGE, **more)


def test_the_figure_has_the_roles_and_what_was_measured(tmp_path):
    text = page.text([run.read(_impala(tmp_path / "a", frames=33_000))])
    words = _words(text)
    for expected in (
        "IMPALA on CartPole-v1",
        "actor × 2 1,000 frames/s 220 unrolls/s 1.00 cores, 200 MB waits 40 %",  # noqa: RUF001
        "↓ unrolls 506 kB/s",
        "↖ parameters 474 kB/s",
        "← priorities 3.00 kB/s → samples 506 kB/s",
        "lag 3.00 steps 0.70 cores, 300 MB waits 2 %",
        "the learner is the bottleneck",
        "tfdrl-train --gin_file=impala/cartpole.gin",
        "gym_environment.id = 'CartPole-v1'",
        "one of <two> & more",  # escaped in the page
    ):
        assert expected in words, expected
    titles = r'<rect class="box bottleneck"[^>]*/><text class="title"[^>]*>(\w+)'
    assert re.findall(titles, text) == ["learner"]


def test_it_needs_no_network_and_no_script(tmp_path):
    text = page.text([run.read(_impala(tmp_path / "a"))])
    assert not re.search(r"<script|<link|@import|url\(|src=|https?://", text)


def test_seeds_of_one_setting_are_one_curve_with_an_interval(tmp_path):
    for seed, last in enumerate((400.0, 450.0, 500.0)):
        made_runs.make(tmp_path / f"s{seed}", made_runs.dqn(), seed=seed, returns=(100.0, last))
    runs = [run.read(tmp_path / f"s{seed}") for seed in range(3)]
    words = _words(page.text(runs))
    assert "DQN on CartPole-v1" in words and "450 (400 to 500)" in words
    assert "seeds 0, 1, 2" in words and "1 of 3" in words


def test_runs_of_different_tasks_are_drawn_apart(tmp_path):
    first = run.read(made_runs.make(tmp_path / "a", made_runs.dqn()))
    other = run.read(made_runs.make(tmp_path / "b", made_runs.dqn(), environment="Acrobot-v1"))
    text = page.text([first, other])
    words = _words(text)
    assert "These runs are of 2 different tasks, which are drawn apart" in words
    assert words.count("Return against environment frames") == 2
    assert "highest return" not in words


def test_a_run_without_evaluations_says_so(tmp_path):
    made = made_runs.make(tmp_path / "a", made_runs.dqn(), returns=(), result=False)
    words = _words(page.text([run.read(made)]))
    assert "Without any evaluation, so that nothing is known of their returns: a." in words
    assert "Return against" not in words and "Ended without a result" in words


def test_a_run_that_goes_on_is_drawn_so_far(tmp_path):
    made = made_runs.make(tmp_path / "a", made_runs.dqn(), returns=(30.0,), result=False)
    with (made / "launcher.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = _words(page.text([run.read(made)]))
        fcntl.flock(lock, fcntl.LOCK_UN)
    assert "Still going on, and drawn so far: a." in words and "Ended without" not in words
    assert "Still going on" not in _words(page.text([run.read(made)]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "which run"),
        (["{}/nothing"], "is no run: it has no config.gin"),
        (["{}/old"], "has no run.json"),
        (["{}/a", "--outputs=x"], "did you mean --output"),
        (["{}/a", "--output={}/none/x.html"], "cannot be written"),
    ],
)
def test_what_is_no_run_is_refused_in_words(tmp_path, given, words):
    made_runs.make(tmp_path / "a", made_runs.dqn())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.gin").write_text("")
    with pytest.raises(ConfigurationError, match=words):
        report.main(["tfdrl-report", *(text.format(tmp_path) for text in given)])


def test_the_command_writes_into_the_run_or_where_it_is_told(tmp_path, capsys):
    made = _impala(tmp_path / "a")
    start_secs = time.process_time()
    assert report.main(["tfdrl-report", str(made)]) == 0
    assert time.process_time() - start_secs < 1.0  # at the end of every training
    assert capsys.readouterr().out.strip() == str(made / "report.html")
    made_runs.make(tmp_path / "b", made_runs.a3c())
    both = [str(made), str(tmp_path / "b"), f"--output={tmp_path}/both.html"]
    assert report.main(["tfdrl-report", *both]) == 0
    words = _words((tmp_path / "both.html").read_text())
    assert "2 settings side by side on CartPole-v1" in words and "A3C" in words


def test_events_are_read_as_the_roles_write_them(tmp_path):
    writer = MetricsWriter(tmp_path, "learner", 0)
    for step in range(3):
        writer.write(step, {"learner/loss": 0.5 * step})
    writer.histogram(3, "a/histogram", np.array([1, 2, 3]))
    writer.close()
    directory = tmp_path / "tensorboard" / "learner-0"
    loss = events.read(directory)["learner/loss"]
    assert loss.values.tolist() == [0.0, 0.5, 1.0] and loss.steps.tolist() == [0, 1, 2]
    assert (np.diff(loss.secs) >= 0).all()
    assert "a/histogram" not in events.read(directory)

    (file,) = directory.iterdir()
    data = file.read_bytes()
    for cut in (len(data) - 3, 40, 7):  # a writer that was killed
        file.write_bytes(data[:cut])
        assert len(events.read(directory).get("learner/loss", events.NOTHING).values) <= 3
    assert events.read(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            "impala.environment = @gym_environment\ngym_environment.id = 'CartPole-v1'",
            "CartPole-v1",
        ),
        ("dqn.environment = @atari_environment\natari_environment.id = 'Pong'", "Pong"),
        ("dqn.environment = @catch_memory\ncatch_memory.rows = 5", "catch_memory (rows = 5)"),
        (
            "a.environment = @gym_environment\ngym_environment.id = 'A'\n"
            "gym_environment.training_wrappers = (@x,)",
            "A",
        ),
    ],
)
def test_tasks_are_named_by_their_environment(config, words):
    assert run.task_of(config) == words


@pytest.mark.parametrize("name", ["evaluations.csv", "result.json", "summary.txt", "config.gin"])
def test_a_run_with_a_file_of_other_bytes_has_a_page(tmp_path, name):
    made = _impala(tmp_path / "a")
    for path in [made / name, *made.glob("usage/*"), *made.glob("tensorboard/*/*")]:
        path.write_bytes(b"\xff\0[1]\n[]\n\0\xfe" * 50)
    assert "IMPALA" in _words(page.text([run.read(made)]))
    assert runs.page(runs.find(tmp_path))
    tracker.end_of(made)
