"""tfdrl-benchmark on SEED: real servers and actors, figures that follow from each other."""

import time

import benchmark_runs
import pytest

from tfdrl import configuration
from tfdrl.benchmarks import seed, seed_processes
from tfdrl.benchmarks.many_actors import Chief
from tfdrl.benchmarks.measuring import Rounds
from tfdrl.benchmarks.processes import Job
from tfdrl.errors import UnavailableError
from tfdrl.experiment import Experiment
from tfdrl.rpc import client_stream
from tfdrl.rpc.security import Security
from tfdrl.topology import Address


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_service_and_whole_are_measured(tmp_path):
    arguments = [
        "--gin_file=seed/random_frames_vtrace.gin",
        "--parts=a,e",
        "--rounds=1",
        "--round_secs=0.5",
        "--seconds=3",
        "--gin_bindings=seed.actors = 2",
        "--gin_bindings=seed.batch_size = 8",
        "--gin_bindings=VTraceAgent.network = @ShallowActorCriticNetwork",
    ]
    tables, done = benchmark_runs.sections(tmp_path, *arguments, timeout_secs=350)
    service, whole, processes = tables
    figures = benchmark_runs.figures(service)
    bare = ("bare grpcio stream, same messages", "bare grpcio stream, driven by one thread")
    names = (*bare, "service without a network", "service")
    echo, one_thread, null, network = (figures[name] for name in names)
    assert min(echo, one_thread, null) > 100 and network > 50
    assert figures["service without a network / bare grpcio"] == pytest.approx(null / echo)
    limit = figures["limit of the service by these costs"]
    assert figures["service / its limit"] == pytest.approx(network / limit)
    assert "2 actors of 4 environments" in service["title"]
    figures = benchmark_runs.figures(whole)
    assert figures["environment steps"] > 20 and figures["learner steps"] > 0
    figures = benchmark_runs.figures(processes)
    assert figures["actor 0: memory (RSS)"] < 200 < figures["learner: memory (RSS)"]
    assert "Inference service" in done.stdout and "round 1 of 1" in done.stderr


@pytest.mark.parametrize("actor", ["bare_actor", "bare_actor_of_one_thread"])
def test_bare_actors_exchange_steps_with_the_echo_for_as_long_as_they_are_told(tmp_path, actor):
    bindings = ["seed.actors = 2", "seed.environments_per_actor = 3"]
    loaded = configuration.load(["seed/cartpole_vtrace.gin"], bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    job = Job(config, 1, loaded.digest, tmp_path, Rounds(1, 0.1))
    server = seed_processes.echo_server(job)
    address = next(server)
    bare = getattr(seed_processes, actor)
    actors = [bare(job, address, task) for task in range(2)]
    assert [next(actor) for actor in actors] == [None, None]  # they are connected
    counts = [actor.send(0.1) for actor in actors]
    assert min(counts) > 3 and not any(count % 3 for count in counts)
    assert actors[0].send(0.0) == 0


def test_a_bare_actor_counts_no_failures(tmp_path, monkeypatch):
    loaded = configuration.load(["seed/cartpole_vtrace.gin"], [], tensorflow=False)
    job = Job(Experiment.from_gin().architecture, 1, loaded.digest, tmp_path, Rounds(1, 0.1))
    nobody = Address("127.0.0.1", 1)
    with pytest.raises(UnavailableError, match=r"echo at 127\.0\.0\.1:1 gave no answer: UNAVAIL"):
        next(seed_processes.bare_actor_of_one_thread(job, nobody, 0))
    monkeypatch.setattr(client_stream, "one_is_enough", lambda: False)
    with pytest.raises(UnavailableError, match="has no stream that one thread drives"):
        next(seed_processes.bare_actor_of_one_thread(job, nobody, 0))


@pytest.mark.slow
def test_streams_are_known_to_the_service_that_is_measured(tmp_path):
    bindings = ["seed.actors = 3"]
    loaded = configuration.load(["seed/sleeping_vtrace.gin"], bindings, tensorflow=True)
    config = Experiment.from_gin().architecture
    job = Job(config, 1, loaded.digest, tmp_path, Rounds(1, 0.1))
    address = next(seed_processes.null_server(job))
    threads = seed_processes.acting_threads(job, address, range(3))
    assert next(threads) is None

    def known():
        with Chief(address, Security()) as chief:
            return [(role.role, role.task) for role in chief.ask().status.roles]

    threads.send((1.0, 2))
    assert known() == [("actor", 0), ("actor", 1)]  # streams come with the level that has them
    count, times_ms = threads.send((1.0, 3))
    assert count > 10 and len(times_ms) > 10
    assert known() == [("actor", task) for task in range(3)]
    threads.close()


def test_streams_that_nobody_answers_are_said(tmp_path, monkeypatch):
    loaded = configuration.load(["seed/sleeping_vtrace.gin"], [], tensorflow=False)
    config = Experiment.from_gin().architecture
    job = Job(config, 1, loaded.digest, tmp_path, Rounds(1, 0.1))
    threads = seed_processes.acting_threads(job, Address("127.0.0.1", 1), range(2))
    next(threads)
    monkeypatch.setattr(seed_processes, "_TIMEOUT_SECS", 0.1)
    with pytest.raises(UnavailableError, match="2 of 2 actors had no action"):
        threads.send((0.1, 2))
    actor = seed_processes._ActingThread(job, Address("127.0.0.1", 1), 0)
    actor.has_acted.set()
    actor.end()
    actor.join(10.0)
    with pytest.raises(UnavailableError, match="1 of 1 actors have ended"):
        seed_processes._go([actor], 0.0)


def test_an_environment_alone_is_measured_for_a_few_seconds_at_most(monkeypatch):
    slow = "gym_environment.kwargs = {'step_secs': 0.2}"
    configuration.load(["seed/sleeping_vtrace.gin"], [slow], tensorflow=False)
    monkeypatch.setattr(seed, "_ALONE_SECS", 0.5)
    start_secs = time.monotonic()
    rate = seed._steps_per_second_alone(Experiment.from_gin().architecture)
    assert time.monotonic() - start_secs < 10.0, "100 steps take 20 s"
    assert 1.0 < rate <= 5.0
