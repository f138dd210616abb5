"""The replay role: a server that checkpoints on a period and when told to stop."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable

from tfdrl.errors import NOTICE
from tfdrl.replay.server import ReplayServer
from tfdrl.replay.transition_table import TABLE, TableDefaults, make_table
from tfdrl.replay.unknown_changes import TableWatch
from tfdrl.runtime.metrics import Every, MetricsWriter, Rate
from tfdrl.topology import Context

_PERIOD_SECS = 5.0


def serve(tables: Callable, context: Context, checkpoint_period_secs: float) -> None:
    """Serves until `context.stop`.

    Args:
      tables: `tables()` makes the Reverb tables.
      context: of the role.
      checkpoint_period_secs: between checkpoints; 0: only at the end.
    """
    if not context.listen.is_loopback:
        logging.warning(
            "Reverb listens on all interfaces without authentication: let only this run's hosts "
            "reach port %d",
            context.listen.port,
        )
    name = "replay" if context.replicas == 1 else f"replay-{context.task}"
    server = ReplayServer(tables, context.listen, pathlib.Path(context.root_dir) / name)
    metrics = MetricsWriter(context.root_dir, context.role, context.task)
    checkpoint_is_due = Every(checkpoint_period_secs or float("inf"))
    rates: dict[str, Rate] = {}
    watch = TableWatch()
    while not context.stop.wait(_PERIOD_SECS):
        tables = server.info()
        for words in (*watch.look(tables), *server.unknown_checkpoints()):
            logging.error("%s%s: let only this run's hosts reach this server", NOTICE, words)
        for name, info in tables.items():
            _write_metrics(metrics, name, info, rates)
        if checkpoint_is_due():
            server.checkpoint()
    server.checkpoint()
    metrics.close()


def serve_table(
    factory: Callable | None,
    signature,
    defaults: TableDefaults,
    context: Context,
    checkpoint_period_secs: float,
    name: str = TABLE,
) -> None:
    """`serve` of an architecture's one table; arguments as of `make_table` and `serve`."""
    serve(lambda: [make_table(factory, signature, defaults, name)], context, checkpoint_period_secs)


def _write_metrics(metrics: MetricsWriter, name: str, info, rates: dict[str, Rate]) -> None:
    limits = info.rate_limiter_info
    counts = {
        "inserts": limits.insert_stats.completed,
        "samples": limits.sample_stats.completed,
    }
    values = {"replay/size": info.current_size}
    for kind, count in counts.items():
        rate = rates.setdefault(f"{name}/{kind}", Rate(count))
        values[f"replay/{kind}_per_second"] = rate.take(count)
    metrics.write(counts["inserts"], values)
