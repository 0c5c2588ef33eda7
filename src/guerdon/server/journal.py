"""The log: one JSON object per line, with the id of the request."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any, cast

import msgspec

LOG = logging.getLogger("guerdon.server")
REQUESTS = logging.getLogger("guerdon.server.request")
FIELDS = "guerdon_fields"

LONGEST_TRACEBACK = 8000


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(cast("dict[str, Any]", getattr(record, FIELDS, {})))
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))[
                -LONGEST_TRACEBACK:
            ]
        try:
            return msgspec.json.encode(line).decode()
        except (UnicodeEncodeError, TypeError):
            printable = {key: _printable(value) for key, value in line.items()}
            return msgspec.json.encode(printable).decode()


def _printable(value: Any) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def log_to_stderr(level: int = logging.INFO) -> None:
    """Let this process write its log to standard error, the server's and uvicorn's."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("guerdon", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level)
    # uvicorn says the address and the process twice over; what happens is said here.
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.WARNING))


def log_request(level: int, message: str, **fields: Any) -> None:
    """Log what became of a request."""
    if REQUESTS.isEnabledFor(level):
        REQUESTS.log(level, message, extra={FIELDS: fields})
