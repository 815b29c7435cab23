"""State dicts of the published layouts, written out from their description and from nothing of this package."""

import torch
from oracle_rule import rule_weight
from torch import Tensor

WIDTHS = {"conv2x": (64, 64), "conv3x": (64, 128), "conv4x": (128, 256), "conv5x": (256, 512)}
BLOCKS = {"block1": (64, 64), "block2": (64, 128), "block3": (128, 256), "block4": (256, 512)}

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    shapes: Shapes = {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {f"{name}.num_batches_tracked": ()}


def linear(name: str, width_out: int, width_in: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def video_shapes() -> Shapes:
    shapes = {"conv1.0.weight": (64, 3, 3, 7, 7)} | norm("conv1.1", 64)
    for stage, (width_in, width) in WIDTHS.items():
        for unit in range(2):
            name, first = f"{stage}.{unit}", width_in if unit == 0 else width
            shapes[f"{name}.spt_conv1.weight"] = (width, first, 1, 3, 3)
            shapes[f"{name}.tmp_conv1.weight"] = (width, width, 3, 1, 1)
            shapes[f"{name}.spt_conv2.weight"] = (width, width, 1, 3, 3)
            shapes[f"{name}.tmp_conv2.weight"] = (width, width, 3, 1, 1)
            for bn in ("spt_bn1", "tmp_bn1", "spt_bn2", "out_bn"):
                shapes |= norm(f"{name}.{bn}", width)
            if unit == 0 and stage != "conv2x":
                shapes[f"{name}.res_conv.weight"] = (width, width_in, 1, 1, 1)
    return shapes


def audio_shapes(channels: int) -> Shapes:
    shapes = {"conv1.0.weight": (64, channels, 7, 7)} | norm("conv1.1", 64)
    for block, (width_in, width) in BLOCKS.items():
        shapes |= {f"{block}.conv1.weight": (width, width_in, 3, 3), f"{block}.conv2.weight": (width, width, 3, 3)}
        shapes |= norm(f"{block}.bn1", width) | norm(f"{block}.bn2", width)
    return shapes


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def avsa_shapes() -> Shapes:
    return prefixed("video_model.", video_shapes()) | prefixed("audio_model.", audio_shapes(4))


def avid_shapes() -> Shapes:
    head = linear("projection.0", 512, 512) | linear("projection.2", 512, 512) | linear("projection.4", 128, 512)
    towers = prefixed("video_model.", video_shapes()) | prefixed("audio_model.", audio_shapes(1))
    return towers | prefixed("video_proj.", head) | prefixed("audio_proj.", head)


def avsa_criterion_shapes() -> Shapes:
    shapes: Shapes = {}
    for direction in ("v2a", "a2v"):
        for layer in range(2):
            name = f"losses.0.{direction}_transformer.transformer.{layer}"
            for part in ("query", "key", "value", "dense"):
                shapes |= linear(f"{name}.attention.{part}", 512, 512)
            shapes |= {f"{name}.attention_norm.weight": (512,), f"{name}.attention_norm.bias": (512,)}
            shapes |= linear(f"{name}.dense.0", 2048, 512) | linear(f"{name}.dense.2", 512, 2048)
            shapes |= {f"{name}.dense_norm.weight": (512,), f"{name}.dense_norm.bias": (512,)}
    for head in ("video_head", "audio_head", "video_pred_head", "audio_pred_head"):
        shapes |= linear(f"losses.0.{head}.projection.0", 128, 512)
    return shapes


def avc_criterion_shapes() -> Shapes:
    return linear("losses.0.video_projection.projection.0", 128, 512) | linear(
        "losses.0.audio_projection.projection.0", 128, 512
    )


def avid_criterion(rows: int = 7, *, cma: bool = False, constant: tuple[int, ...] = (), seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    criterion = {
        "nce_average.view1_mem": torch.randn(rows, 128, generator=generator),
        "nce_average.view2_mem": torch.randn(rows, 128, generator=generator),
        "criterion.avg_exp_score": torch.full(constant, 1.25),
    }
    if cma:
        criterion["nce_average.positive_set"] = torch.randint(0, rows, (rows, 32), generator=generator).int()
    return criterion


def filled_by_rule(shapes: Shapes) -> dict[str, Tensor]:
    """The weights that the oracles were computed with."""
    return {name: rule_weight(name.removeprefix("losses.0."), like(name, shape)) for name, shape in shapes.items()}


def filled_at_random(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a plausible size, so that features are neither zero nor infinite after 18 layers."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1000 + seed)
        elif name.endswith("running_var"):
            state[name] = 0.5 + noise.square()
        elif name.endswith((".bias", "running_mean")):
            state[name] = 0.2 * noise
        elif len(shape) == 1:
            state[name] = 1 + 0.2 * noise
        else:
            state[name] = noise * (2 / noise[0].numel()) ** 0.5
    return state


def like(name: str, shape: tuple[int, ...]) -> Tensor:
    integer = name.endswith("num_batches_tracked")
    return torch.empty(shape, dtype=torch.int64 if integer else torch.float32)


def checkpoint(model, criterion=None, *, wrapped: bool = True, epoch: int = 100):
    """What a published pretraining file holds. The optimizer is that of a few parameters: only its place matters."""
    prefix = "module." if wrapped else ""
    content = {
        "epoch": epoch,
        "model": {prefix + name: tensor for name, tensor in model.items()},
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]},
    }
    return content | ({"train_criterion": criterion} if criterion is not None else {})
