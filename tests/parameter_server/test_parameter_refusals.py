"""What a parameter server and its workers refuse, and what their messages say."""

import dataclasses
import json
import socket
import threading
import time

import gin
import pytest
import tensorflow as tf
from running_roles import free_port
from test_parameter_shards import SHAPES, Servers, Worker, sgd, variables_of

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.parameter_server import layout as parameter_server_layout
from tfdrl.parameter_server.control import ControlVariables
from tfdrl.parameter_server.role import ShardServer
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.topology import Address, Context


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    return Servers(tmp_path_factory.mktemp("two"), sgd(), shards=2)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return Servers(tmp_path_factory.mktemp("one"), sgd())


def refusal(addresses, **arguments):
    """The text of what a worker is refused with."""
    worker = Worker(addresses, sgd(), **{"timeout_secs": 5.0, **arguments})
    with pytest.raises(ConfigurationError) as refused:
        worker.connect()
    worker.close()
    return str(refused.value)


def test_another_network(one):
    text = refusal(one.addresses, shapes=(SHAPES[0], (7,), *SHAPES[2:]))
    assert text.startswith(
        f"worker 0 has another network than parameter server 0 at {one.addresses[0]}"
    )
    assert "holds v1 [4] where this process has v1 [7] (4 and 4 variables)" in text
    assert text.endswith("start all roles with the same gin file and bindings")


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (SHAPES[:3], "holds v3 [5] where this process has no more (4 and 3 variables)"),
        ((*SHAPES, (2, 2)), "holds no more where this process has v4 [2, 2] (4 and 5 variables)"),
    ],
)
def test_fewer_and_more_variables(one, shapes, words):
    assert words in refusal(one.addresses, shapes=shapes)


def test_addresses_in_another_order(servers):
    text = refusal(servers.addresses[::-1])
    assert f"parameter server 0 at {servers.addresses[1]}" in text
    assert "is parameter server 1 of 2, not 0 of 2" in text and "order of their --task" in text


def test_another_number_of_servers(servers, one):
    assert "is parameter server 0 of 2, not 0 of 1" in refusal(servers.addresses[:1])
    assert "is parameter server 0 of 1, not 0 of 2" in refusal(one.addresses * 2)


def test_another_experiment(one):
    text = refusal(one.addresses, experiment="other")
    assert "belongs to another experiment ('x'; this process: 'other')" in text


def test_the_texts_of_both_sides_are_compared_after_json():
    (layout,), _ = parameter_server_layout.layouts(variables_of(0.0), 1)
    about = parameter_server_layout.about(layout, 1, "x")
    parameter_server_layout.check(json.loads(json.dumps(about)), about, "the server", "worker 0")


# Time limits.


def unavailable(address, timeout_secs=0.5, limit_secs=5.0):
    worker = Worker(address, sgd(), task=3, timeout_secs=timeout_secs)
    start_secs = time.monotonic()
    with pytest.raises(UnavailableError) as error:
        worker.connect()
    assert timeout_secs < time.monotonic() - start_secs < limit_secs
    worker.close()
    return str(error.value)


def test_no_server():
    address = Address("127.0.0.1", free_port())
    text = unavailable(address)
    words = f"worker 3: parameter server 0 at {address} did not answer within 0.5 s: "
    assert text.startswith(words) and "ConnectionRefusedError" in text


def test_the_second_server_is_missing(servers):
    address = Address("127.0.0.1", free_port())
    text = unavailable((servers.addresses[0], address))
    assert f"parameter server 1 at {address} did not answer within 0.5 s" in text


@pytest.fixture
def bare():
    """The address of a server of TensorFlow that holds nothing, and a session with it."""
    address = Address("127.0.0.1", free_port())
    cluster = tf.train.ClusterSpec({"ps": {0: str(address)}})
    server = tf.distribute.Server(cluster, job_name="ps", task_index=0)

    def tell(about):
        control = ControlVariables()
        with tf.compat.v1.Session(server.target, control.graph) as session:
            session.run(control.set_about, {control.text: json.dumps(about)})

    return address, tell


def test_a_server_that_holds_nothing_yet(bare):
    address, _ = bare
    assert "within 0.5 s: it holds no parameters yet" in unavailable(address)


