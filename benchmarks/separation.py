"""Time of the separator: the form that inference uses beside a textbook form of the same network, on the same weights.

    python -m benchmarks.separation [--batches 1 8] [--rounds 5] [--threads 1] [--seconds 2]

The textbook form is what one writes from the paper: Fourier transforms as convolutions with sine and cosine kernels,
one linear layer a shift, every normalisation as a layer, contiguous NCHW tensors. The forms run in
turn, `--rounds` times after one that does not count; CPU time of the process counts, which other jobs on the machine
disturb least. The ratio is the median over rounds of textbook over ours, both from the same round.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl.models.resunet30 import ConvBlock, DecoderBlock, ResUNet30
from avssl.models.separation_config import SeparatorConfig
from benchmarks.common import markdown_table, write_result


class ConvolutionStft(nn.Module):
    """Short-time Fourier transform and inverse as convolutions."""

    def __init__(self, fft: int, hop: int):
        super().__init__()
        self.fft, self.hop, bins = fft, hop, fft // 2 + 1
        time_, frequency = torch.arange(fft, dtype=torch.float64), torch.arange(bins, dtype=torch.float64)
        phase = 2 * torch.pi / fft * frequency[:, None] * time_
        window = torch.hann_window(fft, dtype=torch.float64)
        self.cosine = nn.Buffer((phase.cos() * window).float()[:, None])
        self.sine = nn.Buffer((-phase.sin() * window).float()[:, None])
        twice = torch.full((bins, 1), 2.0, dtype=torch.float64)
        twice[0] = twice[-1] = 1  # bins that have no mirror image
        self.inverse_cosine = nn.Buffer((phase.cos() * window * twice / fft).float()[:, None])
        self.inverse_sine = nn.Buffer((-phase.sin() * window * twice / fft).float()[:, None])
        self.squared_window = nn.Buffer(window.square().float()[None, None])

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S] -> real and imaginary parts [B, T, bins]."""
        padded = F.pad(waveform[:, None], (self.fft // 2, self.fft // 2), mode="reflect")
        real, imaginary = (F.conv1d(padded, kernel, stride=self.hop) for kernel in (self.cosine, self.sine))
        return real.transpose(1, 2), imaginary.transpose(1, 2)

    def inverse(self, real: Tensor, imaginary: Tensor, samples: int) -> Tensor:
        y = F.conv_transpose1d(real.transpose(1, 2), self.inverse_cosine, stride=self.hop)
        y = y + F.conv_transpose1d(imaginary.transpose(1, 2), self.inverse_sine, stride=self.hop)
        overlap = F.conv_transpose1d(torch.ones(1, 1, real.shape[1]), self.squared_window, stride=self.hop)
        y = y / overlap.clamp(min=1e-11)
        return y[:, 0, self.fft // 2 : self.fft // 2 + samples]


class Textbook(nn.Module):
    """The network of `source` with its weights, in evaluation mode, written plainly."""

    def __init__(self, source: ResUNet30):
        super().__init__()
        self.net = source
        self.stft = ConvolutionStft(source.config.fft, source.config.hop)
        self.film = nn.ModuleDict()
        weights = source.film.linear.weight.split(source.film.widths)
        biases = source.film.linear.bias.split(source.film.widths)
        layers = iter(zip(weights, biases, strict=True))
        for name, widths in source.film.layout.items():
            self.film[name] = nn.ModuleList(self._linear(*next(layers)) for _ in widths)

    @staticmethod
    def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        return layer

    def forward(self, mixture: Tensor, condition: Tensor) -> Tensor:
        net = self.net
        real, imaginary = self.stft(mixture)
        magnitude = (real**2 + imaginary**2).clamp(min=1e-10).sqrt()
        cosine, sine = real / magnitude, imaginary / magnitude
        shifts = {name: [layer(condition)[:, :, None, None] for layer in layers] for name, layers in self.film.items()}

        frames = magnitude.shape[1]
        x = net.bn0(magnitude.transpose(1, 2)).transpose(1, 2)[:, None]
        x = F.pad(x, (0, 0, 0, -frames % 32))[..., :-1]
        x = net.pre_conv(x)
        skips = []
        for name, encoder in net.encoders.items():
            skip = self._block(encoder.conv_block1, x, *shifts[name])
            skips.append(skip)
            x = F.avg_pool2d(skip, encoder.pool)
        for (name, decoder), skip in zip(net.decoders.items(), skips[-2::-1], strict=True):
            x = self._decoder(decoder, x, skip, *shifts[name])
        maps = F.pad(net.after_conv(x), (0, 1))[:, :, :frames]

        mask, turn_real, turn_imaginary = torch.sigmoid(maps[:, 0]), torch.tanh(maps[:, 1]), torch.tanh(maps[:, 2])
        length = (turn_real**2 + turn_imaginary**2).sqrt().clamp(min=1e-10)
        turn_real, turn_imaginary = turn_real / length, turn_imaginary / length
        out = F.relu(magnitude * mask)
        out_real = out * (cosine * turn_real - sine * turn_imaginary)
        out_imaginary = out * (sine * turn_real + cosine * turn_imaginary)
        return self.stft.inverse(out_real, out_imaginary, mixture.shape[-1])

    def _block(self, block: ConvBlock, x: Tensor, shift1: Tensor, shift2: Tensor) -> Tensor:
        y = block.conv1(F.leaky_relu(block.bn1(x) + shift1, 0.01))
        y = block.conv2(F.leaky_relu(block.bn2(y) + shift2, 0.01))
        return block.shortcut(x) + y

    def _decoder(self, block: DecoderBlock, x: Tensor, skip: Tensor, shift: Tensor, *shifts: Tensor) -> Tensor:
        y = block.conv1(F.leaky_relu(block.bn1(x) + shift, 0.01))
        return self._block(block.conv_block2, torch.cat([y, skip], dim=1), *shifts)


def random_network(seed: int = 0) -> ResUNet30:
    """The published size with random weights and statistics, so that every folded number matters."""
    torch.manual_seed(seed)
    net = ResUNet30(SeparatorConfig(condition_dim=527))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.1)
            nn.init.normal_(module.bias, 0.0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(1, 1.5)
    return net.eval()


@torch.inference_mode()
def measure(batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    net = random_network()
    forms = {"textbook": Textbook(net).eval(), "ours": net}
    mixture = 0.1 * torch.randn(batch, round(arguments.seconds * net.config.rate_hz))
    condition = torch.rand(batch, net.config.condition_dim)
    cpu_s: dict[str, list[float]] = {name: [] for name in forms}
    wall_s: dict[str, list[float]] = {name: [] for name in forms}
    outputs = {}
    for number in range(arguments.rounds + 1):
        for name, form in forms.items():
            cpu, wall = time.process_time(), time.perf_counter()
            outputs[name] = form(mixture, condition)
            if number:
                cpu_s[name].append(time.process_time() - cpu)
                wall_s[name].append(time.perf_counter() - wall)
    return {
        "batch": batch,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "speed_over_textbook": median(a / b for a, b in zip(cpu_s["textbook"], cpu_s["ours"], strict=True)),
        "largest_difference": float((outputs["textbook"] - outputs["ours"]).abs().max()),
        "peak": float(outputs["textbook"].abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = [measure(batch, arguments) for batch in arguments.batches]
    header = ["batch", "textbook CPU s", "ours CPU s", "× textbook", "largest difference", "output peak"]
    rows = [
        [
            result["batch"],
            median(result["cpu_s"]["textbook"]),
            median(result["cpu_s"]["ours"]),
            result["speed_over_textbook"],
            result["largest_difference"],
            result["peak"],
        ]
        for result in results
    ]
    print(markdown_table(header, rows))
    path = write_result("separation", {"options": vars(arguments), "batches": results})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
