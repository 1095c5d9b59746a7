"""Lists of numbers as text: "0,5,9", "4:28:4", "-1", and mixtures of them. The one parser."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from selfie_adapters.errors import ConfigError

MAX_NUMBERS = 100_000


def parse_selection(text: str, count: int, what: str) -> list[int]:
    """The numbers from 0 to count - 1 that `text` names, each once, in the order named.

    text: numbers and slices as in Python, separated by commas; negative numbers count from the end.
    what: how the numbers are called in a message ("--layers"). Raises ConfigError for anything
    else, for a number out of range, and where nothing is chosen.
    """
    chosen: dict[int, None] = {}
    for part in text.split(","):
        numbers = _whole(part)
        if len(numbers) == 1 and numbers[0] is not None:
            if not -count <= numbers[0] < count:
                raise ConfigError(
                    f"{what}: {numbers[0]} is out of range; choose from 0 to {count - 1} "
                    f"(or -{count} to -1, from the end)."
                )
            chosen[numbers[0] % count] = None
        elif len(numbers) in (2, 3) and numbers[2:] != [0]:
            chosen.update(dict.fromkeys(range(count)[slice(*numbers)]))
        else:
            raise ConfigError(
                f"{what}: {part.strip()!r} is neither a number nor a slice. "
                'Write it as "4:28:4", "0,5,9" or "-1".'
            )
    if not chosen:
        raise ConfigError(f"{what}: {text!r} chooses none of 0 to {count - 1}.")
    return list(chosen)


def _whole(part: str) -> list[int | None]:
    try:
        return [int(number) if number.strip() else None for number in part.split(":")]
    except ValueError:
        return []


def split_numbers(value: Any) -> Any:
    """Numbers as a list, where `value` is text ("0,5,9", "4:28:4") or a list with such strings.

    A range start:stop:step needs both ends; stop is excluded. Anything else is returned as it is,
    for pydantic to check. Raises ValueError for text that is not such a list.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return value
    found: list[Any] = []
    for one in value:
        if isinstance(one, str):
            for part in one.split(","):
                found += numbers_of(part.strip())
        else:
            found.append(one)
    return found


def numbers_of(part: str) -> Iterable[float]:
    """One number, or those of one range. Raises ValueError for anything else."""
    ends = part.split(":")
    if len(ends) == 1:
        try:
            return [_number(part)]
        except ValueError:
            raise ValueError(f'"{part}" is not a number; write 0.5,1,2 or 4:28:4') from None
    try:
        start, stop, step = (*(Decimal(end) for end in ends), Decimal(1))[:3]
    except (InvalidOperation, ValueError):
        start = stop = step = Decimal("nan")
    if not all(end.is_finite() for end in (start, stop, step)) or len(ends) > 3:
        raise ValueError(f'"{part}" is not a range; write start:stop or start:stop:step')
    found: list[float] = []
    while (start < stop if step > 0 else step < 0 and start > stop) and len(found) < MAX_NUMBERS:
        found.append(_number(str(start)))
        start += step
    if not found:
        raise ValueError(f'"{part}" holds no number; stop is excluded')
    return found


def _number(text: str) -> float:
    """A whole number where it is written as one, so that layers stay integers."""
    try:
        return int(text)
    except ValueError:
        return float(text)
