"""Settings of viewpoints and turned scenes, and the switches between the AVSA paper and its released code. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avssl.errors import ConfigError

Variant = Literal["corrected", "released"]
AmbisonicFormat = Literal["ambix", "n3d", "fuma", "youtube"]
"""What the channels of a recording are, see `avssl.spatial.formats`. Never guessed: a manifest names it."""


@dataclass
class Switches:
    """Where the released AVSA code does otherwise than its paper says (methods C.11), one switch each.

    `released` is what the public checkpoint was trained on; `corrected` is what the paper means.
    """

    latitude: Variant = "corrected"
    """Centres within ±60° (`ViewConfig.latitude_deg`); released: between -28.8° and +30.6°."""
    spacing: Variant = "corrected"
    """Centres at least `ViewConfig.spacing_deg` apart; released: anywhere, even on one spot."""
    projection: Variant = "corrected"
    """The true field of view, pixels sampled at their centres; released: half the nominal angle in radians is taken
    for a length on the tangent plane (90° are 76.3° then), pixels are sampled at their corners, the longitude is
    rounded to a whole source pixel, and sources that are not 2:1 get a wrong vertical field of view."""
    rotation: Variant = "corrected"
    """The sound is turned about the vertical first, then tilted; released: in the wrong order, so that the front of the
    sound is off unless the view is level."""
    flip: Variant = "corrected"
    """Picture and sound of a sample are mirrored together; released: each view's picture alone."""

    @classmethod
    def released(cls) -> Switches:
        """All of them as the public checkpoint saw its inputs."""
        return cls("released", "released", "released", "released", "released")


@dataclass
class ViewConfig:
    """Random viewpoints of a sample (the paper's values; the released code draws its nominal angles from 25.45°)."""

    views: int = 4
    """Viewpoints a sample (K)."""
    fov_deg: tuple[float, float] = (25.0, 90.0)
    """Horizontal field of view, drawn uniformly for each view."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Vertical over horizontal field of view, both as angles, drawn uniformly in its logarithm."""
    latitude_deg: tuple[float, float] = (-60.0, 60.0)
    """Elevation of the centres, drawn uniformly; the longitude is uniform all around."""
    spacing_deg: float = 36.0
    """Least angle between two centres of a sample."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    switches: Switches = field(default_factory=Switches)

    def __post_init__(self) -> None:
        if self.views < 1 or not 0 <= self.flip <= 1 or not 0 <= self.spacing_deg <= 180:
            raise ConfigError(
                f"views.views is {self.views} (at least 1), views.flip {self.flip} (a probability), "
                f"views.spacing_deg {self.spacing_deg} (from 0 to 180): one of them is out of range"
            )
        for name, low, high in (("fov_deg", 0.0, 180.0), ("aspect", 0.0, 10.0)):
            first, second = getattr(self, name)
            if not low < first <= second < high:
                raise ConfigError(f"views.{name} is [{first}, {second}], but needs {low} < first <= second < {high}")
        if self.fov_deg[1] * self.aspect[1] >= 180:
            raise ConfigError(
                f"views.fov_deg {self.fov_deg[1]} times views.aspect {self.aspect[1]} is a vertical field of view of "
                "180° or more, which no flat picture shows; lower one of them"
            )
        if not -90 <= self.latitude_deg[0] <= self.latitude_deg[1] <= 90:
            raise ConfigError(
                f"views.latitude_deg is {list(self.latitude_deg)}, but needs -90 <= first <= second <= 90"
            )


@dataclass
class TurnConfig:
    """The misalignment of picture and sound that AVSA-Bin asks about (methods C.4): the whole sound scene is turned."""

    share: float = 0.5
    """Of the samples; the others stay aligned."""
    about: Literal["yaw", "pitch_yaw", "any"] = "yaw"
    """`yaw`: the vertical axis, uniformly all around; `pitch_yaw`: to any direction of the front, the horizon staying
    level; `any`: uniform over all rotations."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"turn.share is {self.share}, but it is a probability")
