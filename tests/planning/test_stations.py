"""Stations against closed forms of queueing theory."""

import random

import pytest
import simpy

from tfdrl.planning.central_inference import Batcher
from tfdrl.planning.stations import Link, Lock, Processor, Queue

_SERVICE_SECS, _CUSTOMERS = 1.0, 20_000


def _mean_sojourn_secs(serve, load):
    """Of Poisson arrivals, each of which `serve(env) -> function to a process` takes care of."""
    env, generator, sojourns = simpy.Environment(), random.Random(1), []
    service = serve(env)

    def customer():
        since = env.now
        yield from service()
        sojourns.append(env.now - since)

    def arrivals():
        for _ in range(_CUSTOMERS):
            yield env.timeout(generator.expovariate(load / _SERVICE_SECS))
            env.process(customer())

    env.process(arrivals())
    env.run()
    return sum(sojourns) / len(sojourns)


def _link(env):
    link = Link(env, "link", 1.0)

    def service():
        yield link.send(_SERVICE_SECS)

    return service


def _lock(env):
    lock = Lock(env, "lock")

    def work():
        yield env.timeout(_SERVICE_SECS)

    return lambda: lock.holding(work)


def _processor(env):
    processor = Processor(env, "core", 1.0)

    def service():
        yield processor.run(_SERVICE_SECS)

    return service


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("serve", [_link, _lock], ids=["link", "lock"])
def test_first_come_first_served_waits_as_m_d_1(serve, load):
    """Pollaczek and Khinchine: W = rho s / (2 (1 - rho))."""
    waiting_secs = _mean_sojourn_secs(serve, load) - _SERVICE_SECS
    assert waiting_secs == pytest.approx(load * _SERVICE_SECS / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_a_processor_shares_as_m_g_1_ps(load):
    """T = s / (1 - rho), whatever the distribution: twice the waiting of M/D/1."""
    sojourn_secs = _mean_sojourn_secs(_processor, load)
    assert sojourn_secs == pytest.approx(_SERVICE_SECS / (1 - load), rel=0.05)


def test_jobs_share_cores_by_what_they_want():
    env, ends = simpy.Environment(), {}
    processor = Processor(env, "cores", 2.0)

    def job(name, cpu_secs, cores, at):
        yield env.timeout(at)
        yield processor.run(cpu_secs, cores)
        ends[name] = env.now

    for args in (("a", 2.0, 1.0, 0.0), ("b", 4.0, 2.0, 0.0), ("c", 1.0, 1.0, 10.0)):
        env.process(job(*args))
    env.run()
    # a and b want three of two cores: both run at two thirds of their speed, and end together.
    assert ends == {"a": pytest.approx(3.0), "b": pytest.approx(3.0), "c": pytest.approx(11.0)}
    assert processor.busy_secs == pytest.approx(3.0 + 0.5)


@pytest.mark.parametrize("customers", [1, 3, 5, 6, 20])
def test_a_closed_network_keeps_asymptotic_bounds(customers):
    """Lazowska et al., Quantitative System Performance, 5.2: X(N) <= min(N / (D + Z), 1 / D).

    With times that do not vary nobody waits before the station is full: the bound is met.
    """
    think_secs, demand_secs, until_secs = 4.0, 1.0, 1000.0
    env, done = simpy.Environment(), []
    lock = Lock(env, "lock")

    def work():
        yield env.timeout(demand_secs)

    def customer():
        while True:
            yield env.timeout(think_secs)
            yield from lock.holding(work)
            done.append(env.now)

    for _ in range(customers):
        env.process(customer())
    env.run(until=until_secs)
    bound = min(customers / (demand_secs + think_secs), 1 / demand_secs)
    assert len(done) / until_secs == pytest.approx(bound, rel=0.02)
    assert lock.busy_secs / until_secs == pytest.approx(bound * demand_secs, rel=0.02)


@pytest.mark.parametrize(("produce_secs", "consume_secs"), [(1.0, 3.0), (3.0, 1.0)])
def test_a_pipeline_is_as_fast_as_its_slowest_stage(produce_secs, consume_secs):
    env, taken = simpy.Environment(), []
    queue = Queue(env, 2)

    def producer():
        for number in range(10_000):
            yield env.timeout(produce_secs)
            yield from queue.put(number)

    def consumer():
        while True:
            taken.extend((yield from queue.take(2)))
            yield env.timeout(2 * consume_secs)

    env.process(producer())
    env.process(consumer())
    env.run(until=3000.0)
    assert taken == list(range(len(taken))) and len(queue) <= 2
    assert len(taken) / 3000.0 == pytest.approx(1 / max(produce_secs, consume_secs), rel=0.01)


def test_a_batch_leaves_when_it_is_full_or_late():
    env, batches = simpy.Environment(), []

    def run(rows, slot):
        batches.append((env.now, rows))
        yield env.timeout(1.0)

    batcher = Batcher(env, run, lambda: 4, 8, time_limit_secs=0.5)

    def message(at, rows):
        yield env.timeout(at)
        yield batcher.compute(rows)

    for at, rows in ((0.0, 2), (0.1, 2), (5.0, 3), (10.0, 4), (10.2, 6), (10.3, 6)):
        env.process(message(at, rows))
    env.run()
    # full; late; full, then two that together were too many, one after the other
    assert batches == [(0.1, 4), (5.5, 3), (10.0, 4), (11.0, 6), (12.0, 6)]


def _events(env):
    """How many there are until nothing is left to do."""
    for count in range(1_000_000):
        if env.peek() == float("inf"):
            return count
        env.step()
    raise AssertionError("it never ends")


def test_a_lock_is_free_again_when_its_holders_work_fails():
    env, done = simpy.Environment(), []
    lock = Lock(env, "lock")

    def failing():
        yield env.timeout(1.0)
        raise ValueError

    def first():
        with pytest.raises(ValueError):
            yield from lock.holding(failing)

    def second():
        yield from lock.holding(lambda: iter([env.timeout(2.0)]))
        done.append(env.now)

    for customer in (first(), second(), second()):
        env.process(customer)
    env.run()
    assert done == [3.0, 5.0] and lock.busy_secs == 5.0


def test_what_nobody_delays_takes_few_events():
    """Of each job its start, its end and the alarm for it; a lock that is free takes none."""
    env, jobs, steps = simpy.Environment(), 50, 20
    processor, lock = Processor(env, "cores", jobs), Lock(env, "lock")

    def nothing():
        return iter(())

    def work(task):
        yield env.timeout(1e-3 * task)
        for _ in range(steps):
            yield processor.run(1.0)
            yield from lock.holding(nothing)

    for task in range(jobs):
        env.process(work(task))
    assert _events(env) <= jobs * (2 * steps + 3)


def test_a_message_that_waits_for_its_batch_takes_one_event():
    env, batches, messages = simpy.Environment(), 50, 40

    def run(rows, slot):
        yield env.timeout(1.0)

    batcher = Batcher(env, run, lambda: messages, messages, time_limit_secs=100.0)
    for batch in range(batches):

        def send(_):
            for _ in range(messages):
                batcher.compute(1)

        env.timeout(10.0 * batch).callbacks.append(send)
    assert _events(env) <= batches * (messages + 6)
