"""SEED RL: actors without a policy, batched inference at the learner, unrolls made there.

actor: a step of N environments; a message; waits for the actions
learner: its interpreter takes messages one by one; a batch leaves when it has the rows that
         are wanted and a device is free, or its oldest message has waited for the time limit;
         unrolls into a bounded queue (full: the actor waits); a learner step on a batch of them
"""

from __future__ import annotations

import collections
from collections.abc import Generator

import simpy

from tfdrl.planning.site import Site
from tfdrl.planning.stations import Queue, repeated


class Batcher:
    """Messages into batches, as `tfdrl.inference.batcher` does it.

    Args:
      env: of SimPy.
      run: `run(rows, slot)` computes a batch.
      wanted: `wanted() -> int`: rows with which a batch leaves at once.
      max_rows: of one batch.
      time_limit_secs: after which it leaves as it is.
      slots: batches that are computed at the same time.
    """

    def __init__(self, env, run, wanted, max_rows: int, time_limit_secs: float, slots: int = 1):
        self._env, self._run, self._wanted, self._max_rows = env, run, wanted, max_rows
        self._limit_secs, self._slots = time_limit_secs, collections.deque(range(slots))
        self._waiting: collections.deque[tuple[int, float, simpy.Event]] = collections.deque()
        self._rows = 0
        self._is_looking = self._is_watching = False

    def compute(self, rows: int) -> simpy.Event:
        """An event when these rows have their answer."""
        done = self._env.event()
        self._waiting.append((rows, self._env.now, done))
        self._rows += rows
        if self._may_leave() and not self._is_looking:
            # After all that is ready by now: it goes with this message.
            self._is_looking = True
            self._env.timeout(0.0).callbacks.append(self._look_now)
        self._watch()
        return done

    def look(self) -> None:
        """Lets a batch leave if it is time and there is a slot."""
        while self._slots and self._waiting and self._may_leave():
            self._env.process(self._leave())
        self._watch()

    def _look_now(self, _) -> None:
        self._is_looking = False
        self.look()

    def _watch(self) -> None:
        """Looks when the oldest is late; one that is waits for a slot."""
        if self._is_watching or not self._waiting or self._is_late():
            return
        self._is_watching = True
        late_secs = self._waiting[0][1] + self._limit_secs
        self._env.timeout(late_secs - self._env.now).callbacks.append(self._look_late)

    def _look_late(self, _) -> None:
        self._is_watching = False
        self.look()

    def _may_leave(self) -> bool:
        return self._is_late() or self._rows >= min(self._wanted(), self._max_rows)

    def _is_late(self) -> bool:
        waited_secs = self._env.now - self._waiting[0][1]
        return waited_secs >= self._limit_secs * (1 - 1e-9)

    def _leave(self) -> Generator:
        batch, rows = [], 0
        while self._waiting and rows + self._waiting[0][0] <= self._max_rows:
            count, _, done = self._waiting.popleft()
            rows += count
            batch.append(done)
        self._rows -= rows
        slot = self._slots.popleft()
        return self._computed(batch, rows, slot)

    def _computed(self, batch, rows: int, slot: int) -> Generator:
        yield from self._run(rows, slot)
        for done in batch:
            done.succeed()
        self._slots.append(slot)
        self.look()


class Central:
    """The learner's side: interpreter, batcher, queue of unrolls.

    Args:
      site: where it is.
      config: `architectures.seed.Seed`.
    """

    def __init__(self, site: Site, config):
        self.site, self.config = site, config
        self.machine = site.machine("learner")
        self.interpreter = site.lock("the learner's interpreter")
        self.environments = site.replicas("actor") * config.environments_per_actor
        self.queue = Queue(site.env, config.queue_capacity_unrolls or config.taken_unrolls, True)
        self._without_room = 0
        self._apart = "" not in config.inference_devices and len(self.machine.devices) > 1
        max_rows = config.inference_max_batch_size or self.environments
        slots = len(config.inference_devices)
        limit_secs = config.inference_time_limit_ms / 1000
        self.batcher = Batcher(site.env, self._infer, self._wanted, max_rows, limit_secs, slots)
        self.step = 0

    def _wanted(self) -> int:
        return self.config.rows_wanted(self.environments - self._without_room)

    def _infer(self, rows: int, slot: int) -> Generator:
        # Batches are padded to powers of two, up to the largest there can be.
        padded = min(1 << (rows - 1).bit_length(), max(self.environments, rows))
        cost = self.site.costs.need("inference", padded)
        yield from self.site.compute(self.machine, cost, self._inference_device(slot))

    def _inference_device(self, slot: int) -> int:
        """Named devices come first, and training has those after them."""
        return slot if self._apart else 0

    @property
    def training_device(self) -> int:
        """The same one as for inference, unless gin names devices for that."""
        return len(self.config.inference_devices) if self._apart else 0

    def put(self, rows: int, version: int) -> Generator:
        """Unrolls of all rows, which began with that version; waits for room.

        Later steps are fresher: lag is counted as `learner/policy_lag` does it.
        """
        self._without_room += rows
        yield from self.queue.put(*[version] * rows)
        self._without_room -= rows
        self.batcher.look()


