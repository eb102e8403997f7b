"""Images decoded in parallel with the passes; never more of them in memory than a few batches."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(
    work: Callable[[Given], Made], items: Iterable[Given], *, threads: int, ahead: int
) -> Iterator[tuple[Given, Made | Exception]]:
    """`work` done on every item by `threads` threads, at most `ahead` items ahead of the reader, results in order.

    An exception of `work` is handed over as a result: one bad image must not end the run.
    """
    source = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[Given, Future[Made]]] = deque()
        try:
            for item in itertools.islice(source, max(ahead, 1)):
                waiting.append((item, pool.submit(work, item)))
            while waiting:
                item, future = waiting.popleft()
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                for later in itertools.islice(source, 1):
                    waiting.append((later, pool.submit(work, later)))
                yield item, (error if error is not None else future.result())
        finally:
            for _item, future in waiting:
                future.cancel()
