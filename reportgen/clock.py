"""What time it is, or what ``SOURCE_DATE_EPOCH`` says it is."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime


def reproducible() -> bool:
    """Whether the caller asked for output that does not depend on the clock."""
    return bool(os.environ.get("SOURCE_DATE_EPOCH"))


def now() -> float:
    """Seconds since the epoch; those of ``SOURCE_DATE_EPOCH`` if it is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return float(epoch) if epoch.isdigit() else time.time()


def today() -> str:
    """The date for the cover, YYYY-MM-DD; that of ``SOURCE_DATE_EPOCH`` if it is set."""
    moment = datetime.fromtimestamp(now(), UTC)
    return (moment if reproducible() else moment.astimezone()).date().isoformat()
