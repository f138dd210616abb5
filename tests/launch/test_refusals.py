"""A mistake on the command line is told at once: before NumPy, gRPC or TensorFlow is imported."""

import pathlib
import subprocess
import sys

import pytest

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
_APEX = "--gin_file=apex/cartpole.gin"

#: How many times as much CPU time as `import gin` a refusal may take: measured are 3.
_MAX_RATIO = 6

_MEASURE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, *sys.argv[1:]], capture_output=True, text=True)
spent = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, spent.ru_utime + spent.ru_stime, done.stderr)
"""


def run(*arguments):
    """(exit code, CPU seconds, stderr) of Python with these arguments, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments],
        cwd=_CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    code, cpu_secs, errors = done.stdout.split(" ", 2)
    return int(code), float(cpu_secs), errors


@pytest.fixture
def typo_in_a_file(tmp_path):
    path = tmp_path / "typo.gin"
    path.write_text("include 'apex/cartpole.gin'\napex.actorz = 3\n")
    return f"--gin_file={path}"


MISTAKES = {
    "binding": ([_APEX, "--gin_bindings=apex.actorz = 3"], "did you mean actors?"),
    "name": ([_APEX, "--gin_bindings=apex.environment = @cartpoole_"], "nothing called cartpoole_"),
    "flag": ([_APEX, "--gin_bindingz=apex.actors = 3"], "did you mean --gin_bindings?"),
    "gin file": (["--gin_file=apex/cartpol.gin"], "apex/cartpole.gin"),
}


@pytest.mark.parametrize("program", ["binaries.train", "binaries.learner"])
@pytest.mark.parametrize("mistake", [*MISTAKES, "binding in a file"])
def test_a_mistake_costs_little_more_than_importing_gin(program, mistake, typo_in_a_file):
    arguments, hint = MISTAKES.get(mistake, ([typo_in_a_file], "typo.gin:2: apex has no parameter"))
    ratios = []
    for _ in range(5):  # the machine may be busy with others meanwhile
        _, gin_secs, _ = run("-c", "import gin")
        code, cpu_secs, errors = run("-m", program, *arguments)
        assert code == 2 and hint in errors
        ratios.append(cpu_secs / gin_secs)
        if ratios[-1] <= _MAX_RATIO:
            return
    raise AssertionError(f"a refusal costs {min(ratios):.1f} times `import gin`")


def test_nothing_that_is_not_needed_for_a_refusal_is_imported():
    program = (
        "import sys\nfrom binaries import train\nfrom tfdrl.launch import command_line\n"
        "code = command_line.run('train', train.main, sys.argv)\n"
        "heavy = {'numpy', 'grpc', 'rich', 'gymnasium', 'matplotlib', 'tensorflow'}\n"
        "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    _, _, errors = run("-c", program, _APEX, "--gin_bindings=apex.actorz = 3")
    assert errors.strip().splitlines()[-1] == "2 []"
