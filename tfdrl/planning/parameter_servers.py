"""A3C and Gorila: gradients that meet at parameter servers, shard by shard.

A3C's worker: t_max steps of N environments; the gradient; push it and take the newest
              parameters (each shard: one after the other); synchronous: all workers together
Gorila's bundle: update_period steps between two gradients; unbundled: actors fill a replay,
                 learners sample it, and both take parameters from the servers
"""

from __future__ import annotations

from collections.abc import Generator

from tfdrl.errors import ConfigurationError
from tfdrl.planning import acting, prioritised_replay
from tfdrl.planning.site import Machine, Site
from tfdrl.planning.stations import Queue, repeated

#: A straggler's wait is no longer (`acting.artificial_stragglers`).
_MAX_WAIT_SECS = 10.0


class Servers:
    """All shards: what a gradient meets.

    Attributes:
      version: updates so far.

    Args:
      site: where they are.
      role: whose gradients they are.
      barrier: workers that make an update together; 0: each by itself.
    """

    def __init__(self, site: Site, role: str, barrier: int = 0):
        self._site, self._role, self._barrier = site, role, barrier
        count = site.replicas("parameter_server")
        self._machines = [site.machine("parameter_server", i) for i in range(count)]
        self._locks = [site.lock("parameter servers") for _ in range(count)]
        self._share = 1.0 / count
        self._arrived, self._applied = 0, site.env.event()
        self.version = 0

    def update(self, me: Machine, version: int) -> Generator:
        """Pushes a gradient of that version and takes the newest parameters."""
        site, costs = self._site, self._site.costs
        yield from site.work(me, costs.get("gradient.push"))
        shards = [site.env.process(self._shard(i, me)) for i in range(len(self._locks))]
        with site.waiting(self._role):
            yield site.env.all_of(shards)
        site.counts.lag(self.version - version)
        if self._barrier:
            yield from self._together()
        else:
            self.version += 1
            site.counts.learner_steps += 1

    def _together(self) -> Generator:
        """One update of all workers' gradients."""
        self._arrived += 1
        if self._arrived < self._barrier:
            with self._site.waiting(self._role):
                yield self._applied
            return
        self._arrived, applied, self._applied = 0, self._applied, self._site.env.event()
        self.version += 1
        self._site.counts.learner_steps += 1
        applied.succeed()

    def _shard(self, number: int, me: Machine) -> Generator:
        site, there = self._site, self._machines[number]
        apply = repeated(site.costs.get("gradient.apply"), self._share)
        yield from site.send(me, there, "parameters.bytes", self._share)
        yield from self._locks[number].holding(lambda: site.work(there, apply))
        yield from site.send(there, me, "parameters.bytes", self._share)


def start(site: Site, config, frames_per_step: int) -> None:
    """Starts all processes; config: `architectures.a3c.A3c` or `architectures.gorila.Gorila`.

    Raises ConfigurationError for what has no model.
    """
    if getattr(config, "threads", False):
        raise ConfigurationError(
            "a3c.threads = True has no model: in one process all workers share an interpreter; "
            "plan with a3c.threads = False"
        )
    if not getattr(config, "bundled", True):
        _start_unbundled(site, config, frames_per_step)
        return
    barrier = site.replicas("worker") if getattr(config, "synchronous", False) else 0
    servers = Servers(site, "worker", barrier)
    count = config.environments_per_worker
    # Steps of N environments between two gradients, and gradients then.
    steps, updates = getattr(config, "t_max", None), 1
    if steps is None:
        steps = max(config.update_period_steps // count, 1)
        updates = max(count // config.update_period_steps, 1)
    site.turn_steps = steps * count * site.replicas("worker")
    site.start("worker", lambda task: _work(site, config, task, servers, count, steps, updates))


def _work(site: Site, config, task, servers: Servers, count, steps, updates) -> Generator:
    me, cost = site.machine("worker", task), acting.step_cost(site, count)
    read = site.costs.get("sample.item") if hasattr(config, "replay_capacity_steps") else None
    version = servers.version
    yield from acting.somewhere_within(site, steps * cost.secs)
    while True:
        since = site.env.now
        yield from acting.act(site, me, "worker", task, cost, steps)
        site.counts.steps += steps * count
        for _ in range(updates):
            if read is not None:
                yield from site.work(me, repeated(read, config.batch_size))
            yield from _straggle(site, config, "worker", task, site.env.now - since)
            since = site.env.now
            yield from _gradient(site, me, servers, version)
            version = servers.version


def _gradient(site: Site, me: Machine, servers: Servers, version: int) -> Generator:
    yield from site.compute(me, site.costs.need("gradient.step"))
    yield from servers.update(me, version)


def _straggle(site: Site, config, role: str, task: int, work_secs: float) -> Generator:
    """What gin's `slowed_workers` wait before a gradient."""
    if task >= site.replicas(role) - config.slowed_workers:
        yield site.env.timeout(min((config.slowdown - 1.0) * work_secs, _MAX_WAIT_SECS))


class _FromServers:
    """Where unbundled actors have their parameters from."""

    def __init__(self, site: Site, servers: Servers):
        self.machine, self._servers = site.machine("parameter_server"), servers
        self.interpreter = site.lock("pulls of parameters")

    @property
    def version(self) -> int:
        return self._servers.version

    step = version


class _Acting:
    """Gorila's settings, under the names that Ape-X's actors have."""

    def __init__(self, config):
        self._config, self.environments_per_actor = config, config.environments_per_worker

    def __getattr__(self, name: str):
        return getattr(self._config, name)


def _start_unbundled(site: Site, config, frames_per_step: int) -> None:
    servers = Servers(site, "learner")
    together = prioritised_replay.block_of(_Acting(config))[1] * site.replicas("actor")
    replay = prioritised_replay.Replay(site, config, config.batch_size, together)
    source = _FromServers(site, servers)

    site.turn_steps = together

    def learn(task: int) -> Generator:
        me = site.machine("learner", task)
        batches = Queue(site.env, config.prefetch_batches)
        site.env.process(prioritised_replay.sample(site, replay, me, batches))
        return _learn(site, config, task, me, servers, replay, batches)

    def act(task: int) -> Generator:
        fetch = prioritised_replay.Fetching(site, site.machine("actor", task), source)
        return prioritised_replay.act_into_replay(
            site, _Acting(config), replay, fetch, task, frames_per_step
        )

    site.start("learner", learn)
    site.start("actor", act)


def _learn(site: Site, config, task, me, servers: Servers, replay, batches: Queue) -> Generator:
    version = 0
    while True:
        with site.waiting("learner"):
            yield from replay.may_train()
            yield from batches.take(1)
        yield from _gradient(site, me, servers, version)
        version = servers.version
        replay.sample()
