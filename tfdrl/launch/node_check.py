"""Whether a node can run the roles of a run: asked of each before anything is started there.

    python -m tfdrl.launch.node_check --node=n1 --nonce_file=... --ports=3 --gin_file=...

prints one line of JSON, an `Answer`; the launcher compares it with its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import secrets
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from absl import flags

import tfdrl
from tfdrl import configuration
from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line
from tfdrl.launch.local.addresses import free_ports

#: Clocks that differ by more are refused.
_CLOCK_SECS = 60.0
#: For a file of this machine to be seen on another: what NFS may remember is 30 s old at most.
_NONCE_SECS = 30.0
_BEGINS = '{"node": '


class Answer(NamedTuple):
    """What a node says of itself.

    Attributes:
      node: its name.
      python, version: of Python and tfdrl there.
      clock_secs: time.time().
      nonce: what it read in the file that the launcher had just written.
      digest: of the configuration; empty if it could not be loaded.
      error: why not.
      ports: free ones.
    """

    node: str
    python: str
    version: str
    clock_secs: float
    nonce: str
    digest: str
    error: str
    ports: Sequence[int]


def answer(
    node: str, nonce_file: pathlib.Path, ports: int, gin: tuple[Sequence[str], Sequence[str]]
) -> Answer:
    """The answer of this machine."""
    digest, error, found = "", "", []
    try:
        digest = configuration.load(*gin, tensorflow=False).digest
        numbers = free_ports()
        found = [next(numbers) for _ in range(ports)]
    except ConfigurationError as wrong:
        error = str(wrong)
    own = platform.python_version(), tfdrl.__version__, time.time()
    return Answer(node, *own, _read(nonce_file), digest, error, found)


def write_nonce(root_dir: pathlib.Path) -> pathlib.Path:
    """Writes a file that nobody else can have, for nodes to read. Raises ConfigurationError."""
    path = root_dir / f".nonce-{secrets.token_hex(8)}"
    try:
        path.write_text(secrets.token_hex(16))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; choose another --root_dir"
        ) from None
    return path


def ports(
    root_dir: pathlib.Path,
    digest: str,
    gin_flags: Sequence[str],
    counts: Mapping[str, int],
    ask: Callable[[Sequence[str]], tuple[str, str]],
) -> dict[str, Iterator[int]]:
    """Asks nodes whether they can run this, and for ports.

    Args:
      root_dir: of the run.
      digest: of the configuration.
      gin_flags: that say what to run.
      counts: how many ports to find on each, by the node's name.
      ask: has all of them run Python with these arguments; returns what they print, and what goes
        wrong.

    Returns free ports by the node's name.

    Raises:
      ConfigurationError: a node cannot run this, as `check` says it.
    """
    nonce_file = write_nonce(root_dir)
    try:
        begin_secs, most = time.time(), max(counts.values())
        own = [f"--nonce_file={nonce_file}", f"--ports={most}"]
        printed, said = ask(["-m", __name__, *own, *gin_flags])
        answers, asked_secs = parse(printed), (begin_secs, time.time())
        check(answers, list(counts), nonce_file, digest, asked_secs, said)
    finally:
        nonce_file.unlink(missing_ok=True)
    return {node: iter(answers[node].ports) for node in counts}


def parse(text: str) -> dict[str, Answer]:
    """The answers among the lines that nodes have printed, by the node's name."""
    found = [Answer(**json.loads(line)) for line in text.splitlines() if line.startswith(_BEGINS)]
    return {answer.node: answer for answer in found}


def check(
    answers: Mapping[str, Answer],
    nodes: Collection[str],
    nonce_file: pathlib.Path,
    digest: str,
    asked_secs: tuple[float, float],
    said: str,
) -> None:
    """Compares what nodes answered with what is so here.

    Args:
      answers: by the node's name.
      nodes: that were asked.
      nonce_file: that `write_nonce` has written.
      digest: of the configuration.
      asked_secs: time.time() before and after they were asked.
      said: by those that did not answer.

    Raises:
      ConfigurationError: a node cannot run this, with its name, what is wrong, and the cure.
    """
    silent = [node for node in nodes if node not in answers]
    if silent:
        words = said.strip()[-500:] or "they said nothing"
        raise ConfigurationError(
            f"{', '.join(silent)} cannot run {sys.executable} -m tfdrl...: {words}; install Python "
            "and tfdrl at the same place on all nodes, or on a file system that they share"
        )
    nonce, python = nonce_file.read_text(), platform.python_version()
    for node in nodes:
        there = answers[node]
        if there.python != python or there.version != tfdrl.__version__:
            raise ConfigurationError(
                f"{node} has tfdrl {there.version} on Python {there.python}, and this machine "
                f"tfdrl {tfdrl.__version__} on Python {python}; install the same on all nodes"
            )
        if there.nonce != nonce:
            raise ConfigurationError(
                f"{node} does not see what is written to --root_dir={nonce_file.parent} here; "
                "choose a directory on a file system that all nodes share"
            )
        if there.error:
            raise ConfigurationError(f"{node}: {there.error}")
        if there.digest != digest:
            raise ConfigurationError(
                f"{node} reads other settings in the gin files than this machine does; put them "
                "on a file system that all nodes share, or make them the same"
            )
        if not asked_secs[0] - _CLOCK_SECS <= there.clock_secs <= asked_secs[1] + _CLOCK_SECS:
            ahead = there.clock_secs - asked_secs[1]
            raise ConfigurationError(
                f"the clock of {node} is {abs(ahead) / 60:.0f} minutes "
                f"{'ahead of' if ahead > 0 else 'behind'} this machine's; set it, as with chrony "
                "(certificates would not be valid there)"
            )


def _read(path: pathlib.Path) -> str:
    deadline_secs = time.monotonic() + _NONCE_SECS
    while path.parent.is_dir() and time.monotonic() < deadline_secs:
        try:
            return path.read_text()
        except OSError:
            time.sleep(0.5)
    return ""


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and prints the answer; returns the exit code."""
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_string("node", "", "Name of this node.", flag_values=values)
    flags.DEFINE_string("nonce_file", "", "File to read.", flag_values=values)
    flags.DEFINE_integer("ports", 0, "How many free ports to find.", flag_values=values)
    command_line.parse(values, argv, "Says what a launcher wants to know of this node.")
    gin = values.gin_file, values.gin_bindings
    node = values.node or os.environ.get("SLURMD_NODENAME", "")
    found = answer(node, pathlib.Path(values.nonce_file), values.ports, gin)
    print(json.dumps(found._asdict()), flush=True)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(command_line.run("tfdrl", main, sys.argv))
