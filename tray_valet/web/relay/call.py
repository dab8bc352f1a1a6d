"""One request on its way through the router, and what is noted of it in the end.

Decides: which outcome its end is. Must not: serve it (`relay.py` does).
"""

from __future__ import annotations

import time

from tray_valet.core.commands import Lease, Wish
from tray_valet.core.config_providers import Priority
from tray_valet.core.dialects import Operation
from tray_valet.core.errors import Paused, QueueFull, ValetError
from tray_valet.core.models import ModelRef
from tray_valet.core.traffic import Exchanged, Outcome
from tray_valet.web.edge.bodies import ClientGoneError
from tray_valet.web.edge.errors import HttpError
from tray_valet.web.edge.requests import DirectAnswer
from tray_valet.web.relay.delivery import Delivery
from tray_valet.web.relay.ends import Ends
from tray_valet.web.relay.request_body import Asked
from tray_valet.web.relay.token_tail import TokenTail

_NO_WISH = Wish(model="")
_NOWHERE = ModelRef("", "")
_OUR_NO = (Paused, QueueFull)


class Call:
    """One request, and what is to be noted of it."""

    __slots__ = (
        "_attempts",
        "_ended_s",
        "_load_s",
        "_queue_s",
        "_wish",
        "asked",
        "at",
        "begun_s",
        "client",
        "delivery",
        "ends",
        "error_code",
        "has_failed",
        "lease",
        "operation",
        "outcome",
        "tail",
        "when_gone",
    )

    def __init__(self, operation: Operation, client: str, answer: DirectAnswer, *, at: float) -> None:
        """`client` is the name of its key; `at` is Unix seconds."""
        self.operation = operation
        self.client = client
        self.ends = Ends()
        self.delivery = Delivery(answer, operation)
        self.tail = TokenTail()
        self.when_gone = answer.writer.when_gone
        self.asked: Asked | None = None
        self.lease: Lease | None = None
        self.at = at
        self.begun_s = time.monotonic()  # uvloop's own time goes in milliseconds
        self.outcome = Outcome.FAILED
        self.error_code = ""
        self.has_failed = False  # an engine has, for this request
        self._attempts = 0
        self._queue_s = 0.0
        self._load_s = 0.0
        self._ended_s = 0.0
        self._wish = _NO_WISH

    @property
    def asked_for(self) -> str:
        """The model as the client named it; "" where it named none."""
        return self.asked.wish.model if self.asked is not None else ""

    def note_lease(self, lease: Lease) -> None:
        """A candidate is about to be asked."""
        self.lease = lease
        self._attempts += 1
        self._queue_s += lease.queue_s
        self._load_s += lease.load_s

    @property
    def attempts(self) -> int:
        return self._attempts

    @property
    def is_ended(self) -> bool:
        """Whether no other candidate can be asked any more: an answer has begun, or nobody waits for one."""
        return self.delivery.has_answer or self.ends.final is not None

    def settle(self, outcome: Outcome, error_code: str) -> None:
        """It ends so."""
        self.outcome, self.error_code = outcome, error_code

    def left(self) -> None:
        """Its client has gone, or could only be cut off."""
        if isinstance(self.ends.final, ClientGoneError) or not self.delivery.has_answer:
            self.settle(Outcome.CLIENT_LEFT, "")
        else:
            self.settle(Outcome.CUT, self.error_code)

    def fail(self, error: ValetError | HttpError) -> None:
        """It ends with an error."""
        if self.delivery.has_answer:
            outcome = Outcome.CUT
        else:
            # A pause may have taken it back from an engine that did not fail.
            is_ours = not self.has_failed and isinstance(error, _OUR_NO)
            outcome = Outcome.REFUSED if is_ours or not self._attempts else Outcome.FAILED
        self.settle(outcome, error.code.value)

    def end(self) -> None:
        """It is over. What it was is remembered, and what it held is let go."""
        self._ended_s = time.monotonic()
        if self.asked is not None:
            self._wish, self.asked = self.asked.wish, None
        self.delivery.let_go()
        del self.when_gone

    def record(self) -> Exchanged:
        """What is noted, after the end."""
        delivery, lease = self.delivery, self.lease
        began_s = delivery.began_s
        prompt, completion = self.tail.tokens() if delivery.has_answer else (None, None)
        wish = self._wish
        ref, reason = (lease.ref, lease.reason) if lease is not None else (_NOWHERE, "")
        return Exchanged(
            at=self.at,
            asked=wish.model,
            path=self.operation.path,
            client=self.client,
            priority=wish.priority or Priority.NORMAL,
            provider=ref.provider,
            model=ref.model,
            reason=reason,
            attempts=self._attempts,
            is_stream=delivery.is_stream,
            status=delivery.status,
            outcome=self.outcome,
            error_code=self.error_code,
            queue_s=self._queue_s,
            load_s=self._load_s,
            first_byte_s=began_s - self.begun_s if began_s is not None else None,
            total_s=self._ended_s - self.begun_s,
            prompt_tokens=prompt,
            completion_tokens=completion,
            answer_bytes=delivery.answer_bytes,
        )
