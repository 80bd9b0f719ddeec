"""Makes `import torchvision` work beside a CPU build of torch; import this module before torchvision or open_clip.

The registry's torchvision wheels are compiled for CUDA. Beside a CPU build of torch their compiled operators cannot
be loaded, and torchvision's import fails when it registers fake kernels for them (`operator torchvision::nms does not
exist`). CLIP needs only torchvision's pure-Python transforms and datasets, so in that one case the import is repeated
with `torch.library.register_fake` replaced by a decorator that registers nothing. With matching builds nothing changes.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch


def _register_nothing(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda function: function


def import_torchvision() -> None:
    """Import torchvision, with the remedy when, and only when, the plain import fails for lack of compiled operators.

    Raises:
        RuntimeError: any other failure of torchvision's import, unchanged.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        register_fake = torch.library.register_fake
        torch.library.register_fake = _register_nothing  # type: ignore[assignment]
        try:
            importlib.import_module("torchvision")
        finally:
            torch.library.register_fake = register_fake


import_torchvision()
