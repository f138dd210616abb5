"""Unrolls with all kinds of boundaries, and VTraceAgent's loss on them from the equations.

In numpy and float64, by the sums of Espeholt 2018, section 4.1, without a recursion.
"""

import numpy as np
import table_networks as tables
import tensorflow as tf
from tf_agents.trajectories import trajectory

from tfdrl.types import FIRST, LAST, MID

GAMMA, BASELINE_COST, ENTROPY_COST, ACTIONS, SIZE = 0.9, 0.7, 0.05, 3, 2

# Each row is an unroll: t and x are LAST steps, after a termination and after a truncation.
STEPS = ("mmmmmmmmm", "fmmtfmmmm", "mmxfmmtfm", "xfmmmmmmm", "mmmmmmmmx", "mmmmmmmtf", "fxftfxftf")
BATCH, LENGTH = len(STEPS), len(STEPS[0]) - 1
_KINDS = {"f": FIRST, "m": MID, "t": LAST, "x": LAST}


class Unrolls:
    """Random unrolls with the boundaries of STEPS; every step is a state of its own.

    step_type [B, T+1], action [B, T, ...], reward and discount [B, T], values [B, T+1],
    policy and behaviour: tables [B, T+1, ...] of pi and mu.
    """

    def __init__(self, is_discrete, seed=0):
        random = np.random.default_rng(seed)
        self.is_discrete = is_discrete
        self.step_type = np.array([[_KINDS[step] for step in row] for row in STEPS], np.int32)
        ends = np.array([[step == "t" for step in row] for row in STEPS])
        self.discount = 1.0 - ends[:, 1:]
        self.reward = 2.0 * random.normal(size=(BATCH, LENGTH))
        self.values = random.normal(size=(BATCH, LENGTH + 1))
        outer = (BATCH, LENGTH + 1)
        if is_discrete:
            self.policy = [random.normal(size=(*outer, ACTIONS))]
            self.behaviour = [random.normal(size=(*outer, ACTIONS))]
            self.action = random.integers(0, ACTIONS, (BATCH, LENGTH))
        else:
            self.policy = list(0.5 * random.normal(size=(2, *outer, SIZE)))
            self.behaviour = list(0.5 * random.normal(size=(2, *outer, SIZE)))
            self.action = random.normal(size=(BATCH, LENGTH, SIZE))

    def agent(self, **settings):
        flat = [table.reshape(-1, table.shape[-1]) for table in self.policy]
        spec = tables.discrete(ACTIONS) if self.is_discrete else tables.continuous(SIZE)
        defaults = {"gamma": GAMMA, "baseline_cost": BASELINE_COST, "entropy_cost": ENTROPY_COST}
        settings = {**defaults, **settings}
        return tables.table_agent(spec, flat, self.values.reshape(-1), **settings)

    def experience(self, filler=0.0):
        """Trajectory [B, T+1, ...]; what index T must not use is `filler`."""
        states = np.arange(BATCH * (LENGTH + 1), dtype=np.int32).reshape(BATCH, LENGTH + 1)
        pad = lambda x: np.concatenate([x, np.full_like(x[:, :1], filler)], axis=1)  # noqa: E731
        last = np.full((BATCH, 1), MID, np.int32)
        return trajectory.Trajectory(
            step_type=tf.constant(self.step_type),
            observation=tf.constant(states),
            action=tf.constant(pad(self.action), tf.int32 if self.is_discrete else tf.float32),
            policy_info=tables.parameters_of([pad(table[:, :-1]) for table in self.behaviour]),
            next_step_type=tf.constant(np.concatenate([self.step_type[:, 1:], last], axis=1)),
            reward=tf.constant(pad(self.reward), tf.float32),
            discount=tf.constant(pad(self.discount), tf.float32),
        )

    def log_prob(self, rows):
        """[B, T]"""
        rows = [table[:, :-1] for table in rows]
        if self.is_discrete:
            normalised = rows[0] - np.log(np.exp(rows[0]).sum(-1, keepdims=True))
            return np.take_along_axis(normalised, self.action[..., None], -1)[..., 0]
        mean, log_std = rows
        z = (self.action - mean) / np.exp(log_std)
        return (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)


