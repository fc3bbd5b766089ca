"""`replace` for what changes with almost every step: State, and what it knows of each voter.

`dataclasses.replace` reads and checks each field and runs `__init__`, which for some sixty fields
takes longer than all that a step decides. Where a class has no slots, a copy of the instance's
dictionary is the same thing at a tenth of the price. To the type checker it is the usual one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import replace
else:

    def replace(instance, **changes):
        """Another instance with these fields changed.

        The class has no `__post_init__`, and, where it has no slots, no cached properties.
        """
        before = getattr(instance, "__dict__", None)
        if before is None:
            return dataclasses.replace(instance, **changes)
        kind = type(instance)
        another = object.__new__(kind)
        after = another.__dict__
        after.update(before)
        after.update(changes)
        assert len(after) == len(kind.__dataclass_fields__), f"{kind.__name__}: {list(changes)}"
        return another


__all__ = ["replace"]
