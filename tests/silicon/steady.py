"""What an interrupt can do to a test of the running CPU, and how a test gets past it."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
TIMES = 20


def steadily(judge: Callable[P, T]) -> Callable[P, T]:
    """`judge`, called again if it failed: only what it finds TIMES times in a row is wrong.

    After a context switch a component with initial values can be in use (the kernel restored it), and what was
    not modified since XRSTOR can count as modified. A busy machine switches often, but not every time.
    """

    @functools.wraps(judge)
    def judged(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TIMES - 1):
            try:
                return judge(*args, **kwargs)
            except AssertionError:
                continue
        return judge(*args, **kwargs)

    return judged
