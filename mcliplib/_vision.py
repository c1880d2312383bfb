"""The names that the package takes from timm and torchvision, imported after the cure of `_torchvision_compat`.

DropPath is timm's: one of our own would save nobody an installation, as open_clip needs timm in any case.
"""

from mcliplib._torchvision_compat import ensure_torchvision

ensure_torchvision()  # raises with the cure where torchvision cannot be imported

from timm.layers import DropPath  # noqa: E402
from torchvision.transforms import InterpolationMode, functional  # noqa: E402

__all__ = ["DropPath", "InterpolationMode", "functional"]
