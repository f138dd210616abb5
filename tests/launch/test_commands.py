"""`tfdrl COMMAND`: one command for all, its help, its completion, its lists."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import tfdrl
from binaries import completion, runs, settings, train
from binaries.commands import COMMANDS, ROLES
from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.launch import summary
from tfdrl.runtime import locks

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
_MEASURE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "binaries.main", *sys.argv[1:]])
spent = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, spent.ru_utime + spent.ru_stime, file=sys.stderr)
"""


def tfdrl_command(*arguments):
    """What `tfdrl` prints; (its exit code, CPU seconds, what it says on stderr) are last."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], cwd=_CHECKOUT, capture_output=True, text=True
    )
    *errors, last = done.stderr.splitlines()
    code, cpu_secs = last.split()
    return done.stdout, int(code), float(cpu_secs), "\n".join(errors)


def test_help_lists_every_command_at_once():
    told = [tfdrl_command("--help") for _ in range(3)]
    text, code, _, _ = told[0]
    assert code == 0 and min(cpu_secs for _, _, cpu_secs, _ in told) < 0.2
    for name, about in {**COMMANDS, **ROLES}.items():
        assert f"  {name} " in text and about in text
        assert (_CHECKOUT / "binaries" / f"{name.replace('-', '_')}.py").exists()


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"]])
def test_the_version_is_told(arguments):
    text, code, _, _ = tfdrl_command(*arguments)
    assert code == 0 and text.startswith(f"tfdrl {tfdrl.__version__} (Python 3.")


def test_an_unknown_command_is_refused_with_the_nearest():
    _, code, _, errors = tfdrl_command("trian")
    assert code == 2 and errors == "tfdrl: 'trian' is no command; did you mean train?"


def test_gin_files_need_no_flag():
    _, code, _, errors = tfdrl_command("train", "apex/cartpol")
    assert code == 2 and errors.startswith("tfdrl train: no gin file 'apex/cartpol' (searched ")
    assert "apex/cartpole.gin" in errors
    values = train._flags()
    arguments = ["tfdrl-train", "apex/cartpole", "--root_dir=a", "--gin_file=b.gin"]
    train.command_line.parse_gin_files(values, arguments, "")
    assert sorted(values.gin_file) == ["apex/cartpole", "b.gin"] and values.root_dir == "a"


def test_the_list_has_a_line_for_each_and_what_is_measured_apart(capsys):
    assert train.main(["tfdrl-train", "--list"]) == 0
    trained, _, measured = capsys.readouterr().out.partition("\n\nTo be measured")
    for name, about in configuration.gin_programs().items():
        lines = [line for line in (trained + measured).splitlines() if line.startswith(f"{name} ")]
        assert len(lines) == 1 and about[:30] in lines[0]
    assert "impala/cartpole.gin " in trained and "a3c/sleeping.gin " not in trained
    assert "a3c/sleeping.gin " in measured and "impala/corrections.gin " in measured


def _completed(script, *words):
    """What bash offers for the last word."""
    line = " ".join(words)
    program = (
        f"source {script}; COMP_WORDS=({line}); [ '{words[-1]}' ] || COMP_WORDS+=('')\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _tfdrl; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, cwd="/")
    assert not done.stderr, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_flags_and_gin_files(tmp_path, capsys):
    assert completion.main(["completion", "bash"]) == 0
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out)
    assert _completed(script, "tfdrl", "tr") == ["train", "track"]
    assert _completed(script, "tfdrl", "train", "impala/ca") == [
        "impala/cartpole",
        "impala/catch_memory",
    ]
    assert _completed(script, "/usr/bin/tfdrl-train", "--max") == ["--max_restarts="]
    assert _completed(script, "tfdrl", "evaluate", "--vi") == ["--video="]
    assert _completed(script, "tfdrl", "completion", "z") == ["zsh"]


def test_zsh_reads_its_script(tmp_path, capsys):
    assert completion.main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("autoload -U +X bashcompinit")
    if not shutil.which("zsh"):
        pytest.skip("no zsh here; bash reads the rest of the same script in the test above")
    program = f"autoload -U compinit && compinit -D\n{script}\nwhence -w _tfdrl"
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True)
    assert done.stdout == "_tfdrl: function\n" and not done.stderr


def test_another_shell_is_refused():
    with pytest.raises(ConfigurationError, match="completion bash, or zsh"):
        completion.main(["completion", "fish"])


def _run(directory, config, rows=(), ended=""):
    directory.mkdir(parents=True)
    (directory / "config.gin").write_text(config)
    lines = ["seconds,frames,learner_steps,mean,standard_error,minimum,maximum,episodes"]
    lines += [f"1,{frames},1,{mean},0,0,0,1" for frames, mean in rows]
    (directory / "evaluations.csv").write_text("\n".join(lines) + "\n")
    if ended:
        summary.write(directory, f"ended       {ended}\nevaluation  return 3\n")


def test_runs_are_listed_with_state_results_and_settings_that_differ(tmp_path, capsys):
    head = "experiment.architecture = @impala()\nadam.epsilon = 1e-05\n"
    _run(
        tmp_path / "a", f"{head}adam.learning_rate = 0.1\n", [(10, 5.0), (20, 3.0)], "told to stop"
    )
    _run(tmp_path / "x" / "b", f"{head}adam.learning_rate = 0.2\n", [(7, "nan")])
    _run(tmp_path / "c", "experiment.architecture = @apex()\n", ended="it broke (exit code 1)")
    for number, name in enumerate(("a", "x/b", "c")):
        os.utime(tmp_path / name / "config.gin", (number, number))
    with locks.lock(tmp_path / "x" / "b", "launcher"):
        assert runs.main(["runs", str(tmp_path)]) == 0
    impala, _, apex = capsys.readouterr().out.partition("\n\n")
    title, names, first, second = impala.splitlines()
    assert title == "@impala():" and "adam.epsilon" not in impala
    assert names.split()[-2:] == ["adam.learning_rate", "state"]
    assert first.split() == [
        *(str(tmp_path / "a"), "1970-01-01", first.split()[2], "5.0", "20", "0.1"),
        *("told", "to", "stop"),
    ]
    assert second.split()[-4:] == ["-", "7", "0.2", "runs"]
    assert apex.splitlines()[-1].endswith("-            0       it broke (exit code 1)")
    assert runs.main(["runs", str(tmp_path / "x")]) == 0  # whose lock is given up by now
    assert "no end is written" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="there is no directory"):
        runs.main(["runs", str(tmp_path / "nowhere")])


def test_settings_of_a_gin_file_are_those_it_sets_and_their_neighbours(capsys):
    assert settings.main(["settings", "impala/cartpole"]) == 0
    text = capsys.readouterr().out
    assert "impala.batch_size = 8 (default: 32)\n      B, unrolls of one learner step" in text
    assert "\n  impala.learners = 1\n" in text
    with pytest.raises(ConfigurationError, match="did you mean impala"):
        settings.main(["settings", "impalla"])


def test_settings_without_a_name_are_listed(capsys):
    assert settings.main(["settings"]) == 0
    assert "\nexperiment                  One training run\n" in capsys.readouterr().out
