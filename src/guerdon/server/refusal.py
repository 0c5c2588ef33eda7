"""Why a request is not served: one exception that becomes an `ErrorReply`."""

from __future__ import annotations

from guerdon.errors import GuerdonError
from guerdon.wire.protocol import STATUS, ErrorBody, ErrorCode, ErrorReply


class Refused(GuerdonError):
    """A request is refused as a whole.

    Args:
        code: for programs; decides the status.
        message: what was wrong, where, and what to do.
        retry_after: seconds after which the client may come back.
        headers: further headers of the reply.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.headers = headers

    @property
    def status(self) -> int:
        """HTTP status."""
        return STATUS[self.code]

    def reply(self, request_id: str) -> ErrorReply:
        """What the client gets."""
        after = None if self.retry_after is None else self.retry_after * 1000.0
        # What a client wrote may be quoted in the message, lone surrogates included.
        message = self.message.encode("utf-8", "backslashreplace").decode()
        return ErrorReply(
            ErrorBody(code=self.code, message=message, request_id=request_id, retry_after_ms=after)
        )
