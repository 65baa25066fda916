"""Log lines, ours and the libraries', to stderr in one form, and to the home folder's log as JSON.

Tracebacks never show local variables: those hold keys and prompts.
"""

from __future__ import annotations

import json
import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import structlog

from calotype.core import limits
from calotype.settings import Settings


class LogFile:
    """A step in structlog's chain that also writes each line to a file, once there is one."""

    def __init__(self) -> None:
        self._handler: RotatingFileHandler | None = None

    def open(self, path: Path) -> None:
        """Write to ``path`` from now on; past its limit it becomes PATH.1 and is begun anew."""
        path.parent.mkdir(parents=True, exist_ok=True)
        most = limits.SERVER_LOG_BYTES_MAX
        self._handler = RotatingFileHandler(path, maxBytes=most, backupCount=1, encoding="utf-8")

    def close(self) -> None:
        """Write to no file any more."""
        if self._handler is not None:
            self._handler.close()
        self._handler = None

    def __call__(self, _logger: Any, _name: str, event: Any) -> Any:
        """Write the line, and pass it on as it was."""
        if self._handler is not None:
            told = structlog.processors.format_exc_info(None, "", dict(event))
            line = json.dumps(told, default=repr, ensure_ascii=False)
            self._handler.handle(logging.makeLogRecord({"msg": line}))
        return event


log_file = LogFile()  # of this process, as stderr is


def configure_logging(settings: Settings) -> None:
    """Send everything of ``log_level`` and above to stderr, for people or as JSON lines."""
    as_json = settings.log_format == "json"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        shared.append(structlog.processors.format_exc_info)
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, log_file, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[remove_meta, log_file, renderer]
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
