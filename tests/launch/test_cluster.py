"""Where learners find each other: --cluster, or a platform's TF_CONFIG."""

import json
import subprocess
import sys

import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.launch.cluster.membership import Membership, membership
from tfdrl.launch.local import addresses
from tfdrl.topology import Address, Program, Role

LEARNER = Role("learner", "", replicas=3, serves=True, clusters=True)
ADDRESSES = tuple(Address("127.0.0.1", port) for port in (1, 2, 3))
FLAG = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
WORKERS = {"worker": FLAG.split(",")}
CHIEF = {"chief": FLAG.split(",")[:1], "worker": FLAG.split(",")[1:]}


def config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_flag():
    assert membership(LEARNER, 2, FLAG, {}) == Membership(2, ADDRESSES)
    assert membership(LEARNER, None, FLAG.replace(",", ", "), {}) == Membership(0, ADDRESSES)


def test_flag_is_stronger_than_the_platform():
    assert membership(LEARNER, 2, FLAG, {"TF_CONFIG": "nonsense"}) == Membership(2, ADDRESSES)


@pytest.mark.parametrize(
    ("environment", "task"),
    [
        (config(WORKERS), 0),
        (config(WORKERS, index="2"), 2),  # some platforms write a string
        (config(CHIEF, "chief"), 0),
        (config(CHIEF, "worker", 1), 2),
        (config({**WORKERS, "ps": ["a:1"]}, index=1), 1),
    ],
)
@pytest.mark.parametrize("is_given", [False, True])
def test_platform(environment, task, is_given):
    found = membership(LEARNER, task if is_given else None, "", environment)
    assert found == Membership(task, ADDRESSES)


@pytest.mark.parametrize("role", [Role("learner", "", clusters=True), Role("actor", "")])
def test_who_has_nobody_to_talk_to_needs_no_cluster(role):
    assert membership(role, None, "", {"TF_CONFIG": "nonsense"}) == Membership(0)
    assert membership(role, 4, "", config(WORKERS)) == Membership(4)
    with pytest.raises(ConfigurationError, match="leave it out"):
        membership(role, 0, FLAG, {})


def test_other_machines_need_a_trusted_network():
    flag = "127.0.0.1:1,10.0.0.1:2,host:2"
    words = r"10.0.0.1:2, host:2 can be reached from other machines, .* add --insecure_network"
    with pytest.raises(ConfigurationError, match=words):
        membership(LEARNER, 0, flag, {})
    with pytest.raises(ConfigurationError, match=f"TF_CONFIG: {words}"):
        membership(LEARNER, None, "", config({"worker": flag.split(",")}))
    assert len(membership(LEARNER, 0, flag, {}, insecure_network=True).addresses) == 3


@pytest.mark.parametrize(
    ("task", "flag", "environment", "words"),
    [
        (0, "", {}, "--cluster is missing; the 3 learner processes talk to each other: give a"),
        (0, "", {"TF_CONFIG": ""}, "--cluster is missing"),
        (0, "127.0.0.1:1", {}, "has 1 addresses; the gin file asks for 3 learner processes"),
        (0, "127.0.0.1:1,127.0.0.1:2,x", {}, "--cluster='x' is not an address"),
        (0, "127.0.0.1:1,127.0.0.1:2,127.0.0.1:1", {}, "has an address twice"),
        (None, "", {"TF_CONFIG": "{"}, r"TF_CONFIG=\{ cannot be read .* should look like"),
        (None, "", {"TF_CONFIG": "[]"}, "cannot be read"),
        (None, "", {"TF_CONFIG": '{"cluster": {}}'}, "cannot be read"),
        (None, "", config({"worker": 3}), "cannot be read"),
        (None, "", config({"worker": ["a:1"]}), "TF_CONFIG has 1 addresses; .* for 3 learner"),
        (None, "", config({"worker": ["a:1", "b", "c:1"]}), "TF_CONFIG: .*'b' is not an address"),
        (1, "", config(WORKERS, index=2), "--task=1, but TF_CONFIG says worker 2, which is task 2"),
        (1, "", config(CHIEF, index=1), "--task=1, but TF_CONFIG says worker 1, which is task 2"),
        (None, "", config(WORKERS, index=3), "this is worker 3; its cluster has 0 chief, 3 worker"),
        (None, "", config(WORKERS, index=-1), "this is worker -1"),
        (None, "", config(WORKERS, "evaluator"), "this is evaluator 0"),
    ],
)
def test_what_cannot_work(task, flag, environment, words):
    with pytest.raises(ConfigurationError, match=words):
        membership(LEARNER, task, flag, environment)


def test_runs_that_start_in_the_same_moment_draw_different_ports():
    among = range(19_000, 19_040)
    code = f"""
import sys
from tfdrl.launch.local import addresses
ports = addresses.free_ports(range({among.start}, {among.stop}))
print(*[next(ports) for _ in range(4)], flush=True)
sys.stdin.read()
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(9)
    ]
    drawn = [int(port) for run in runs for port in run.stdout.readline().split()]
    ports = addresses.free_ports(among)
    drawn += [next(ports) for _ in range(4)]
    assert sorted(drawn) == list(among)
    with pytest.raises(ConfigurationError, match="no free port between 19000 and 19039"):
        next(ports)
    runs[0].communicate("")
    assert next(addresses.free_ports(among)) in drawn[:4], "they are free again when a run ends"
    for run in runs[1:]:
        run.communicate("")


def test_local_addresses_are_all_different():
    roles = (LEARNER, Role("actor", "", replicas=2), Role("alone", "", serves=True, clusters=True))
    found = addresses.allocate(Program("any", roles))
    assert found.listeners.keys() == {"learner", "alone"} and found.clusters.keys() == {"learner"}
    flat = [each for group in found for replicas in group.values() for each in replicas]
    assert len(flat) == len(set(flat)) == 7
    assert all(address.is_loopback for address in flat)
