"""`pretrained="hf-hub:..."` against a stand-in of the hub on this machine, and against no network at all."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import mcliplib
from mcliplib import UserError
from mcliplib.hub import locate, parse

SCRIPT = """
import sys, torch, mcliplib
try:
    model = mcliplib.create_model("mobileclip_nano", pretrained=sys.argv[1])
except mcliplib.UserError as error:
    sys.exit(f"UserError: {error}")
print(sum(value.double().sum().item() for value in model.state_dict().values()))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves OWNER/REPO/resolve/REVISION/FILE with the headers that huggingface_hub reads."""

    files: dict[str, bytes]

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool):
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Error-Message", "Entry not found")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path):
    """The stand-in's address, and the model that two of its repositories hold in two formats."""
    torch.manual_seed(0)
    model = mcliplib.create_model("mobileclip_nano")
    for name, format in (("m.safetensors", "safetensors"), ("m.pt", "mobileclip")):
        mcliplib.save_checkpoint(model, tmp_path / name, format=format)
    Hub.files = {
        "/someone/small/resolve/main/mobileclip_nano.safetensors": (tmp_path / "m.safetensors").read_bytes(),
        "/apple/MobileCLIP-Nano/resolve/v1/mobileclip_nano.pt": (tmp_path / "m.pt").read_bytes(),
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", sum(v.double().sum().item() for v in model.state_dict().values())
    server.shutdown()


def create(reference: str, endpoint: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads these when it is imported."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    environment = {**os.environ, **settings}
    command = [sys.executable, "-c", SCRIPT, reference]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("reference", ["hf-hub:someone/small", "hf-hub:apple/MobileCLIP-Nano@v1"])
def test_a_repository_is_fetched_and_then_found_in_the_cache(hub, tmp_path, reference):
    endpoint, total = hub
    fetched = create(reference, endpoint, tmp_path / "cache")
    assert fetched.returncode == 0, fetched.stderr
    assert float(fetched.stdout) == pytest.approx(total)


def test_a_repository_without_a_checkpoint(hub, tmp_path):
    run = create("hf-hub:someone/empty", hub[0], tmp_path / "cache")
    assert run.returncode == 1
    names = "mobileclip_nano.pt, mobileclip_nano.safetensors, model.safetensors, open_clip"
    assert f"hf-hub:someone/empty: has none of {names}" in run.stderr


def test_without_a_network_the_file_and_the_way_by_hand_are_named(tmp_path):
    run = create("hf-hub:apple/MobileCLIP-S0", "http://127.0.0.1:9", tmp_path / "cache")
    assert run.returncode == 1
    assert "UserError: hf-hub:apple/MobileCLIP-S0: cannot fetch mobileclip_s0.pt" in run.stderr
    assert "download http://127.0.0.1:9/apple/MobileCLIP-S0/resolve/main/mobileclip_s0.pt by hand" in run.stderr
    assert 'pretrained="mobileclip_s0.pt"' in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("reference", ["hf-hub:", "hf-hub:justaname", "hf-hub:a/b/c"])
def test_what_is_not_a_repository_is_refused(reference):
    with pytest.raises(UserError, match="not of the form hf-hub:OWNER/REPO"):
        parse(reference)


@pytest.mark.parametrize(
    "name",
    [
        "ä/ö",
        "ä/ö@../x",
        "a b/c",
        "../..",
        "a/..",
        "",
        "/",
        "a/b/c",
        "a/" + "b" * 200,
        "a/b@",
        "a/b@../x",
        "a/b@x y",
        "a/b\n",
    ],
)
def test_names_that_no_repository_has_are_one_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        locate(f"hf-hub:{name}")
    assert "\n" not in str(caught.value)
    assert "hf-hub:" in str(caught.value)
