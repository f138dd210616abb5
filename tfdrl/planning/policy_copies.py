"""IMPALA: actors with copies of the policy, a bounded queue of unrolls, learners in step.

actor: pull parameters; T steps of N environments; N unrolls into the queue (full: wait)
learner: a batch from the queue, made while the one before is trained on; a learner step;
         publish. Several learners take every step together.
"""

from __future__ import annotations

from collections.abc import Generator

from tfdrl.planning import acting
from tfdrl.planning.site import Machine, Site
from tfdrl.planning.stations import Queue, repeated


def start(site: Site, config, frames_per_step: int) -> None:
    """Starts all processes; config: `architectures.impala.Impala`."""
    turn = config.unroll_steps * config.environments_per_actor
    site.turn_steps = turn * site.replicas("actor")
    learners = [_Learner(site, config, task) for task in range(site.replicas("learner"))]
    together = _Together(site, config, learners)
    site.start("learner", lambda task: learners[task].train(together))
    for one in learners:
        site.env.process(one.read())
    site.start("actor", lambda task: _act(site, config, task, frames_per_step, learners, together))


class _Together:
    """All learners' step, and the version that they have published."""

    def __init__(self, site: Site, config, learners):
        self._site, self._config, self._learners = site, config, learners
        self._ready, self._all = 0, site.env.event()
        self.step = 0

    @property
    def version(self) -> int:
        """Of the parameters that actors get."""
        config = self._config
        published = self.step // config.publish_period_steps * config.publish_period_steps
        return max(published - config.policy_lag_steps, 0)

    def wait(self) -> Generator:
        """Until all have a batch."""
        self._ready += 1
        if self._ready < len(self._learners):
            yield self._all
            return
        self._ready, all_ready, self._all = 0, self._all, self._site.env.event()
        all_ready.succeed()


class _Learner:
    """One learner, its queue, and the batch that is made ahead."""

    def __init__(self, site: Site, config, task: int):
        self.site, self.config, self.task = site, config, task
        self.machine = site.machine("learner", task)
        self.replay = site.machine("replay", task)
        capacity = config.queue_capacity_unrolls or config.fresh_unrolls
        self.queue = Queue(site.env, capacity)
        self.batches = Queue(site.env, 1)
        self.interpreter = site.lock("the learner's interpreter")

    def read(self) -> Generator:
        """Makes batches, one ahead."""
        site, config, costs = self.site, self.config, self.site.costs
        server = repeated(costs.get("sample.item.server"), config.batch_size)
        client = repeated(costs.get("sample.item"), config.batch_size)
        making = costs.get("batch.make")
        while True:
            versions = yield from self.queue.take(config.fresh_unrolls)
            yield from site.work(self.replay, server)
            yield from site.send(self.replay, self.machine, "item.bytes", config.batch_size)
            yield from site.work(self.machine, client)
            yield from self.interpreter.holding(lambda: site.work(self.machine, making))
            yield from self.batches.put(versions)

    def train(self, together: _Together) -> Generator:
        """Learner steps, all learners together; the chief counts them."""
        site, step = self.site, self.site.costs.need("training.step")
        while True:
            with site.waiting("learner"):
                (versions,) = yield from self.batches.take(1)
                yield from together.wait()
            for version in versions:
                site.counts.lag(together.step - version)
            yield from site.compute(self.machine, step)
            if self.task == 0:
                together.step += 1
                site.counts.learner_steps += 1


def _act(site: Site, config, task: int, frames_per_step: int, learners, together) -> Generator:
    count, unroll = config.environments_per_actor, config.unroll_steps
    me, learner = site.machine("actor", task), learners[task % len(learners)]
    cost, costs = acting.step_cost(site, count), site.costs
    frames = unroll * count * frames_per_step
    pace = acting.pace_secs(config.actor_max_frames_per_second, frames, repeated(cost, unroll))
    write = repeated(costs.get("insert.item"), count)
    serve = repeated(costs.get("insert.item.server"), count)
    version = 0
    yield from acting.somewhere_within(site, unroll * cost.secs + pace)
    while True:
        yield from acting.act(site, me, "actor", task, cost, unroll)
        if pace:
            yield site.env.timeout(pace)
        site.counts.steps += unroll * count
        yield from site.work(me, write)
        with site.waiting("actor"):
            yield from site.send(me, learner.replay, "item.bytes", count)
            yield from site.work(learner.replay, serve)
            yield from learner.queue.put(*[version] * count)
            newest = together.version
            yield from pull(site, me, learner.machine, learner.interpreter, newest != version)
        version = newest


def pull(site: Site, me: Machine, source: Machine, interpreter, is_newer: bool) -> Generator:
    """Asks for parameters, which move only if there are newer ones."""
    serving = site.costs.get("parameters.serve")
    yield from site.work(me, site.costs.get("parameters.pull"))
    yield from interpreter.holding(lambda: site.work(source, serving))
    yield from site.send(source, me, "parameters.bytes", 1.0 if is_newer else 0.0)
