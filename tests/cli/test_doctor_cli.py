import json
import os
import subprocess
import sys

import pytest

from avssl import doctor
from avssl.cli import doctor as command


@pytest.fixture(scope="module")
def checks():
    return list(doctor.examine())


def test_this_environment_is_healthy(checks):
    assert doctor.is_healthy(checks), [check for check in checks if check.status in ("missing", "failed")]
    found = {check.name: check for check in checks}
    for name in ("python", "torch", "torchvision", "torchaudio", "av", "decord", "webdataset", "lightning-fabric"):
        assert found[name].status == "ok", found[name]
    assert "0.500 and 0.5" in found["encode and decode"].detail
    assert all(check.cure for check in checks if check.status != "ok")


def test_text_and_json_tell_the_same(checks, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda: iter(checks))
    for arguments in ([], ["--json"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        if arguments:
            told = json.loads(out)
            assert told["healthy"] is True
            assert [check["name"] for check in told["checks"]] == [check.name for check in checks]
        else:
            assert all(check.name in out and check.detail in out for check in checks)


def test_broken_packages_are_named_with_a_cure(tmp_path):
    """Packages that fail at import, put before the real ones, as a damaged environment would have them."""
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec is gone')")
    (tmp_path / "decord.py").write_text("raise RuntimeError('no decord today')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    code = "from avssl.cli.doctor import main; main(['--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    found = {check["name"]: check for check in told["checks"]}
    assert told["healthy"] is False
    assert (found["av"]["status"], found["av"]["cure"]) == ("missing", "pip install av")
    assert "libavcodec is gone" in found["av"]["detail"]
    assert found["decord"]["status"] == "warn"
    assert "no decord today" in found["decord"]["detail"]
    assert found["torch"]["status"] == "ok"


def test_a_missing_and_an_old_package_are_told(monkeypatch):
    requires = ["no-such-package>=1", "numpy>=999", "wandb>=0.18; extra == 'wandb'", "pytest>=8; extra == 'test'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: requires)
    found = {name: (status, cure) for name, status, _, cure in doctor._packages()}
    assert found["no-such-package"] == ("missing", "pip install 'no-such-package>=1'")
    assert found["numpy"] == ("warn", "pip install 'numpy>=999'")
    assert "pytest" not in found
