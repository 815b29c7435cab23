"""The settings of rendered 360° clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avssl.errors import ConfigError
from avssl.synthetic.world_scene import MAX_CLASSES, class_traits


@dataclass(frozen=True)
class Scene360Config:
    """The knobs. A clip looks and sounds the same in every folder of the same seed and settings."""

    clips: int = 60
    classes: int = 8  # of objects; with `sounds`, as many as the folder has subfolders at most
    objects: tuple[int, int] = (1, 3)  # least and greatest number a clip
    decoys: float = 0.0  # share of clips with one more sound that is mono: of a class not seen, from no direction
    ambience_db: tuple[float, float] = (-40.0, -25.0)  # of the diffuse noise, below the objects
    place: float = 0.0  # 0 to 1: how far a clip has a look and a diffuse sound of its own (`scene360_place`)
    speed_deg_s: float = 20.0  # greatest speed along the horizon
    latitude_deg: float = 40.0  # objects start at elevations within plus and minus this
    spacing_deg: float = 50.0  # least angle between objects at the start
    size: float = 1.0  # of the objects; 1: 23° across at rest on average
    panoramas: tuple[str, ...] = ()  # 2:1 pictures, one a clip at random, turned at random; empty: rendered backgrounds
    sounds: str | None = None  # a folder CLASS/FILE of real sounds; None: rendered ones in step with the motion
    track: Literal["flac", "aac", "youtube"] = "flac"  # 4 channels ambiX, lossless or not; or 6 as YouTube has them
    duration_s: float = 4.0
    fps: float = 16.0
    width_px: int = 512  # twice the height
    audio_rate_hz: int = 24_000
    variation: float = 1.0  # within a class, as in `avssl.synthetic.world`
    noise: float = 1.0  # in the picture, and in rendered sounds
    seed: int = 0

    def __post_init__(self) -> None:
        def check(right: bool, key: str, rule: str) -> None:
            if not right:
                raise ConfigError(f"scenes360: {key} is {getattr(self, key)!r}; it must be {rule}")

        least, most = self.objects
        check(self.clips >= 1, "clips", "at least 1")
        check(1 <= self.classes <= MAX_CLASSES, "classes", f"from 1 to {MAX_CLASSES}")
        check(0 <= least <= most <= self.classes, "objects", "two numbers, the first not greater, at most `classes`")
        check(0 <= self.decoys <= 1, "decoys", "from 0 to 1")
        check(self.decoys == 0 or most < self.classes, "decoys", "0 where objects may be of all classes")
        check(self.ambience_db[0] <= self.ambience_db[1], "ambience_db", "two levels, the first not greater")
        check(0 <= self.place <= 1, "place", "from 0 to 1")
        check(self.place == 0 or self.audio_rate_hz >= 16_000, "place", "0 where audio_rate_hz is below 16000")
        check(0 <= self.latitude_deg <= 80, "latitude_deg", "from 0 to 80")
        check(0 <= self.spacing_deg <= 90, "spacing_deg", "from 0 to 90")
        check(self.width_px >= 64 and self.width_px % 4 == 0, "width_px", "a multiple of 4, at least 64")
        check(self.track in ("flac", "aac", "youtube"), "track", "flac, aac or youtube")
        check(self.duration_s > 0 and self.fps > 0, "duration_s", "positive, and fps too")
        check(self.audio_rate_hz >= 8000, "audio_rate_hz", "at least 8000")
        check(0 < self.size <= 3, "size", "positive, at most 3")
        check(self.variation >= 0 and self.noise >= 0 and self.speed_deg_s >= 0, "variation", "at least 0, others too")

    @property
    def ambisonics(self) -> str:
        """The format of the sound track, as `avssl.spatial.formats` calls it."""
        return "youtube" if self.track == "youtube" else "ambix"

    def class_names(self) -> list[str]:
        """What the objects are called: the subfolders of `sounds`, or the classes of the rendered world."""
        if self.sounds is None:
            return [class_traits(label).name for label in range(self.classes)]
        try:
            names = sorted(path.name for path in Path(self.sounds).iterdir() if path.is_dir())
        except OSError as error:
            raise ConfigError(f"scenes360: sounds {self.sounds} cannot be read ({error.strerror})") from None
        if len(names) < self.classes:
            raise ConfigError(
                f"scenes360: sounds {self.sounds} has {len(names)} folders of sounds, but classes is {self.classes};"
                " lower classes"
            )
        return names[: self.classes]
