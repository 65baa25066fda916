"""Tokenizers, read once for as many models as have the same: one of CLIP's takes 0.1 s.

They are lookups that nothing changes. The loop's thread alone uses them, so models may share them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from calotype.engine.recent import Recent

_KEPT: Recent[Any, Any] = Recent(8)


def tokenizer(kind: Any, folder: Path) -> Any:
    """A folder's tokenizer, or another's that was read from the same files."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    key = [(file.name, hashlib.sha256(file.read_bytes()).digest()) for file in files]
    return _KEPT.get((kind, *key), lambda: kind.from_pretrained(folder, local_files_only=True))
