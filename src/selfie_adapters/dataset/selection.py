"""Numbers chosen on a command line: "4:28:4", "0,5,9", "-1", and mixtures of them."""

from __future__ import annotations

from selfie_adapters.errors import ConfigError


def parse_selection(text: str, count: int, what: str) -> list[int]:
    """The numbers from 0 to count - 1 that `text` names, each once, in the order named.

    text: numbers and slices as in Python, separated by commas; negative numbers count from the end.
    what: how the numbers are called in a message ("--layers"). Raises ConfigError for anything
    else, for a number out of range, and where nothing is chosen.
    """
    chosen: dict[int, None] = {}
    for part in text.split(","):
        try:
            numbers = [int(number) if number.strip() else None for number in part.split(":")]
        except ValueError:
            numbers = []
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
                'Expected such as "4:28:4", "0,5,9" or "-1".'
            )
    if not chosen:
        raise ConfigError(f"{what}: {text!r} chooses none of 0 to {count - 1}.")
    return list(chosen)
