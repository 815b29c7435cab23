"""Convolutions computed in two dimensions are the three-dimensional ones: values, gradients, in any memory layout."""

import pytest
import torch
from torch import nn

from avssl.models.r2plus1d import R2Plus1D
from avssl.models.split_conv import SpaceConv, SpaceMaxPool, TimeConv
from avssl.models.tower import channels_last

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


def example(layout, *shape):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=layout).requires_grad_()


def check(ours, theirs, x):
    """Same output, same gradients of input and parameters."""
    found, expected = ours(x), theirs(x)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(1))
    parts = [x, *ours.parameters()], [x, *theirs.parameters()]
    gradients = [torch.autograd.grad((y * weights).sum(), p) for y, p in zip((found, expected), parts, strict=True)]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("batch", "frames", "side"), [(2, 5, 7), (1, 1, 4), (3, 2, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_split_convolutions_equal_three_dimensional_ones(layout, batch, frames, side, stride):
    x = example(layout, batch, 4, frames, side, side + 2)
    for split, kernel, strides, padding in (
        (SpaceConv(4, 6, stride=stride), (1, 3, 3), (1, stride, stride), (0, 1, 1)),
        (SpaceConv(4, 6, size=7, stride=stride), (1, 7, 7), (1, stride, stride), (0, 3, 3)),
        (TimeConv(4, 6, stride), (3, 1, 1), (stride, 1, 1), (1, 0, 0)),
    ):
        whole = nn.Conv3d(4, 6, kernel, strides, padding, bias=False).double()
        split = split.double().to(memory_format=layout)
        split.load_state_dict(whole.state_dict())
        check(split, whole, x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pooling_of_frames_equals_the_three_dimensional_one(layout):
    check(SpaceMaxPool(), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)), example(layout, 2, 3, 4, 7, 8))


@pytest.mark.parametrize("stem_pool", [False, True])
def test_no_activation_is_copied_into_another_layout(stem_pool):
    """One copy of the input; from there on every map is channels-last and gradients reach the weights as they lie."""
    tower = R2Plus1D(10, stem_pool=stem_pool)
    seen = []
    for module in tower.modules():
        if isinstance(module, (nn.Conv3d, nn.BatchNorm3d, SpaceMaxPool)):
            module.register_forward_hook(lambda module, inputs, output: seen.extend([*inputs, output]))
    with torch.profiler.profile(record_shapes=True) as profile:
        tower(torch.randn(2, 3, 16, 64, 64)).sum().backward()  # no map gets so small that its layout is ambiguous
    assert len(seen) > 40 and all(x.is_contiguous(memory_format=torch.channels_last_3d) for x in seen)
    activations = {tuple(x.shape) for x in seen} | {tuple(x.transpose(1, 2).flatten(0, 1).shape) for x in seen}
    copies = [event for event in profile.events() if event.name == "aten::copy_" and event.input_shapes]
    assert sum(tuple(copy.input_shapes[0]) in activations for copy in copies) == 1
    assert not any("CopySlices" in event.name for event in profile.events())
    assert all(parameter.grad.stride() == parameter.stride() for parameter in tower.parameters())


def test_the_layout_is_changed_once():
    x = torch.randn(2, 3, 4, 5, 6)
    once = channels_last(x)
    assert torch.equal(once, x) and once.is_contiguous(memory_format=torch.channels_last_3d)
    assert channels_last(once) is once
    assert channels_last(x[:, :, 0]).is_contiguous(memory_format=torch.channels_last)
