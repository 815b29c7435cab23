"""Rendered 360° scenes, packed; tiny models for them; maps of what is seen. For the tests of protocols."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from avssl import config as configuration
from avssl.models.config import ModelConfig
from avssl.models.folder import save_model
from avssl.models.two_tower import TwoTower
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.synthetic.scene360 import MANIFEST, write_scenes360
from avssl.synthetic.scene360_config import Scene360Config
from avssl.synthetic.scene360_objects import draw_scene360
from avssl.synthetic.scene360_picture import pixel_directions

CONFIGS = Path(__file__).parents[2] / "configs"
SCENES = Scene360Config(clips=6, classes=3, objects=(1, 2), duration_s=1.25, width_px=64, seed=3)
MAP_FPS = 4.0


def write_scene_shards(folder: Path, scenes: Scene360Config = SCENES) -> Path:
    """The packed scenes; a clip each."""
    write_scenes360(scenes, folder / "scenes")
    build(list_sources(folder / "scenes" / MANIFEST), folder / "shards", BuildOptions(clip_s=1.25, short_side_px=32))
    return folder / "shards"


def write_maps(folder: Path, scenes: Scene360Config = SCENES) -> Path:
    """Target maps of the scenes: 0 background, 1 + its class for the disc around each object, no class below -60°."""
    names = scenes.class_names()
    directions = pixel_directions(scenes.width_px)
    for clip in range(scenes.clips):
        scene = draw_scene360(scenes, clip)
        into = folder / "clips" / f"{clip:06d}"
        into.mkdir(parents=True)
        for number in range(round(scenes.duration_s * MAP_FPS)):
            found = np.zeros(directions.shape[:2], np.uint8)
            for each in scene.objects:
                middle = each.motion(np.array([(number + 0.5) / MAP_FPS]))[0][0]
                inside = directions @ middle > np.cos(np.deg2rad(each.diameter_deg / 2))
                found[inside] = 1 + names.index(each.name)
            found[directions[..., 2] < -np.sin(np.deg2rad(60))] = 255
            Image.fromarray(found).save(into / f"{number:06d}.png")
    return folder


def tiny_model(**alignment) -> TwoTower:
    """The model of the AVSA debug configs, with random weights that are always the same."""
    tree = configuration.read(CONFIGS / "avsa_curriculum_debug.yaml")["model"]
    tree["alignment"] |= alignment
    torch.manual_seed(0)
    return TwoTower(ModelConfig.from_dict(tree)).eval()


def write_model(folder: Path, **alignment) -> Path:
    model = tiny_model(**alignment)
    save_model(folder, model, model.config, card="a model of tests")
    return folder
