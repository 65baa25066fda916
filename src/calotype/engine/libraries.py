"""What torch, diffusers and transformers are told before they are imported, and once they are.

Unasked they give advice that no user can follow: that torchvision isn't installed, that torchao's
kernels are for other devices. And they import what they find, wanted or not. Imports none of them
itself.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

from calotype.engine.threads import sleep_while_waiting

_VERBOSITY = ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")  # the libraries' own variables
_LOGGERS = ("torchao", "torch.utils._pytree")  # these have none
_UNWANTED = ("peft", "scipy")  # by an engine: its LoRAs are its own, and so are its samplers


def before_libraries() -> None:
    """Call first: their threads sleep while they wait, and they print errors alone.

    An operator who sets the variables otherwise has it otherwise.
    """
    sleep_while_waiting()
    for variable in _VERBOSITY:
        os.environ.setdefault(variable, "error")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def without_unwanted() -> None:
    """Have them find nothing that an engine never uses; for its process alone, before all others.

    Installed for other purposes (a check is trained with scipy), it made an engine start 1.5 s of a
    core's time later. None in ``sys.modules`` is Python's own word for what can't be imported.
    """
    sys.modules.update(dict.fromkeys(_UNWANTED))  # type: ignore[arg-type]


def without_progress() -> None:
    """No progress bars and none of Python's warnings from now on; imports diffusers."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"diffusers|transformers|peft")
