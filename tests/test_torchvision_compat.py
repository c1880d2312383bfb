"""The cure for a CPU torch beside a CUDA torchvision. Each test needs a fresh interpreter: imports happen once."""

import subprocess
import sys

import pytest


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def plain_import_works() -> bool:
    return run_python("import torchvision").returncode == 0


def test_cure_is_applied_only_where_the_plain_import_fails(plain_import_works: bool) -> None:
    code = """
from mcliplib._torchvision_compat import ensure_torchvision
first, second = ensure_torchvision(), ensure_torchvision()
assert first == second
print(first)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(not plain_import_works)


def test_transforms_timm_and_open_clip_work_afterwards() -> None:
    code = """
from mcliplib._torchvision_compat import ensure_torchvision
ensure_torchvision()
import torch, timm, open_clip
from PIL import Image
from torchvision.transforms import v2
resize = v2.Compose([v2.Resize((8, 8)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
pixels = resize(Image.new("RGB", (20, 10), (255, 0, 0)))
assert pixels.shape == (3, 8, 8) and pixels[0].min() == 1
assert timm.create_model("efficientnet_lite0", pretrained=False)
assert open_clip.get_tokenizer("ViT-B-32")(["a red flag"]).shape == (1, 77)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


FAKE = """
import importlib.util, pathlib, sys, tempfile, types
package = types.ModuleType("mcliplib")  # without its __init__, which needs a whole torchvision
package.__path__ = importlib.util.find_spec("mcliplib").submodule_search_locations
sys.modules["mcliplib"] = package
folder = tempfile.mkdtemp()
pathlib.Path(folder, "torchvision").mkdir()
pathlib.Path(folder, "torchvision", "__init__.py").write_text({body!r})
sys.path.insert(0, folder)
from mcliplib import _torchvision_compat as compat
from mcliplib.errors import UserError
try:
    print(compat.ensure_torchvision())
except UserError as error:
    print("UserError:", error)
print("declared:", compat._declared is not None)
"""


def test_nothing_is_declared_when_torchvision_imports_plainly() -> None:
    result = run_python(FAKE.format(body=""))
    assert result.stdout.splitlines() == ["False", "declared: False"], result.stderr


def test_half_imported_modules_are_forgotten() -> None:
    body = """
import sys, torch
assert "torchvision.leftover" not in sys.modules
sys.modules["torchvision.leftover"] = sys
torch.library.register_fake("torchvision::nms")(lambda *args: args[0])
"""
    result = run_python(FAKE.format(body=body))
    assert result.stdout.splitlines() == ["True", "declared: True"], result.stderr


@pytest.mark.parametrize(
    "body",
    [
        'raise RuntimeError("something else")',
        'raise RuntimeError("operator torchvision::roi_align does not exist")',
        'raise ImportError("libcudart.so.12: cannot open shared object file")',
    ],
)
def test_any_other_fault_names_the_cure(body: str) -> None:
    result = run_python(FAKE.format(body=body))
    assert result.stdout.startswith("UserError: torchvision does not import beside torch"), result.stderr
    assert "requirements.lock" in result.stdout
