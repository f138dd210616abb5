"""tfdrl-plan: its page, its JSON, its curve, and what it says of bad input."""

import json
import re

import pytest

from binaries import plan
from tfdrl.errors import ConfigurationError
from tfdrl.launch import command_line

_COSTS = (
    "--cost=environment.step=1ms",
    "--cost=inference=0.1ms",
    "--cost=training.step=5ms",
    "--cost=item.bytes=2KB",
)
_GIN = "--gin_file=impala/cartpole.gin"
_MACHINES = "--machines=1 x learner: 4 cores, $2/h; 2 x actor: 4 cores, $1/h"
_QUICK = ("--events=20000",)


def _run(*arguments):
    return command_line.run("tfdrl plan", plan.main, ["tfdrl-plan", *arguments])


def test_a_page_says_rates_bottleneck_next_machine_and_price(tmp_path, capsys):
    path = tmp_path / "plan.json"
    assert _run(_GIN, _MACHINES, *_COSTS, *_QUICK, f"--json={path}") == 0
    text, found = capsys.readouterr().out, json.loads(path.read_text())
    assert found["replicas"]["actor"] == 8
    # 16 environments one after the other, 8 actors; 16 * 1 ms + 0.1 ms.
    assert found["frames_per_second"] == pytest.approx(8 * 16 / 0.0161, rel=0.05)
    shown = re.search(r"environment frames +([\d,]+) frames/s", text)[1].replace(",", "")
    assert float(shown) == pytest.approx(found["frames_per_second"], rel=1e-3)
    for words in ("bottleneck", "one more actor machine", "policy lag", "a billion frames", "$"):
        assert words in text
    assert "Taken as nothing, for want of a cost: acting.step" in text
    assert found["one_more_machine"]["actor"] == pytest.approx(0.5, abs=0.1)


def test_a_sweep_is_a_table_and_a_curve(tmp_path, capsys):
    path = tmp_path / "actors.svg"
    sweep = "--sweep=actors=1,2,4"
    assert _run(_GIN, *_COSTS, *_QUICK, sweep, f"--plot={path}") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["actors", "1", "2", "4"]
    assert path.read_text().lstrip().startswith("<?xml")


def test_costs_of_a_file_are_replaced_by_those_stated(tmp_path, capsys):
    from tfdrl.planning import costs

    path = tmp_path / "costs.json"
    times = {
        "environment.step": costs.Cost(1e-3, 1e-3),
        "inference.16": costs.Cost(1e-4, 1e-4),
        "training.step": costs.Cost(1.0, 1.0),
    }
    path.write_text(json.dumps(costs.as_json(times, {"item.bytes": 10.0}, {"cores": 2})))
    found = costs.read(str(path), ["training.step=5ms"])
    assert found.need("training.step").secs == 0.005
    assert found.need("inference", 16) == times["inference.16"]
    assert _run(_GIN, f"--costs={path}", *_QUICK) == 0
    assert "learner: " in capsys.readouterr().out  # a second for each learner step


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--gin_file is missing"),
        ((_GIN,), r"are missing: environment.step \(.*inference \(.*training.step \(.*--costs="),
        ((_GIN, *_COSTS[:2]), r"missing: training.step \(.*such as --cost=training.step=1ms"),
        ((_GIN, "--cost=environment.step=1 h"), "'1 h' is not a number with one of the units s, m"),
        ((_GIN, "--cost=environment.step=fast"), "'fast' is not a number"),
        ((_GIN, "--cost=walking=1ms"), "there is no cost 'walking'; there are environment.step"),
        ((_GIN, "--cost=training.step.3=1ms"), "there is no cost 'training.step.3'"),
        ((_GIN, "--cost=1ms"), "write it as inference.256=0.92ms"),
        ((_GIN, "--costs=nowhere.json"), "nowhere.json cannot be read"),
        ((_GIN, "--machines=40 actors"), "'40 actors': write it as '1 x learner: 16 cores"),
        ((_GIN, "--machines=1 x driver: 4 cores"), "impala has no role 'driver'; its roles are"),
        ((_GIN, "--machines=0 x actor: 4 cores"), "no machine at all"),
        ((_GIN, "--machines=1 x actor: H200"), "does not say how many cores"),
        ((_GIN, "--machines=1 x actor: 4 cores, H200"), "actor sees no devices"),
        ((_GIN, "--machines=1 x all: 4 cores; network 10 parsecs"), "'10 parsecs' is not a number"),
        ((_GIN, "--machines=2 x learner: 4 cores"), "the program has 1 learner"),
        ((_GIN, "--machines=1 x all: 4 cores, 5%"), "'5%' is neither cores"),
        (
            (
                _GIN,
                "--machines=1 x all: 4 cores; 2 x actor: 2 cores",
                "--gin_bindings=impala.actor_threads=8",
            ),
            "a actor wants 8 cores",
        ),
        (
            (
                _GIN,
                *_COSTS,
                "--machines=1 x learner: 4 cores; 2 x actor: 2 cores; network 1 Gbit/s",
            ),
            "the size parameters.bytes .*is missing, and machines send it to each other",
        ),
        ((_GIN, *_COSTS, "--sweep=actors=5..1"), "sweeps over nothing: '5..1'"),
        ((_GIN, *_COSTS, "--sweep=actors="), "sweeps over nothing"),
        ((_GIN, *_COSTS, "--sweep=learners=1..4"), "'learners' is not one of: actors"),
        ((_GIN, "--plot=a.svg"), "--plot draws a sweep"),
        ((_GIN, "--stragglers=many"), "write how many and how much slower"),
        ((_GIN, "--json=/nowhere/at/all.json"), "there is no such directory"),
        (("--gin_file=dqn/cartpole.gin", *_COSTS), "there is no model of dqn"),
        (
            (_GIN, *_COSTS, "--machines=199999 x actor: 4 cores"),
            r"processes or machines cannot be si",
        ),
        ((_GIN, *_COSTS, "--events=20000", "--sweep=actors=1..99999"), "raise them"),
        ((_GIN, *_COSTS, "--json=/tmp"), "--json=/tmp is a directory; name a file in it"),
        (
            (_GIN, *_COSTS, *_QUICK, "--json=/dev/full"),
            "--json=/dev/full cannot be written: No space left",
        ),
    ],
)
def test_bad_input_is_a_sentence(arguments, words, capsys):
    assert _run(*arguments) == ConfigurationError.exit_code == 2
    said = capsys.readouterr().err
    assert said.startswith("tfdrl plan: ") and re.search(words, said), said
