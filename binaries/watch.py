"""Shows a run that is under way anywhere: the panel of its launcher, without a hand on it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line, process, services
from tfdrl.launch.tools import health
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

_USAGE = """Shows a run that is under way, wherever it was started; it changes nothing there.

  tfdrl-watch --root_dir=runs/a                 one of tfdrl-train, here or with Slurm
  tfdrl-watch --learner=hub:8000                any learner or coordinator (TLS: --tls_ca, ...)
  tfdrl-watch --root_dir=runs/a --once --json   its status, for scripts

Ctrl-C ends the view, not the run. Exit codes: 0, or 1 if nobody answers."""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("root_dir", "", "Directory of the run.", flag_values=values)
    about = "host:port of the learner, or coordinator; of several learners, all, with commas."
    flags.DEFINE_string("learner", "", about, flag_values=values)
    flags.DEFINE_bool("once", False, "Show it once and leave.", flag_values=values)
    flags.DEFINE_bool("json", False, "With --once: the whole status as JSON.", flag_values=values)
    about = "Time for the first answer."
    command_line.float_flag(values, "timeout_secs", 10.0, about, lowest=0.1)
    for name, about in (
        ("tls_certificate", "PEM file: a certificate of ours, where the learner asks for one."),
        ("tls_key", "PEM file: its private key."),
        ("tls_ca", "PEM file: who signed the learner's certificate."),
        ("token_file", "File with the run's token."),
    ):
        flags.DEFINE_string(name, "", about, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and shows the run; returns the exit code."""
    process.silence()
    values = _flags()
    rest = command_line.parse(values, argv, _USAGE, allow_unknown=True)
    if rest and not values.root_dir and not rest[0].startswith("-"):
        values.root_dir, rest = rest[0], rest[1:]
    if rest:
        raise command_line.unknown_argument(rest[0], values)
    if values.json and not values.once:
        raise ConfigurationError("--json goes with --once")
    addresses, security = _whom(values)
    from tfdrl.launch import panel
    from tfdrl.launch.status import Tracker
    from tfdrl.launch.tools import watch

    if values.once:
        status = watch.once(addresses, security, values.timeout_secs)
        now_secs = time.monotonic()
        tracker = Tracker(now_secs)
        tracker.add(status, now_secs)
        words = panel.line(watch.facts(tracker.snapshot))
        print(watch.as_json(status) if values.json else words)
        return EXIT_OK
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *unused: stop.set())
    why = watch.follow(addresses, security, values.timeout_secs, stop.is_set)
    if why:
        print(why)
    return EXIT_OK


def _whom(values: flags.FlagValues) -> tuple[list[Address], Security]:
    """The addresses, and the security of the channels there."""
    if bool(values.root_dir) == bool(values.learner):
        raise ConfigurationError("give either --root_dir of a run, or --learner=host:port")
    if values.root_dir:
        texts, credentials = services.read(values.root_dir)
        if not texts:
            raise ConfigurationError(f"the run in {values.root_dir} has no learner to ask")
        return [Address.parse(text, "learner") for text in texts], credentials.security
    files = (values.tls_certificate, values.tls_key, values.tls_ca, values.token_file)
    security = Security.from_files(*files)
    return [health.address_of(text, "learner") for text in values.learner.split(",")], security


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl watch", main, sys.argv))


if __name__ == "__main__":
    console()
