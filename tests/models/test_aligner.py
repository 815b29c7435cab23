"""The viewpoint transformers: equations, sizes, what they may and may not know."""

import math

import pytest
import torch

from avssl.errors import ConfigError, ModelError
from avssl.models.aligner import Aligner
from avssl.models.config import AlignmentConfig, ModelConfig, TowerConfig
from avssl.models.two_tower import TwoTower
from avssl.models.viewpoint_transformer import ViewpointLayer, ViewpointTransformer

WIDTH = 12


def make(**options):
    torch.manual_seed(0)
    config = AlignmentConfig(**{"dropout": 0.0, **options})
    return ViewpointTransformer(WIDTH, config).double().eval()


def views(batch=3, count=4, seed=1):
    return torch.randn(batch, count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normed(x):
    """A LayerNorm that has not learned anything yet, of one vector."""
    x = x - x.mean()
    return x / math.sqrt(float(x.square().mean()) + 1e-5)


def by_hand(layer, sample, heads, final_relu):
    """One layer on the views [K, WIDTH] of one sample, with loops over heads and views."""
    attention, part = layer.attention, WIDTH // heads
    q, k, v = ([module(x) for x in sample] for module in (attention.query, attention.key, attention.value))
    out = []
    for i, x in enumerate(sample):
        mixed = []
        for h in range(heads):
            cut = slice(h * part, (h + 1) * part)
            weights = torch.tensor([math.exp(float(q[i][cut] @ other[cut]) / math.sqrt(part)) for other in k])
            mixed.append(sum(w * other[cut] for w, other in zip(weights / weights.sum(), v, strict=True)))
        y = normed(x + attention.dense(torch.cat(mixed).double()))
        z = normed(y + layer.dense[2](layer.dense[0](y).clamp(min=0)))
        out.append(z.clamp(min=0) if final_relu else z)
    return torch.stack(out)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("final_relu", [False, True])
@torch.no_grad()
def test_layers_are_the_equations(heads, final_relu):
    model = make(depth=2, heads=heads, final_relu=final_relu)
    x = views()
    expected = torch.stack([by_hand(model.transformer[0], sample, heads, final_relu) for sample in x])
    expected = torch.stack([by_hand(model.transformer[1], sample, heads, final_relu) for sample in expected])
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("context", ["attention", "mlp"])
@torch.no_grad()
def test_views_have_no_order_and_samples_no_neighbours(context):
    model, x = make(context=context, depth=3), views()
    order = [2, 0, 3, 1]
    torch.testing.assert_close(model(x[:, order]), model(x)[:, order])
    torch.testing.assert_close(model(x[1:2]), model(x)[1:2])


@torch.no_grad()
def test_only_attention_sees_the_other_views():
    x = views()
    changed = x.clone()
    changed[:, 0] += 1
    for context, moved in (("attention", True), ("mlp", False)):
        model = make(context=context)
        assert (not torch.allclose(model(x)[:, 1:], model(changed)[:, 1:])) == moved


def test_depth_0_predicts_the_features_themselves():
    aligner = Aligner(WIDTH, AlignmentConfig(depth=0)).double()
    x = views()
    assert torch.equal(aligner.predict("audio", x), x)
    assert sum(p.numel() for p in aligner.parameters()) == 4 * (WIDTH * 128 + 128)


def test_dropout_is_of_training_only_and_of_attention_with_several_heads_only():
    layer = ViewpointLayer(WIDTH, AlignmentConfig(heads=1, dropout=0.5))
    assert layer.attention.attention_dropout == 0
    layer = ViewpointLayer(WIDTH, AlignmentConfig(heads=2, dropout=0.5)).double()
    assert layer.attention.attention_dropout == 0.5
    x = views()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_published_sizes():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in Aligner(512, AlignmentConfig(depth=depth)).parameters()) for depth in (2, None)
        ]
    assert counts == [12_872_192, 2 * (512 * 128 + 128)]


def test_a_reset_starts_all_parameters_anew_and_keeps_them_in_place():
    aligner = Aligner(WIDTH, AlignmentConfig())
    before = {name: (parameter, parameter.detach().clone()) for name, parameter in aligner.named_parameters()}
    with torch.no_grad():
        for parameter in aligner.parameters():
            parameter.fill_(7.0)
    torch.manual_seed(3)
    aligner.reset()
    for name, parameter in aligner.named_parameters():
        assert parameter is before[name][0]
        assert not (parameter == 7).any()
        if "norm" not in name:
            assert not torch.equal(parameter, before[name][1])


def test_wrong_configurations_are_named():
    for options, key in (({"depth": 9}, "depth"), ({"heads": 0}, "heads"), ({"dropout": 1.0}, "dropout")):
        with pytest.raises(ConfigError, match=rf"model\.alignment\.{key}"):
            AlignmentConfig(**options)
    with pytest.raises(ConfigError, match=r"model\.alignment\.heads is 5"):
        make(heads=5)
    with pytest.raises(ConfigError, match=r"model\.alignment:"):
        TwoTower(ModelConfig(video=TowerConfig("tiny_video"), alignment=AlignmentConfig()))
    with pytest.raises(ModelError, match="predicts nothing"):
        Aligner(WIDTH, AlignmentConfig(depth=None)).predict("audio", views())


def test_a_model_carries_it():
    towers = {"video": TowerConfig("tiny_video"), "audio": TowerConfig("tiny_audio")}
    model = TwoTower(ModelConfig(**towers, alignment=AlignmentConfig(depth=1)))
    assert model.aligner.v2a_transformer.transformer[0].attention.query.in_features == 256
    again = ModelConfig.from_dict(model.config.to_dict())
    assert again == model.config
    assert set(TwoTower(again).state_dict()) == set(model.state_dict())
