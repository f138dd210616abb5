"""The static check finds every slip, says where, and imports nothing."""

import subprocess
import sys
import time

import pytest

from tfdrl import configuration
from tfdrl.errors import EXIT_CONFIGURATION, ConfigurationError


def errors(*bindings, file="lab.gin"):
    with pytest.raises(ConfigurationError) as caught:
        configuration.check([file] if file else [], list(bindings))
    assert caught.value.exit_code == EXIT_CONFIGURATION
    return str(caught.value)


SLIPS = {
    "configurable": ("lab_apx.actors = 1", "nothing called lab_apx", "mean lab_apex"),
    "other case": ("Maze.size = 1", "nothing called Maze", "mean maze"),
    "parameter": ("lab_apex.actros = 1", "lab_apex has no parameter actros", "mean actors"),
    "inherited parameter": ("LabAgent.gama = 1", "no parameter gama", "mean gamma"),
    "far parameter": ("LabAgent.zzz = 1", "no parameter zzz", "are: network, gamma"),
    "in a scope": ("a/b/maze.sise = 1", "maze has no parameter sise", "mean size"),
    "reference": ("lab_apex.agent = @LabAgnt", "nothing called LabAgnt", "mean LabAgent"),
    "nested reference": ("maze.wrappers = [(@mazee(),)]", "called mazee", "mean maze"),
    "reference in a macro": ("m = @mazee", "nothing called mazee", "mean maze"),
    "macro": ("lab_apex.actors = %worker", "macro %worker is not", "mean workers"),
    "macro of nobody's": ("worker = 3", "nothing refers to the macro worker", "mean workers"),
    "far macro of nobody's": ("zzz = 3", "nothing refers to the macro zzz", "write configurable."),
    "optimizer of nobody's": ("rmsprop.decay = 0.9", "no effect, for nothing refers to @rmsprop"),
    "denied parameter": ("my_lab.environments.maze.seed = 1", "no parameter seed", "slip"),
    "block": ("mazes:\n  size = 1", "nothing called mazes", "mean maze"),
    "str for int": ("maze.size = '7'", "maze.size must be int", "'7' of type str"),
    "float for int": ("maze.size = 1e2", "maze.size must be int", "write 100"),
    "more than 64 bits": ("optimizers.adam.beta_1 = 18446744073709551616", "64 bits", "beta_1"),
    "negative rate": ("adam.learning_rate = -0.1", "adam.learning_rate = -0.1 must be 0 or more"),
    "infinite rate": ("adam.learning_rate = 1e999", "adam.learning_rate = inf must be finite"),
    "infinite wait": ("seed.timeout_secs = 1e999", "seed.timeout_secs = inf must be finite"),
    "infinite clip": ("VTraceAgent.gradient_clip_norm = 1e999", "clip_norm = inf must be finite"),
    "negative alpha": (
        "replay_table.priority_exponent = -0.6",
        "exponent = -0.6 must be 0 or more",
    ),
    "no wait": ("seed.timeout_secs = 0", "seed.timeout_secs = 0 must be above 0"),
    "no pace": (
        "apex.actor_max_frames_per_second = 0.0",
        "frames_per_second = 0.0 must be above 0",
    ),
    "clipped to nothing": ("VTraceAgent.gradient_clip_norm = 0", "clip_norm = 0 must be above 0"),
    "no units": ("MlpQNetwork.layer_units = (64, 0)", "layer_units = (64, 0) must be 1 or more"),
    "part of a unit": ("MlpQNetwork.layer_units = (64.5,)", "= (64.5,) must be a whole number"),
    "no period": ("NStepDqnAgent.target_update_period_steps = 0", "_steps = 0 must be 1 or more"),
    "average of more than all": ("rmsprop.decay = 1.5", "rmsprop.decay = 1.5 must be from 0 to 1"),
    "negative cost": ("VTraceAgent.baseline_cost = -0.5", "_cost = -0.5 must be 0 or more"),
    "endless start": ("linear_schedule.initial = 1e999", "initial = inf must be finite"),
    "negative exponent": ("r2d2.importance_exponent = -0.6", "exponent = -0.6 must be 0 or more"),
    "negative threads": (
        "apex.learner_threads = -1",
        "apex.learner_threads = -1 must be 0 or more",
    ),
    "priority of root": ("a3c.evaluator_niceness = -5", "niceness = -5 must be from 0 to 19"),
    "no probability": ("dqn.epsilon_start = 1.5", "dqn.epsilon_start = 1.5 must be from 0 to 1"),
    "no size": ("replay_table.max_size = 0", "replay_table.max_size = 0 must be 1 or more"),
    "negative count": ("seed.unroll_steps = -1", "seed.unroll_steps = -1 must be 0 or more"),
    "negative in a macro": ("s = -1\nreplay_table.max_size = %s", "max_size = -1 must be 1 or"),
    "bool for int": ("maze.size = True", "must be int", "True of type bool"),
    "int for bool": ("maze.open = 1", "must be bool", "1 of type int"),
    "str for float": ("maze.slip = 'x'", "must be float", "'x' of type str"),
    "int for str | None": ("maze.name = 3", "must be str | None", "3 of type int"),
    "str for Optional[int]": ("lab_apex.period_frames = 'x'", "must be Optional[int]", "'x'"),
    "element": ("maze.shape = (1, 'x')", "must be tuple[int, ...]", "(1, 'x')"),
    "scalar for tuple": ("maze.shape = 3", "must be tuple[int, ...]", "3 of type int"),
    "word": ("maze.walls = 'thik'", "Literal['thin', 'thick']", "'thik'"),
    "through a macro": ("workers = 'many'", "lab_apex.actors must be int", "'many'"),
    "macro of itself": (
        "workers = %workers",
        "a value that needs itself: %workers -> %workers",
        "",
    ),
    "macros in a circle": ("workers = %b\nb = %workers", "itself: %workers -> %b -> %workers", ""),
    "call in a circle": ("lab_apex.optimizer = @lab_apex()", "@lab_apex() -> @lab_apex()", ""),
    "required": ("maze.size = %gin.REQUIRED", "maze.size must be set", ""),
    "bare word": ("maze.name = hello", "hello is not a value", "'hello'"),
    "true": ("maze.open = true", "true is not a value", "write True"),
    "syntax": ("maze size", "expected ':' or '='", "maze size"),
    "open bracket": ("maze.shape = (1,", "is a bracket left open", ""),
    "module": ("import my_lab.agentz", "no module my_lab.agentz", "mean my_lab.agents"),
    "package": ("import my_labb", "no module my_labb", "working directory"),
    "include": ("include 'mase.gin'", "no gin file 'mase.gin'", "searched"),
    "dynamic": ("from __gin__ import dynamic_registration", "does not support", "@gin.conf"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_an_error_with_its_place_and_a_way_out(lab, name):
    binding, *parts = SLIPS[name]
    text = errors(binding)
    for part in parts:
        assert part in text
    place = "lab.gin:11" if name == "through a macro" else "<gin_bindings>:"
    assert text.startswith(place)


@pytest.mark.parametrize(
    "binding",
    [
        "maze.slip = 1",  # an int for a float
        "maze.name = None",
        "maze.shape = [1, 2, 3]",  # list and tuple stand for each other
        "maze.shape = ()",
        "maze.size = %BIG",  # gin.constant
        "maze.size = @bandit()",  # what a call returns is not known
        "bandit.anything = 1",  # **kwargs
        "my_lab.environments.maze.size = 2",
        "m = 1\nn = %m\nmaze.size = %n",
        "singleton.constructor = @maze\nlab_apex.environment = @shared/singleton()",
        "experiment.max_frames = 1_000_000",
        "QNetwork.fc_layer_params = (64,)",  # TF-Agents' own are known without an import line
    ],
)
def test_what_is_right_passes(lab, binding):
    configuration.check(["lab.gin"], [binding])


def test_a_file_that_is_not_utf8_is_named_with_its_line(lab):
    (lab / "latin.gin").write_bytes(
        "maze.size = 1\n# f\u00fcr\nmaze.slip = 0.1\n".encode("latin-1")
    )
    assert "latin.gin:2: byte 0xfc is not UTF-8" in errors(file="latin.gin")
    (lab / "mark.gin").write_bytes(b"\xef\xbb\xbfinclude 'lab.gin'\n")  # as some editors save it
    configuration.check(["mark.gin"])


def test_all_errors_come_at_once_each_with_its_own_line(lab):
    (lab / "bad.gin").write_text("include 'lab.gin'\nlab_apex.actros = 1\n\nmaze.sise = 2\n")
    lines = errors(file="bad.gin").splitlines()
    assert [line.split(": ")[0] for line in lines] == ["bad.gin:2", "bad.gin:4"]


def test_files_that_include_each_other_are_an_error(lab):
    (lab / "a.gin").write_text("include 'b.gin'\n")
    (lab / "b.gin").write_text("include 'a.gin'\n")
    assert "circle: a.gin -> b.gin -> a.gin" in errors(file="a.gin")


def test_a_name_defined_twice_is_ambiguous_and_the_complete_name_is_not(lab):
    (lab / "my_lab" / "more.py").write_text("import gin\n@gin.configurable\ndef maze(x=1): pass\n")
    assert "write one of: my_lab.environments.maze, my_lab.more.maze" in errors("maze.size = 1")
    (lab / "one.gin").write_text("import my_lab\nmy_lab.more.maze.x = 1\n")
    assert configuration.check(["one.gin"]).modules == ("my_lab.more",)


def test_a_computed_registration_lets_unknown_names_through(lab):
    (lab / "my_lab" / "more.py").write_text(
        "import gin\nfor name in ('a', 'b'):\n    gin.external_configurable(print, name + 'x')\n"
    )
    configuration.check(["lab.gin"], ["ax.sep = 'y'", "lab_apex.environment = @bx"])
    assert "no parameter actros" in errors("ax.sep = 'y'", "lab_apex.actros = 1")


def test_text_is_canonical_and_loads_to_itself(lab):
    made = configuration.check(["lab.gin"], ["my_lab.arch.lab_apex.actors = 8"])
    assert made.text == (
        "import my_lab.agents\n"
        "import my_lab.arch\n"
        "import my_lab.environments\n"
        "LabAgent.gamma = 0.9\n"
        "evaluator/maze.slip = 0\n"
        "experiment.architecture = @lab_apex()\n"
        "experiment.solved_return = 475.0\n"
        "lab_apex.actors = 8\n"
        "lab_apex.agent = @LabAgent\n"
        "lab_apex.environment = @maze\n"
        "lab_apex.optimizer = @lab_adam()\n"
        "maze.shape = (3, 4)\n"
        "maze.size = 7\n"
        "workers = 4\n"
    )
    (lab / "saved.gin").write_text(made.text)
    assert configuration.check(["saved.gin"]) == made
    assert made.modules == (
        "my_lab.agents",
        "my_lab.arch",
        "my_lab.environments",
        "tfdrl.experiment",
    )
    assert made.digest != configuration.check(["lab.gin"]).digest
    # Comments, order and spelling do not matter.
    (lab / "other.gin").write_text(f"# hello\nmaze.size = 1\n{made.text}maze.size = (7)\n")
    assert configuration.check(["other.gin"]).digest == made.digest


def test_differences_are_readable(lab):
    old = configuration.check(["lab.gin"])
    new = configuration.check(["lab.gin"], ["maze.size = 8", "maze.slip = 0.5"])
    assert configuration.differences(old.text, new.text) == [
        "maze.size: 7 -> 8",
        "maze.slip: (not set) -> 0.5",
    ]
    assert configuration.differences(old.text, old.text) == []


def test_the_check_is_fast_and_imports_neither_tensorflow_nor_the_package(lab):
    program = """
import sys
from tfdrl import configuration
try:
    configuration.check(["lab.gin"], ["lab_apex.actros = 1"])
except configuration.checking.ConfigurationError as error:
    print(error)
loaded = {name.split(".")[0] for name in sys.modules}
print(sorted(loaded & {"tensorflow", "tf_agents", "numpy", "my_lab", "grpc", "gymnasium"}))
"""
    path = ":".join(sys.path)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    seconds = time.monotonic() - start
    assert "mean actors" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert seconds < 5  # the promise to users; about 0.3 s when idle


def test_what_an_inner_scope_overrides_is_no_circle(lab):
    configuration.check(["lab.gin"], ["maze.wrappers = @inner/maze()", "inner/maze.wrappers = ()"])
