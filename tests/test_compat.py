"""torchvision and torchaudio import beside whatever torch there is, also in a fresh process."""

import subprocess
import sys

CODE = """
import torch
from avssl import compat
vision, audio = compat.torchvision(), compat.torchaudio()
import torchvision.models.video, torchvision.transforms.v2
assert compat.torchvision() is vision
model = torchvision.models.video.r3d_18().eval()
assert model(torch.zeros(1, 3, 2, 16, 16)).shape == (1, 400)
assert audio.functional.resample(torch.zeros(1, 480), 48000, 24000).shape == (1, 240)
print("fine")
"""


def test_both_import_and_run():
    out = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "fine", out.stderr
