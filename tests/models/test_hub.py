"""To the Hub and back through the real client, which talks to a small server here instead of huggingface.co."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from tiny_media import save_tiny_model

import avssl
from avssl.errors import ModelError
from avssl.models.av_model import AVModel
from avssl.models.hub import HubMixin, hub_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class SmallHub(BaseHTTPRequestHandler):
    """The few addresses of the Hub that uploading and downloading a model needs; repositories are dicts of files."""

    repositories: dict[str, dict[str, bytes]]
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _answer(self, code, value, **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self):
        body, path = self._body(), self.path.partition("?")[0]
        if self.headers.get("Authorization") != "Bearer hf_good":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            self.repositories.setdefault(name, {})
            return self._answer(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            files = [{"path": file["path"]} for file in json.loads(body)["files"]]
            return self._answer(
                200, {"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
            return self._answer(200, {"commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})
        return self._answer(404, {"error": f"no {path}"})

    def do_GET(self):
        path = self.path.partition("?")[0]
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = self.repositories.get(name)
        if files is None:
            return self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if parts[0] == "api" and "tree" in parts:
            return self._answer(
                200,
                [
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in files.items()
                ],
            )
        if parts[0] == "api":
            siblings = [{"rfilename": path} for path in files]
            return self._answer(200, {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        data = files.get("/".join(parts[4:]))
        if data is None:
            return self._answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        return self._answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"')

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub():
    SmallHub.repositories = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", SmallHub.repositories
    server.shutdown()
    server.server_close()


def python(code: str, home, endpoint: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code that knows `avssl` in a process of its own: the client reads its settings when it is imported."""
    given = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", f"import avssl, torch\nfrom avssl.errors import ModelError\n{code}"],
        env=os.environ | given | environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def test_push_and_fetch_give_the_same_model_and_refusals_are_one_sentence(hub, tmp_path):
    endpoint, repositories = hub
    source = save_tiny_model(tmp_path / "m")
    hear = "print(float(avssl.load('hf-hub:me/small').encode_audio(torch.zeros(1, 48000), 24000).sum()))"
    there = python(
        f"model = avssl.load({str(source)!r})\n"
        "print(model.push_to_hub('me/small', token='hf_good'))\n"
        f"{hear}\n"
        "for call in (lambda: model.push_to_hub('me/x', token='hf_bad'), lambda: avssl.load('hf-hub:me/absent')):\n"
        "    try:\n        call()\n"
        "    except ModelError as error:\n        print(error)",
        tmp_path / "home",
        endpoint,
    )
    address, sum_text, *refusals = there.stdout.splitlines()
    assert address == f"{endpoint}/me/small", there.stderr
    assert {"model.safetensors", "config.json", "README.md"} <= set(repositories["me/small"])
    assert repositories["me/small"]["model.safetensors"] == (source / "model.safetensors").read_bytes()
    card = repositories["me/small"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: avssl\n") and "# random weights, for tests" in card
    expected = float(avssl.load(source).encode_audio(torch.zeros(1, 48000), 24000).sum())
    assert float(sum_text) == pytest.approx(expected, abs=1e-5)
    assert len(refusals) == 2, refusals
    assert refusals[0].startswith("me/x: cannot be uploaded (") and "hf auth login" in refusals[0]
    assert refusals[1].startswith("hf-hub:me/absent: cannot be fetched (")
    # What was fetched once is found without a network.
    offline = python(hear, tmp_path / "home", "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline.stdout.strip() == sum_text, offline.stderr


def test_folders_need_neither_package_nor_network(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    source = save_tiny_model(tmp_path / "m")
    model = AVModel.from_pretrained(source)
    with torch.no_grad():
        model.network.video_head.projection[0].weight.add_(1)
    model.save_pretrained(tmp_path / "out")
    again = AVModel.from_pretrained(str(tmp_path / "out"))
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key]), key
    assert again.card == "# random weights, for tests\n" and again.description == model.description
    for name in ("me/small", "hf-hub:me/small"):
        with pytest.raises(ModelError, match=r"hf-hub:me/small: needs the package huggingface_hub; run pip install"):
            AVModel.from_pretrained(name)
    with pytest.raises(ModelError, match=r"me/small: needs the package huggingface_hub"):
        model.push_to_hub("me/small")


def test_a_model_of_another_kind_is_refused(tmp_path):
    class Other(HubMixin):
        pass

    with pytest.raises(ModelError, match=r"holds a AVModel, not a Other; use avssl\.load"):
        Other.from_pretrained("tiny")


def test_names_and_folders_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_name("org/name") == "hf-hub:org/name"
    (tmp_path / "org" / "name").mkdir(parents=True)
    for name in ("org/name", "tiny", "./a/b", "/a/b", "runs/mine/model", "hf-hub:a/b", tmp_path / "x"):
        assert hub_name(name) == name
