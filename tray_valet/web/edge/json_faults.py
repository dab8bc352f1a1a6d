"""What msgspec raises for bytes that are not JSON, or not of the form that was asked for.

Decides: the one tuple to catch. Must not: word an error: what malformed bytes mean depends on whose they are.
Passed-on values are kept undecoded (`msgspec.Raw`), so bytes that are no UTF-8 are met only when one is read.
"""

from __future__ import annotations

from typing import Final

import msgspec

MALFORMED: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
