"""Ape-X and R2D2: many actors, one learner, a replay between them, and a ratio that may hold both.

    actor: n-step transitions in blocks (Ape-X) or a sequence of T steps (R2D2) into the replay;
           waits while the ratio says that actors are ahead; parameters on a period, in background
    learner: batches sampled ahead; waits while the ratio says that it is ahead; learner steps; new
             priorities; publish

The simulation begins with a replay that holds `min_size` items, at the centre of the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Generator

from tfdrl.planning import acting, policy_copies
from tfdrl.planning.settings_of_gin import min_size
from tfdrl.planning.site import Machine, Site
from tfdrl.planning.stations import Changes, Queue, repeated
from tfdrl.replay.replay_ratio import ReplayRatio
from tfdrl.types import ItemCounts


class Replay:
    """Counts of the replay, and who may go on by them."""

    def __init__(self, site: Site, config, samples_per_call: int, block_items: int):
        """`block_items`: that all actors together insert at once."""
        self.machine, self.samples_per_call = site.machine("replay"), samples_per_call
        self._changes, self._inserted, self._sampled, self._ratio = Changes(site.env), 0, 0, None
        if config.replay_ratio is not None:
            least = min_size(config)
            # Beyond this a wider one changes only how long it takes until somebody waits.
            enough = 2 * max(math.ceil(samples_per_call / config.replay_ratio), block_items)
            tolerance = min(config.replay_ratio_tolerance_items or least, enough)
            self._inserted = least
            self._ratio = ReplayRatio(config.replay_ratio, samples_per_call, least, tolerance)

    def _counts(self) -> ItemCounts:
        return ItemCounts(self._inserted, self._sampled)

    def may_insert(self) -> Generator:
        """Waits until actors may."""
        if self._ratio is not None:
            yield from self._changes.until(lambda: self._ratio.allows_inserting(self._counts()))

    def may_train(self) -> Generator:
        """Waits until the learner may make one more call."""
        if self._ratio is not None:
            yield from self._changes.until(lambda: self._ratio.allows_training(self._counts()))

    def insert(self, items: int) -> None:
        """So many are there now."""
        self._inserted += items
        self._changes.tell()

    def sample(self) -> None:
        """One more call was trained on."""
        self._sampled += self.samples_per_call
        self._changes.tell()


class _Published:
    """What the learner serves, and its interpreter."""

    def __init__(self, site: Site, config):
        self.machine = site.machine("learner")
        self.interpreter = site.lock("the learner's interpreter")
        self._period_steps, self.step = config.publish_period_steps, 0

    @property
    def version(self) -> int:
        return self.step // self._period_steps * self._period_steps


def start(site: Site, config, frames_per_step: int) -> None:
    """Starts all processes; config: `architectures.apex.Apex` or `architectures.r2d2.R2d2`."""
    updates = getattr(config, "updates_per_call", 1)
    together = block_of(config)[1] * site.replicas("actor")
    replay = Replay(site, config, config.batch_size * updates, together)
    published = _Published(site, config)
    batches = Queue(site.env, config.prefetch_batches)
    site.env.process(sample(site, replay, published.machine, batches))
    site.start("learner", lambda task: _train(site, config, replay, published, batches, updates))

    site.turn_steps = config.environments_per_actor * block_of(config)[0] * site.replicas("actor")

    def act(task: int) -> Generator:
        fetch = Fetching(site, site.machine("actor", task), published)
        return act_into_replay(site, config, replay, fetch, task, frames_per_step)

    site.start("actor", act)


def sample(site: Site, replay: Replay, machine: Machine, batches: Queue) -> Generator:
    """Batches for one learner, ahead of its training."""
    count = replay.samples_per_call
    server = repeated(site.costs.get("sample.item.server"), count)
    client = repeated(site.costs.get("sample.item"), count)
    while True:
        yield from site.work(replay.machine, server)
        yield from site.send(replay.machine, machine, "item.bytes", count)
        yield from site.work(machine, client)
        yield from batches.put(None)


def _train(site: Site, config, replay: Replay, published, batches, updates: int) -> Generator:
    costs, machine = site.costs, published.machine
    making, step = costs.get("batch.make"), costs.need("training.step")
    priorities = repeated(costs.get("priorities.update"), updates)
    while True:
        with site.waiting("learner"):
            yield from replay.may_train()
            yield from batches.take(1)
        yield from published.interpreter.holding(lambda: site.work(machine, making))
        yield from site.compute(machine, repeated(step, updates))
        replay.sample()
        yield from site.work(machine, priorities)
        published.step += updates
        site.counts.learner_steps += updates


class Fetching:
    """An actor's parameters, which are asked for in the background and taken when they are due.

    Args:
      site: where.
      me: the actor's machine.
      published: the learner, with its `machine`, `interpreter`, `version` and `step`.
    """

    def __init__(self, site: Site, me: Machine, published):
        self._site, self._me, self._published = site, me, published
        self._newest = self.version = 0

    def due(self) -> None:
        """Takes what came since the last call, and asks for newer ones."""
        self.version = self._newest
        self._site.env.process(self._fetch())

    def _fetch(self) -> Generator:
        published, version = self._published, self._published.version
        is_newer, machine = version != self._newest, published.machine
        yield from policy_copies.pull(
            self._site, self._me, machine, published.interpreter, is_newer
        )
        self._newest = version

    @property
    def lag(self) -> int:
        """Learner steps that the policy is behind."""
        return self._published.step - self.version


def block_of(config) -> tuple[int, int]:
    """(steps, items) after which an actor writes."""
    count = config.environments_per_actor
    if hasattr(config, "sequence_steps"):
        return config.sequence_steps, count
    steps = -(-config.actor_buffer_transitions // count)
    return steps, steps * count


def act_into_replay(
    site: Site, config, replay: Replay, fetch: Fetching, task: int, frames_per_step: int
) -> Generator:
    """An actor's life; the lag is that of the policy when it acts."""
    costs, me = site.costs, site.machine("actor", task)
    count, (steps, items) = config.environments_per_actor, block_of(config)
    cost = acting.step_cost(site, count)
    frames = count * frames_per_step
    pull_steps = max(-(-config.parameter_pull_period_frames // frames), 1)
    pace = acting.pace_secs(config.actor_max_frames_per_second, frames, cost)
    write, serve = (repeated(costs.get(n), items) for n in ("insert.item", "insert.item.server"))
    yield from acting.somewhere_within(site, steps * cost.secs)
    for part, ends_block, pulls in parts(steps, pull_steps):
        yield from acting.act(site, me, "actor", task, cost, part)
        if pace:
            yield site.env.timeout(pace * part)
        site.counts.steps += part * count
        if ends_block:
            yield from site.work(me, write)
            with site.waiting("actor"):
                yield from site.send(me, replay.machine, "item.bytes", items)
                yield from site.work(replay.machine, serve)
                site.counts.lag(fetch.lag)
                replay.insert(items)
                yield from replay.may_insert()
        if pulls:
            fetch.due()


def parts(block_steps: int, pull_steps: int):
    """Yields (steps, whether a block is full after them, whether a pull is due), for ever."""
    now = 0
    while True:
        after = min(-(-(now + 1) // period) * period for period in (block_steps, pull_steps))
        yield after - now, after % block_steps == 0, after % pull_steps == 0
        now = after