def _v_targets(u, log_rho, rho_bar, c_bar, lambda_):
    """v_s = V_s + sum_t (prod_{s<=i<t} gamma_i c_i) delta_t, until the episode or unroll ends."""
    vs, gamma = np.zeros((BATCH, LENGTH)), GAMMA * u.discount
    for b, s in np.ndindex(BATCH, LENGTH):
        vs[b, s], product = u.values[b, s], 1.0
        for t in range(s, LENGTH):
            error = u.reward[b, t] + gamma[b, t] * u.values[b, t + 1] - u.values[b, t]
            vs[b, s] += product * min(rho_bar, np.exp(log_rho[b, t])) * error
            product *= gamma[b, t] * lambda_ * min(c_bar, np.exp(log_rho[b, t]))
            if u.step_type[b, t + 1] == LAST:
                break
    return vs


def expected(u, correction, rho_bar, c_bar, pg_rho_bar, lambda_):
    """Loss parts summed over all steps that are not LAST, and the gradients of their total."""
    log_pi, log_mu = u.log_prob(u.policy), u.log_prob(u.behaviour)
    log_rho = log_pi - log_mu
    if correction == "vtrace":
        vs = _v_targets(u, log_rho, rho_bar, c_bar, lambda_)
    else:
        vs = _v_targets(u, 0 * log_rho, np.inf, np.inf, lambda_)
    goes_on = u.step_type[:, 1:-1] != LAST
    next_vs = u.values[:, 1:].copy()  # of a LAST step, and at index T: V itself
    next_vs[:, :-1][goes_on] = vs[:, 1:][goes_on]
    advantage = u.reward + GAMMA * u.discount * next_vs - u.values[:, :-1]
    if correction in ("vtrace", "one_step_is"):
        advantage *= np.minimum(pg_rho_bar, np.exp(log_rho))
    mask = u.step_type[:, :-1] != LAST
    epsilon = 1e-6 if correction == "epsilon" else 0.0
    probability = np.exp(log_pi)
    factor = mask * -advantage * probability / (probability + epsilon)
    entropy, by_policy = entropy_and_gradients(u, factor, -ENTROPY_COST * mask)
    losses = {
        "policy": (mask * -advantage * np.log(probability + epsilon)).sum(),
        "value": (mask * 0.5 * (vs - u.values[:, :-1]) ** 2).sum(),
        "entropy": (mask * entropy).sum(),
    }
    by_values = np.zeros_like(u.values)
    by_values[:, :-1] = BASELINE_COST * mask * (u.values[:, :-1] - vs)
    return losses, [*by_policy, by_values], mask * log_rho


def entropy_and_gradients(u, factor, entropy_factor):
    """Entropy [B, T], and d/dtables of factor log pi(a) + entropy_factor H(pi), [B, T+1, ...]."""
    rows, factors = [table[:, :-1] for table in u.policy], (factor[..., None],)
    weight = entropy_factor[..., None]
    if u.is_discrete:
        pi = np.exp(rows[0]) / np.exp(rows[0]).sum(-1, keepdims=True)
        entropy = -(pi * np.log(pi)).sum(-1)
        of_entropy = -pi * (np.log(pi) + entropy[..., None])
        gradients = [factors[0] * (np.eye(ACTIONS)[u.action] - pi) + weight * of_entropy]
    else:
        mean, log_std = rows
        z = (u.action - mean) / np.exp(log_std)
        entropy = (log_std + 0.5 * np.log(2 * np.pi * np.e)).sum(-1)
        gradients = [factors[0] * z / np.exp(log_std), factors[0] * (z**2 - 1) + weight]
    zero = [np.zeros_like(g[:, :1]) for g in gradients]
    return entropy, [np.concatenate(pair, axis=1) for pair in zip(gradients, zero)]
