"""environment.yml, constraints and pyproject.toml say the same."""

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_NAME = {"pytorch": "torch", "pysoundfile": "soundfile", "soxr-python": "soxr"}
CONDA_ONLY = {"python", "pip", "ffmpeg", "aiohttp"}  # aiohttp is what `fsspec[http]` adds


def conda_requirements() -> dict[str, SpecifierSet]:
    found = {}
    for line in ENVIRONMENT["dependencies"]:
        if isinstance(line, str):
            name, _, bounds = line.partition(" ")
            found[CONDA_NAME.get(name, name)] = SpecifierSet(bounds)
        else:
            for text in line["pip"]:
                if not text.startswith("-"):
                    requirement = Requirement(text)
                    found[requirement.name] = requirement.specifier
    return found


def test_conda_asks_for_what_pip_asks_for():
    wanted = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    found = conda_requirements()
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11")
    assert str(SpecifierSet(PROJECT["requires-python"])) in str(found["python"])
    assert {name: spec for name, spec in found.items() if name not in CONDA_ONLY} == wanted


def test_channels_are_free_ones():
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]


def test_cpu_constraints_fit_the_ranges():
    wanted = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    wanted |= {r.name: r.specifier for r in map(Requirement, PROJECT["optional-dependencies"]["torchcodec"])}
    lines = (ROOT / "constraints" / "cpu.txt").read_text().splitlines()
    for pin in (Requirement(line) for line in lines if line and not line.startswith("#")):
        (version,) = pin.specifier
        assert wanted[pin.name].contains(version.version), f"{pin} is outside {wanted[pin.name]}"
