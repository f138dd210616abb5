"""tfdrl-benchmark on SEED: real servers and actors, figures that follow from each other."""

import benchmark_runs
import pytest

from tfdrl import configuration
from tfdrl.benchmarks import seed_processes
from tfdrl.benchmarks.many_actors import Chief
from tfdrl.benchmarks.measuring import Rounds
from tfdrl.benchmarks.processes import Job
from tfdrl.experiment import Experiment
from tfdrl.rpc.security import Security


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
    names = ("bare grpcio stream, same messages", "service without a network", "service")
    echo, null, network = (figures[name] for name in names)
    assert echo > null > 100 and network > 50
    assert figures["service without a network / bare grpcio"] == pytest.approx(null / echo)
    limit = figures["limit of the service by these costs"]
    assert figures["service / its limit"] == pytest.approx(network / limit)
    assert "2 actors of 4 environments" in service["title"]
    figures = benchmark_runs.figures(whole)
    assert figures["environment steps"] > 20 and figures["learner steps"] > 0
    figures = benchmark_runs.figures(processes)
    assert figures["actor 0: memory (RSS)"] < 200 < figures["learner: memory (RSS)"]
    assert "Inference service" in done.stdout and "round 1 of 1" in done.stderr


def test_bare_actors_exchange_steps_with_the_echo_for_as_long_as_they_are_told(tmp_path):
    bindings = ["seed.actors = 2", "seed.environments_per_actor = 3"]
    loaded = configuration.load(["seed/cartpole_vtrace.gin"], bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    job = Job(config, 1, loaded.digest, tmp_path, Rounds(1, 0.1))
    server = seed_processes.echo_server(job)
    address = next(server)
    actors = [seed_processes.bare_actor(job, address, task) for task in range(2)]
    assert [next(actor) for actor in actors] == [None, None]  # they are connected
    counts = [actor.send(0.1) for actor in actors]
    assert min(counts) > 3 and not any(count % 3 for count in counts)
    assert actors[0].send(0.0) == 0


@pytest.mark.slow
def test_streams_are_known_to_the_service_that_is_measured(tmp_path):
    bindings = ["seed.actors = 3"]
    loaded = configuration.load(["seed/sleeping_vtrace.gin"], bindings, tensorflow=True)
    config = Experiment.from_gin().architecture
    job = Job(config, 1, loaded.digest, tmp_path, Rounds(1, 0.1))
    address = next(seed_processes.null_server(job))
    threads = seed_processes.acting_threads(job, address, range(3))
    assert next(threads) is None
    count, times_ms = threads.send((1.0, 3))
    assert count > 10 and len(times_ms) > 10
    asked = Chief(address, Security()).ask()
    assert [(role.role, role.task) for role in asked.status.roles] == [
        ("actor", t) for t in range(3)
    ]
    assert asked.size_bytes > 100
