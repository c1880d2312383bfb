"""Import torchvision, also when its compiled half does not fit the installed torch.

The package index offers torchvision compiled against CUDA only. Beside a CPU build of torch its C++ extension does not
load, and `import torchvision` ends in "operator torchvision::nms does not exist", which takes timm and open_clip down
with it. torchvision's Python files only need the *schemas* of two operators, to register shape functions on them.
Declaring those two schemas lets the import pass. Transforms and models work as usual; calling one of the compiled
operators itself (`torchvision.ops.nms`) still fails with torchvision's own message.
"""

import importlib
import importlib.metadata
import re
import sys
from typing import TYPE_CHECKING

from mcliplib.errors import UserError, first_line

if TYPE_CHECKING:
    import torch

# As torchvision/csrc/ops/nms.cpp and quantized/cpu/qnms_kernel.cpp declare them.
MISSING_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_MISSING_OPERATOR = re.compile(r"operator torchvision::\w+ does not exist")
_PAIRING_CURE = "install the torchvision release made for it: `pip install -r requirements.lock` gives a tested pair"

_declared: "torch.library.Library | None" = None  # the schemas vanish with this object, so it must outlive the import


def ensure_torchvision() -> bool:
    """Make `import torchvision` work, and say whether it needed the cure.

    Returns:
        False if torchvision imports by itself (nothing is declared then), True if the schemas were declared.

    Raises:
        UserError: torchvision is absent, or fails for a reason that this module does not cure.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if not _MISSING_OPERATOR.search(str(error)):
            raise _fault(error) from error
        _declare_and_import()
    except ImportError as error:
        raise _fault(error) from error
    return _declared is not None


def _declare_and_import() -> None:
    global _declared
    import torch

    _forget_half_imported()
    if _declared is None:
        _declared = torch.library.Library("torchvision", "FRAGMENT")
        for schema in MISSING_SCHEMAS.values():
            _declared.define(schema)
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise _fault(error) from error


def _forget_half_imported() -> None:
    """A failed import leaves submodules behind, which a second import would trust."""
    for name in list(sys.modules):
        if name == "torchvision" or name.startswith("torchvision."):
            del sys.modules[name]


def _fault(error: Exception) -> UserError:
    beside = f"torchvision does not import beside torch {_torch_version()}"
    return UserError(f"{beside} ({first_line(error)}); {_PAIRING_CURE}")


def _torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "(absent)"
