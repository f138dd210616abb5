"""Policies and other functions compiled once, and called with next to no Python."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
import tree
from tf_agents.trajectories import time_step as ts

from tfdrl.runtime.nests import packer


def act_function(policy, jit_compile: bool = False) -> Callable:
    """A compiled `act(step_type, reward, discount, observation, state) -> PolicyStep`."""
    nests = []

    def act(*leaves):
        step_type, reward, discount, observation, state = tf.nest.pack_sequence_as(nests, leaves)
        return policy.action(ts.TimeStep(step_type, reward, discount, observation), state)

    run, packers = compiled(act, jit_compile), {}

    def call(*arguments):
        nests[:] = arguments
        outputs, like = run(tree.flatten(arguments))  # tf.nest takes several times as long
        if id(like) not in packers:  # of each graph one, which lives as long as its graph
            packers[id(like)] = packer(like)
        return packers[id(like)](outputs)

    return call


def stateless_act_function(policy) -> Callable:
    """A compiled `act(time_steps) -> action`, as arrays, of a policy that keeps no state."""
    act = act_function(policy)

    def call(time_steps):
        return tree.map_structure(lambda x: x.numpy(), act(*time_steps, ()).action)

    return call


def compiled(
    function: Callable, jit_compile: bool = False, convert: Callable = tf.convert_to_tensor
) -> Callable:
    """A `run(arrays) -> (tensors, nest)` of `function(*tensors) -> nest`; the nest tells its form.

    `convert` makes tensors of arrays; with `host_tensors.shared` the arrays must not change, nor
    the results be used as tensors, until the results were read.

    The graph is called by its op: for a small network on a CPU, what tf.function does in Python
    at each call takes several times as long as the network itself.
    """
    traced = tf.function(function, jit_compile=jit_compile or None)
    graphs = {}

    def run(arrays):
        key = tuple((array.shape, array.dtype) for array in arrays)
        if key not in graphs:
            tensors = [tf.convert_to_tensor(array) for array in arrays]
            graph = traced.get_concrete_function(*tensors)
            dtypes = [output.dtype for output in graph.outputs]
            graphs[key] = graph, graph.captured_inputs, dtypes, tensors, _used_inputs(graph)
        graph, captured, dtypes, tensors, used = graphs[key]
        tensors = list(tensors)
        for i in used:
            tensors[i] = convert(arrays[i])
        outputs = tf.raw_ops.StatefulPartitionedCall(args=tensors + captured, Tout=dtypes, f=graph)
        return outputs, graph.structured_outputs

    return run


def _used_inputs(graph) -> list[int]:
    """The inputs that a concrete function's outputs may depend on: a policy seldom needs all."""
    outputs = {id(tensor) for tensor in graph.outputs}
    inputs = graph.inputs[: len(graph.inputs) - len(graph.captured_inputs)]
    return [i for i, x in enumerate(inputs) if x.consumers() or id(x) in outputs]
