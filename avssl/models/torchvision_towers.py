"""torchvision's video networks as towers, without their classifier. Weights: the user's own file, never a download.

`weights` takes a torchvision checkpoint of the same architecture as it is; entries of the classifier are ignored.
Facts are those of torchvision's Kinetics-400 presets, except that the short side is resized and the aspect ratio kept
(the presets of the two ResNets squeeze to 128 x 171).
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from avssl import compat
from avssl.models.config import VideoInput
from avssl.models.r2plus1d import IMAGENET_MEAN, IMAGENET_STD
from avssl.models.registry import register
from avssl.models.tower import Tower
from avssl.models.weights import load_into, read_weights


class TorchvisionTower(Tower):
    """A torchvision network `net` whose classifier, the child named `classifier`, is replaced by nothing."""

    staged = False
    classifier: ClassVar[str]

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net: Any = net
        setattr(self.net, self.classifier, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def load_weights(self, path: str) -> None:
        state = {key: value for key, value in read_weights(path).items() if not key.startswith(f"{self.classifier}.")}
        load_into(self.net, state, path)


class VideoResNet(TorchvisionTower):
    """r3d_18 and r2plus1d_18: [B, 3, T, H, W] -> [B, 512]."""

    feature_dim = 512
    stage_names = ("stem", "layer1", "layer2", "layer3", "layer4", "pool")
    classifier = "fc"

    def feature_stages(self, x: Tensor) -> dict[str, Tensor]:
        stages = {}
        for name in self.stage_names[:-1]:
            stages[name] = x = self.net.get_submodule(name)(x)
        stages["pool"] = self.net.avgpool(x).flatten(1)
        return stages


class Swin3D(TorchvisionTower):
    """swin3d_t: [B, 3, T, H, W] -> [B, 768]. Stages are the attention stages, before the merging of patches."""

    feature_dim = 768
    stage_names = ("patch_embed", "stage1", "stage2", "stage3", "stage4", "pool")
    classifier = "head"

    def feature_stages(self, x: Tensor) -> dict[str, Tensor]:
        net = self.net
        x = net.patch_embed(x)  # [B, T, H, W, C] from here on
        stages = {"patch_embed": x.movedim(-1, 1)}
        x = net.pos_drop(x)
        for index, part in enumerate(net.features):  # attention, merging, attention, …
            x = part(x)
            if index % 2 == 0:
                stages[f"stage{index // 2 + 1}"] = x.movedim(-1, 1)
        stages["pool"] = net.avgpool(net.norm(x).movedim(-1, 1)).flatten(1)
        return stages


class MViT(TorchvisionTower):
    """mvit_v2_s: [B, 3, frames, size_px, size_px] -> [B, 768], the class token. Size and frames are built in."""

    feature_dim = 768
    stage_names = ("conv_proj", *(f"block{index}" for index in range(1, 17)), "pool")
    classifier = "head"
    any_length = False

    def feature_stages(self, x: Tensor) -> dict[str, Tensor]:
        net = self.net
        x = net.conv_proj(x)
        stages = {"conv_proj": x}
        grid = tuple(x.shape[2:])
        x = net.pos_encoding(x.flatten(2).transpose(1, 2))
        for index, block in enumerate(net.blocks, 1):
            x, grid = block(x, grid)
            stages[f"block{index}"] = x[:, 1:].transpose(1, 2).unflatten(2, grid)  # without the class token
        stages["pool"] = net.norm(x)[:, 0]
        return stages


# MViTv2-S, block by block: width before and after, stride of the queries, stride of keys and values.
_MVIT_BLOCKS = [
    (96, 96, 1, 8),
    (96, 192, 2, 4),
    (192, 192, 1, 4),
    (192, 384, 2, 2),
    *[(384, 384, 1, 2)] * 10,
    (384, 768, 2, 1),
    (768, 768, 1, 1),
]


def _video_models() -> Any:
    return compat.torchvision().models.video


_KINETICS = VideoInput(
    fps=15, frames=16, size_px=112, resize_px=128, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989)
)
_MVIT = VideoInput(fps=7.5, frames=16, size_px=224, resize_px=256, mean=(0.45,) * 3, std=(0.225,) * 3)
_SWIN = VideoInput(fps=15, frames=32, size_px=224, resize_px=256, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@register("video", "tv_r2plus1d_18", input=_KINETICS, source="torchvision r2plus1d_18 (arXiv 1711.11248)")
def tv_r2plus1d_18() -> VideoResNet:
    return VideoResNet(_video_models().r2plus1d_18(weights=None))


@register("video", "tv_r3d_18", input=_KINETICS, source="torchvision r3d_18 (arXiv 1711.11248)")
def tv_r3d_18() -> VideoResNet:
    return VideoResNet(_video_models().r3d_18(weights=None))


@register("video", "tv_mvit_v2_s", input=_MVIT, source="torchvision mvit_v2_s (arXiv 2112.01526)")
def tv_mvit_v2_s(frames: int = 16, size_px: int = 224) -> MViT:
    """Built from torchvision's blocks because torchvision's own `mvit_v2_s` takes no other size.

    Its published weights fit the default size alone: position tables grow with it.
    """
    mvit = _video_models().mvit
    blocks = [
        mvit.MSBlockConfig(
            num_heads=width // 96,
            input_channels=width_in,
            output_channels=width,
            kernel_q=[3, 3, 3],
            kernel_kv=[3, 3, 3],
            stride_q=[1, stride, stride],
            stride_kv=[1, stride_kv, stride_kv],
        )
        for width_in, width, stride, stride_kv in _MVIT_BLOCKS
    ]
    return MViT(
        mvit.MViT(
            spatial_size=(size_px, size_px),
            temporal_size=frames,
            block_setting=blocks,
            residual_pool=True,
            residual_with_cls_embed=False,
            rel_pos_embed=True,
            proj_after_attn=True,
            stochastic_depth_prob=0.2,
        )
    )


@register("video", "tv_swin3d_t", input=_SWIN, source="torchvision swin3d_t (arXiv 2106.13230)")
def tv_swin3d_t() -> Swin3D:
    return Swin3D(_video_models().swin3d_t(weights=None))