def test_a_server_that_never_gives_its_parameters(bare):
    """It can be reached and says the right things; each pull fails, not only the connection."""
    address, tell = bare
    (layout,), _ = parameter_server_layout.layouts(variables_of(0.0), 1)
    tell(parameter_server_layout.about(layout, 1, "x"))
    text = unavailable(address)
    assert f"parameter server 0 at {address} did not give its parameters within 0.5 s" in text
    # What happened, not where in the code: TensorFlow's text begins with the latter.
    assert "FailedPreconditionError: Could not find variable" in text


def test_stop_ends_the_waiting_for_a_server():
    worker = Worker(Address("127.0.0.1", free_port()), sgd(), timeout_secs=60.0)
    timer = threading.Timer(0.3, worker.context.stop.set)
    timer.start()
    start_secs = time.monotonic()
    assert not worker.connect()
    assert time.monotonic() - start_secs < 5.0


# The server's own.


def serve(tmp_path, task=0, replicas=1, port=None, settings=None, variables=None):
    return ShardServer(
        variables_of(0.0) if variables is None else variables,
        settings or sgd(),
        Context(
            *("parameter_server", task, replicas, tmp_path),
            listen=Address("127.0.0.1", port or free_port()),
        ),
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_port_in_use(tmp_path, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"parameter server 0.*port {port} is in use"):
            serve(tmp_path, port=port)


def test_more_servers_than_variables(tmp_path):
    message = "5 parameter servers for the 4 variables of the network.*use 1 to 4"
    with pytest.raises(ConfigurationError, match=message):
        serve(tmp_path, replicas=5)
    addresses = tuple(Address("127.0.0.1", free_port()) for _ in range(5))
    with pytest.raises(ConfigurationError, match=message):
        Worker(addresses, sgd())


def test_variables_that_are_not_float32(tmp_path):
    variables = [*variables_of(0.0), tf.Variable([1, 2], name="counts")]
    with pytest.raises(ConfigurationError, match=r"hold float32 variables.* has counts:0 int32"):
        serve(tmp_path, variables=variables)


# Settings.

_WRONG = {
    "rule": ["momentum", "Adam", None],
    "learning_rate": [0.0, -1.0, float("inf"), float("nan")],
    "anneal_steps": [0, -5],
    "decay": [1.0, -0.1],
    "beta_1": [1.0, -0.1],
    "beta_2": [1.0, 1.5],
    "epsilon": [0.0, -1e-8],
    "initial_accumulator": [-0.1],
    "max_gradient_age": [-1],
    "snapshots": [-1],
    "snapshot_period_updates": [0],
    "checkpoint_period_secs": [-1.0, float("nan")],
    "rollback_loss_factor": [1.0, 0.5, float("nan")],
    "rollback_nonfinite": [0],
    "max_rollbacks": [-1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in _WRONG.items() for value in values]
)
def test_wrong_settings(name, value):
    with pytest.raises(ConfigurationError, match=rf"parameter_server\.{name} = '?{value}'? "):
        ParameterServerSettings(**{name: value})


def test_every_setting_has_a_wrong_value_here():
    assert set(_WRONG) == {field.name for field in dataclasses.fields(ParameterServerSettings)}


@pytest.mark.parametrize(
    "settings",
    [
        {"max_gradient_age": 0, "snapshots": 0, "max_rollbacks": 0, "checkpoint_period_secs": 0},
        {"decay": 0.0, "beta_1": 0.0, "beta_2": 0.0, "anneal_steps": 1, "rollback_nonfinite": 1},
        {"anneal_steps": None, "epsilon": None, "max_gradient_age": None},
        {"rollback_loss_factor": None, "rollback_nonfinite": None},
    ],
)
def test_the_least_that_is_right(settings):
    found = ParameterServerSettings(**settings)
    assert {name: getattr(found, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("rule", "epsilon"), [("rmsprop", 0.1), ("adagrad", 1e-8), ("adam", 1e-8), ("sgd", 0.0)]
)
def test_each_rule_has_an_epsilon_of_its_own(rule, epsilon):
    assert ParameterServerSettings(rule=rule).rule_epsilon == epsilon
    assert ParameterServerSettings(rule=rule, epsilon=0.5).rule_epsilon == 0.5


def test_a_gin_file_sets_them():
    with gin.unlock_config():
        gin.parse_config("parameter_server.rule = 'adagrad'\nparameter_server.learning_rate = 0.2")
    settings = gin.get_configurable("parameter_server")()
    gin.clear_config()
    assert (settings.rule, settings.learning_rate) == ("adagrad", 0.2)
