"""What torch, diffusers and transformers are told before they are imported, and once they are.

Unasked they give advice that no user can follow: that torchvision isn't installed, that torchao's
kernels are for other devices. Imports none of them itself.
"""

from __future__ import annotations

import logging
import os
import warnings

from calotype.engine.threads import sleep_while_waiting

_VERBOSITY = ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY")  # the libraries' own variables
_LOGGERS = ("torchao", "torch.utils._pytree")  # these have none


def before_libraries() -> None:
    """Call first: their threads sleep while they wait, and they print errors alone.

    An operator who sets the variables otherwise has it otherwise.
    """
    sleep_while_waiting()
    for variable in _VERBOSITY:
        os.environ.setdefault(variable, "error")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def without_progress() -> None:
    """No progress bars and none of Python's warnings from now on; imports diffusers."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"diffusers|transformers|peft")
