"""What is known of each class of a data set."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from boundnas.store.base import Record

Count = Annotated[int, Field(ge=0)]


class ClassResult(Record):
    """What is known of one class: how many images of it there are, and the scores on them.

    Args:
        name: Of the class.
        train: Images of it that were trained on.
        validation: Images of it among those that networks were selected by.
        test: Images of it among those that the front was tested on, which the scores rest on.
        scores: Mean score of each network of the front over them, those inside the range first;
            none where there are no such images.
    """

    name: str
    train: Count
    validation: Count
    test: Count
    scores: tuple[FiniteFloat | None, ...]
