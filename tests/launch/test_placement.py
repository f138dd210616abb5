"""Who is placed where, and what does not fit."""

import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.launch import addresses, placement
from tfdrl.launch.local.addresses import THIS_MACHINE
from tfdrl.launch.placement import Node, parse, place
from tfdrl.topology import Address, Program, Resources, Role


def _program(actors=4, learners=1, learner_threads=0):
    return Program(
        "impala",
        (
            Role("replay", "x:y", learners, serves=True, essential=True),
            Role(
                "learner",
                "x:y",
                learners,
                ("replay",),
                serves=True,
                essential=True,
                clusters=True,
                threads=learner_threads,
                devices="GPU",
            ),
            Role("actor", "x:y", actors, ("replay", "learner")),
            Role("evaluator", "x:y", 1, ("learner",)),
        ),
    )


def _nodes(count, cpus):
    return [Node(f"n{i}", f"10.0.0.{i}", cpus, gpus=0, memory_mb=1000) for i in range(count)]


def _names(placed):
    return {role: [node.name for node in nodes] for role, nodes in placed.items()}


def test_the_chief_and_its_replay_share_a_node_and_actors_are_spread():
    program = _program()
    placed = _names(place(program, parse((), program), _nodes(3, 4)))
    assert placed["learner"] == placed["replay"] == ["n0"]
    assert placed["actor"] == ["n1", "n2", "n1", "n2"]
    assert placed["evaluator"] == ["n0"]


def test_no_node_has_more_than_it_can_hold():
    program = _program(actors=9, learner_threads=2)
    wanted, nodes = parse((), program), _nodes(4, 4)
    placed = place(program, wanted, nodes)
    for node in nodes:
        used = sum(wanted[r].cpus for r, there in placed.items() for n in there if n is node)
        assert used <= node.cpus


def test_whoever_wants_a_gpu_is_where_one_is():
    program = _program()
    wanted = parse(["learner=gpu:1,cpu:2"], program)
    assert wanted["learner"] == Resources(cpus=2, gpus=1)
    nodes = [*_nodes(2, 8), Node("gpu", "10.0.0.9", 4, 1, 1000)]
    placed = _names(place(program, wanted, nodes))
    assert placed["learner"] == placed["replay"] == ["gpu"]


def test_where_there_are_gpus_who_sees_them_gets_one():
    program = _program(learners=2)
    nodes = [Node("a", "a", 8, 0), Node("b", "b", 8, 2)]
    wanted = parse((), program, nodes)
    assert [wanted[name].gpus for name in ("learner", "replay", "actor")] == [1, 0, 0]
    assert _names(place(program, wanted, nodes))["learner"] == ["b", "b"]
    assert parse(["learner=gpu:0"], program, nodes)["learner"].gpus == 0


def test_replicas_apart_are_on_different_nodes_and_a_replay_is_where_its_learner_is():
    program = _program(learners=3)
    placed = _names(place(program, parse(["learner=apart:1"], program), _nodes(3, 8)))
    assert sorted(placed["learner"]) == ["n0", "n1", "n2"]
    assert placed["replay"] == placed["learner"]
    with pytest.raises(ConfigurationError, match="learner 2 wants a node of its own with 1 core"):
        place(program, parse(["learner=apart:1"], program), _nodes(2, 8))


def test_what_is_not_counted_has_room_for_all():
    program = _program(actors=300)
    placed = place(program, parse(["learner=gpu:8"], program), [THIS_MACHINE])
    assert {node for there in placed.values() for node in there} == {THIS_MACHINE}


@pytest.mark.parametrize(
    "resources, nodes, words",
    [
        (
            (),
            _nodes(4, 40),
            r"256 actors want 256 cores.*in all 259 cores; the allocation has 160 \(n0: 40",
        ),
        (["learner=gpu:2", "actor=cpu:0"], _nodes(2, 40), "1 learner wants 2 GPUs.*has 0"),
        (["actor=memory:1G"], _nodes(8, 40), "256 actors want 262144 MB.*has 8000"),
        (
            ["learner=cpu:30", "actor=cpu:0"],
            _nodes(4, 20),
            "learner 0 wants 30 cores, and no",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_both_numbers(resources, nodes, words):
    program = _program(actors=256)
    with pytest.raises(ConfigurationError, match=words):
        place(program, parse(resources, program), nodes)


def test_who_has_no_core_of_its_own_needs_none():
    program = _program(actors=256)
    placed = place(program, parse(["actor=cpu:0"], program), _nodes(2, 4))
    assert len(placed["actor"]) == 256


@pytest.mark.parametrize(
    "text, words",
    [
        ("learner", "write it as learner=gpu:1"),
        ("teacher=cpu:1", "its roles are: replay, learner, actor, evaluator"),
        ("learner=cpus:1", "'cpus:1' is no amount"),
        ("learner=cpu:-1", "'cpu:-1' is no amount"),
        ("learner=gpu:1,", "'' is no amount"),
        ("actor=gpu:1", "actor sees no GPUs"),
    ],
)
def test_resources_that_cannot_be_read(text, words):
    with pytest.raises(ConfigurationError, match=words):
        parse([text], _program())


def test_amounts_and_defaults():
    program = _program(learner_threads=3)
    wanted = parse(["actor=memory:2G", "actor=cpu:2", "replay=apart:1"], program)
    assert wanted["learner"] == Resources(cpus=3)
    assert wanted["actor"] == Resources(cpus=2, memory_mb=2048)
    assert wanted["replay"].apart


def test_a_replica_whose_node_is_gone_moves_to_where_there_is_room():
    program = _program(actors=3)
    wanted, nodes = parse((), program), _nodes(3, 3)
    placed = place(program, wanted, nodes)
    task = next(t for t, node in enumerate(placed["actor"]) if node is not nodes[0])
    gone = placed["actor"][task]
    alive = [node for node in nodes if node is not gone]
    assert placement.replace(program.role("actor"), task, wanted, placed, alive) in alive
    full = place(_program(actors=6), wanted, nodes)
    with pytest.raises(ConfigurationError, match="no node has that left"):
        placement.replace(_program(6).role("actor"), 5, wanted, full, nodes[:1])


def test_addresses_are_of_the_nodes_and_ports_of_their_own():
    program = _program(learners=2)
    placed = place(program, parse(["learner=apart:1"], program), _nodes(2, 8))
    assert addresses.counts(program, placed) == {"n0": 3, "n1": 3}
    ports = {"n0": iter([1, 2, 3]), "n1": iter([1, 2, 3])}
    found = addresses.assign(program, placed, ports)
    every = [*found.listeners["replay"], *found.listeners["learner"], *found.clusters["learner"]]
    assert len(set(every)) == 6
    assert Address("10.0.0.0", 1) in found.listeners["replay"]
    assert found.hosts == ["10.0.0.0", "10.0.0.1"]
