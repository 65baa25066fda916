"""``python -m calotype.engine.checks.scoring``: has a check that reads score prompts, for commands.

It reads one JSON object, the check and the prompts, and writes one: the scores of each, or what is
wrong. No other process has torch.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer once."""
    asked = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    json.dump(answer(asked["use"], asked["prompts"]), answers)
    answers.close()


def answer(said: dict[str, Any], prompts: list[str]) -> dict[str, Any]:
    """The scores of each prompt by label, or the error."""
    from calotype.engine.libraries import before_libraries

    before_libraries()
    import torch

    from calotype.core.picture_checks import CheckUse
    from calotype.engine.checks.base import CheckBroken, checked
    from calotype.engine.checks.running import load_check

    use = CheckUse(**{**said, "labels": tuple(said["labels"])})
    names = {use.score_name(label): label for label in use.labels}
    try:
        check = load_check(use, torch.device("cpu"))
        with torch.inference_mode():
            found = [checked(use, check.scores([each]), 1)[0] for each in prompts]
    except CheckBroken as error:
        return {"error": error.detail}
    except Exception as error:  # noqa: BLE001 - a library's own way to say that a file is no model
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return {"scores": [{names[name]: score for name, score in one.items()} for one in found]}


if __name__ == "__main__":
    main()
