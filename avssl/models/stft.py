"""The short-time Fourier transform and its inverse, as the tagging and separating networks want it.

Frames centred on multiples of the hop, reflected ends, periodic Hann window; always float32. (The front ends of the
towers put zeros beyond the ends instead, and have one frame less.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.errors import UsageError


class Stft(nn.Module):
    """[B, S] -> complex [B, T, fft // 2 + 1] with T = 1 + S // hop; the window is derived, never saved."""

    window: Tensor

    def __init__(self, fft: int, hop: int):
        super().__init__()
        self.fft, self.hop = fft, hop
        self.register_buffer("window", torch.hann_window(fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Raises UsageError for a waveform too short to be reflected: it needs more than fft / 2 samples."""
        if waveform.shape[-1] <= self.fft // 2:
            raise UsageError(
                f"a waveform of {waveform.shape[-1]} samples is too short for windows of {self.fft}; "
                f"pad it to more than {self.fft // 2}"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(waveform.float(), self.fft, self.hop, window=self.window.float(), return_complex=True)
        return spectrum.transpose(1, 2)

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """Complex [B, T, fft // 2 + 1] -> [B, samples], by overlap-add with the same window."""
        with torch.autocast(spectrum.device.type, enabled=False):
            return torch.istft(spectrum.transpose(1, 2), self.fft, self.hop, window=self.window.float(), length=samples)


def power(spectrum: Tensor) -> Tensor:
    """|X|² of a complex tensor, without a square root that has no gradient at zero."""
    return spectrum.real.square() + spectrum.imag.square()