def start(site: Site, config, frames_per_step: int) -> None:
    """Starts all processes; config: `architectures.seed.Seed`."""
    central = Central(site, config)
    # Unrolls are at different steps from the start on: a part of each shows how they end.
    site.turn_steps = central.environments * max(config.unroll_steps // 4, 1)
    train = _train if config.replay_ratio is None else _train_from_replay
    site.start("learner", lambda task: train(site, config, central))
    site.start("actor", lambda task: _act(site, config, central, task))


def _act(site: Site, config, central: Central, task: int) -> Generator:
    rows, me, costs = config.environments_per_actor, site.machine("actor", task), site.costs
    stepping = repeated(costs.need("environment.step"), rows)
    sending, serving = costs.get("message.send", rows), costs.get("message.serve", rows)
    delay_secs = (site.slowness("actor", task) - 1.0) * stepping.secs
    made, first_version = site.random.randrange(config.unroll_steps), 0
    yield site.env.timeout(site.random.uniform(0.0, stepping.secs))
    while True:
        yield from site.work(me, stepping)
        if delay_secs:
            yield site.env.timeout(delay_secs)
        site.counts.steps += rows
        yield from site.work(me, sending)
        with site.waiting("actor"):
            yield from site.send(me, central.machine, "observation.bytes", rows)
            yield from central.interpreter.holding(lambda: site.work(central.machine, serving))
            made += 1
            if made == config.unroll_steps:
                yield from central.put(rows, first_version)
                made, first_version = 0, central.step
            yield central.batcher.compute(rows)


def _train(site: Site, config, central: Central) -> Generator:
    """Each unroll once (V-trace)."""
    step, making = site.costs.need("training.step"), site.costs.get("batch.make")
    while True:
        with site.waiting("learner"):
            versions = yield from central.queue.take(config.batch_size)
        yield from central.interpreter.holding(lambda: site.work(central.machine, making))
        for version in versions:
            site.counts.lag(central.step - version)
        yield from _learner_step(site, central, step)


def _learner_step(site: Site, central: Central, step) -> Generator:
    yield from site.compute(central.machine, step, central.training_device)
    central.step += 1
    site.counts.learner_steps += 1


def _train_from_replay(site: Site, config, central: Central) -> Generator:
    """Sequences into the replay and batches out of it, at the ratio (R2D2)."""
    costs, machine, replay = site.costs, central.machine, site.machine("replay")
    step, making = costs.need("training.step"), costs.get("batch.make")
    rows, batch = config.taken_unrolls, config.batch_size
    inserting = (
        repeated(costs.get("insert.item"), rows),
        repeated(costs.get("insert.item.server"), rows),
    )
    reading = (
        repeated(costs.get("sample.item.server"), batch),
        repeated(costs.get("sample.item"), batch),
    )
    due = 0.0
    while True:
        while due < batch:
            with site.waiting("learner"):
                versions = yield from central.queue.take(rows)
            yield from site.work(machine, inserting[0])
            yield from site.send(machine, replay, "item.bytes", rows)
            yield from site.work(replay, inserting[1])
            due += config.replay_ratio * len(versions)
        yield from site.work(replay, reading[0])
        yield from site.send(replay, machine, "item.bytes", batch)
        yield from site.work(machine, reading[1])
        yield from central.interpreter.holding(lambda: site.work(machine, making))
        yield from _learner_step(site, central, step)
        yield from site.work(machine, costs.get("priorities.update"))
        due -= batch
