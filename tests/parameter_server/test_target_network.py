"""Target networks follow the global steps, whoever made them."""

from tfdrl.parameter_server.target_network import TargetNetwork


class Agent:
    copies = 0

    def initialize(self):
        self.copies += 1


def test_it_copies_once_in_each_period_and_when_the_parameters_were_set_back():
    agent = Agent()
    target = TargetNetwork(agent, period_steps=10)
    copies = []
    for steps, epoch in [(0, 0), (9, 0), (10, 0), (19, 0), (35, 0), (36, 0), (36, 1), (36, 1)]:
        target.update(steps, epoch)
        copies.append(agent.copies)
    assert copies == [1, 1, 2, 2, 3, 3, 4, 4]
