"""How good are maps of classes: pixel accuracy, IoU of the whole data set, IoU image by image.

The released AVSA code averages over all images and classes where there is anything of a class; segmentation otherwise
means IoU of summed pixels, averaged over classes. The two differ much, so both are given, each under its own name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

NO_CLASS = 255  # in targets: a pixel that is not counted


class SegmentationScore:
    """Counts over images; `classes` are the names of the numbers 0, 1, …"""

    def __init__(self, classes: Sequence[str]):
        self.classes = list(classes)
        self.confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)  # target, guess
        self._image_iou, self._image_pairs = 0.0, 0
        self.images = 0

    def add(self, guesses: Tensor, targets: Tensor) -> None:
        """Class numbers [N, H, W] of images, and what they should be (255: not counted)."""
        for guess, target in zip(guesses.cpu().flatten(1), targets.cpu().flatten(1).long(), strict=True):
            counted = target != NO_CLASS
            count = len(self.classes)
            pairs = target[counted] * count + guess[counted].long()
            confusion = torch.bincount(pairs, minlength=count * count).view(count, count)
            iou, there = _iou(confusion)
            self.confusion += confusion
            self._image_iou += iou[there].sum().item()
            self._image_pairs += int(there.sum())
            self.images += 1

    def metrics(self) -> dict[str, float]:
        """pixel_accuracy; dataset_miou: mean over classes that occur; image_miou: mean over (image, class) pairs in
        which the class occurs (in the target or the guess, and in counted pixels)."""
        iou, there = _iou(self.confusion)
        return {
            "pixel_accuracy": (self.confusion.diagonal().sum() / self.confusion.sum().clamp(min=1)).item(),
            "dataset_miou": iou[there].mean().item() if there.any() else 0.0,
            "image_miou": self._image_iou / max(1, self._image_pairs),
        }

    def one_class_metrics(self) -> dict[str, float]:
        """What always guessing the commonest class of these targets reaches."""
        of_class = self.confusion.sum(1)
        share = (of_class.max() / of_class.sum().clamp(min=1)).item()
        return {"pixel_accuracy": share, "dataset_miou": share / max(1, int((of_class > 0).sum()))}

    def by_class(self) -> list[dict[str, Any]]:
        """IoU and share of pixels of each class; IoU null where it does not occur."""
        iou, there = _iou(self.confusion)
        pixels = self.confusion.sum(1) / self.confusion.sum().clamp(min=1)
        return [
            {"class": name, "iou": iou[n].item() if there[n] else None, "pixels": pixels[n].item()}
            for n, name in enumerate(self.classes)
        ]


def _iou(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of each class [C], and whether there is anything of it."""
    both = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - both
    return both.double() / union.clamp(min=1), union > 0
