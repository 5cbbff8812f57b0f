"""Dead channels: found where they are, revived without a change of the function, and with a gradient from then on."""

import pytest
import torch
from helpers import images, live_in, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

revive = pytest.importorskip("benchmarks.revive")

LAST = "norm"  # in front of the classifier


def kill(net, names, channels):
    for name in names:
        norm = net.get_submodule(name)
        with torch.no_grad():
            norm.bias[list(channels)] = -100.0
    return net


def norms_of(net):
    return [name for name, _ in revive._norms(net)]


def test_dead_channels_are_the_killed_ones_and_their_readers_are_found():
    net, x = live_in(tiny()).train(), images(16, batch=4)
    name = "stages.0.blocks.1.mask.tail.norm2"
    before = revive.dead_channels(net, x)[0][name]
    assert not before[[1, 3]].any() and not before.all()
    dead, readers = revive.dead_channels(kill(net, [name], [1, 3]), x, batch_size=3)
    assert dead.keys() == set(norms_of(net)) and not net.training
    assert (dead[name] ^ before).nonzero().flatten().tolist() == [1, 3]
    assert readers[name] == ["stages.0.blocks.1.mask.tail.conv2"] and readers[LAST] == []
    projecting = readers["stages.1.blocks.0.norm1"]
    assert sorted(projecting) == ["stages.1.blocks.0.conv1", "stages.1.blocks.0.downsample.conv"]
    assert all(readers[other] for other in readers if other != LAST)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_function_stays_and_every_channel_gets_a_gradient(data):
    torch.manual_seed(0)
    net, x = live_in(tiny()).train(), images(16, batch=4)
    names = norms_of(net)
    killed, channels = data.draw(st.sampled_from(names)), data.draw(st.sets(st.integers(0, 3), min_size=1, max_size=2))
    kill(net, [killed], channels)
    net.eval()
    with torch.no_grad():
        before = net(x)
    counts = revive.revive(net, x)
    assert counts["dead"] == counts["revived"] > 0
    assert counts["channels"] == sum(len(net.get_submodule(name).weight) for name in names)
    with torch.no_grad():
        assert torch.allclose(net(x), before, rtol=1e-4, atol=1e-5)

    net.train()  # the mean of each channel is 0, as it is in training
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(4):  # the readers' weights first, then what is in front of them
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), torch.arange(4)).backward()
        optimizer.step()
    assert net.get_submodule(killed).weight.grad[list(channels)].ne(0).all()


def test_a_norm_that_something_else_reads_is_left_alone():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.BatchNorm2d(3)
            self.first.act = nn.ReLU()

        def forward(self, x):
            return self.first(x).mean((2, 3))

    net = Reads()
    net.first.bias.data[1] = -100.0
    net.first.register_forward_hook(lambda module, _, out: module.act(out))
    assert revive.revive(net, images(8)) == {"channels": 3, "dead": 1, "revived": 0}
    assert net.first.bias[1] == -100.0
