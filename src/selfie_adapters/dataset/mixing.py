"""Mixtures: an epoch takes examples of several groups of datasets in given proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.errors import DataError, nearest


@dataclass(frozen=True)
class Group:
    """Examples of one entry of a mixture: positions in the split, and the entry's ratio."""

    members: Tensor
    ratio: float


def matching(pattern: str, ids: Sequence[str]) -> list[str]:
    """The dataset ids ("name@l{layer}") that `pattern` means: one of them, or a name's all layers.

    Raises DataError with the nearest ones if there is none.
    """
    found = [one for one in ids if pattern in (one, one.rpartition("@l")[0])]
    if not found:
        names = [one.rpartition("@l")[0] for one in ids]
        raise DataError(
            f'dataset pattern "{pattern}" matches nothing. '
            f"{nearest(pattern, dict.fromkeys([*ids, *names]))}"
        )
    return found


def make_groups(
    ids: Sequence[str], section: Tensor, ratios: Sequence[tuple[Sequence[str], float]]
) -> list[Group]:
    """Groups of examples: ids[k] is the dataset of the examples with section == k.

    ratios: (patterns, ratio) of each group. Raises DataError for a pattern that matches nothing
    and for a group without examples.
    """
    groups = []
    for patterns, ratio in ratios:
        wanted = {one for pattern in patterns for one in matching(pattern, ids)}
        numbers = torch.tensor([k for k, one in enumerate(ids) if one in wanted])
        members = torch.isin(section, numbers).nonzero().flatten()
        if not members.numel():
            raise DataError(
                f"the group {', '.join(patterns)} has no examples in this split. Take it out of "
                "the ratios, or give it some."
            )
        groups.append(Group(members, ratio))
    return groups


def epoch_of(groups: Sequence[Group], generator: torch.Generator) -> Tensor:
    """Examples of one epoch, group by group, each group's in rising order.

    The group smallest for its ratio is taken whole; of every other, as many as its ratio asks for
    (rounded), sampled again from `generator`.
    """
    unit = min(group.members.numel() / group.ratio for group in groups)
    taken = []
    for group in groups:
        count = min(group.members.numel(), round(unit * group.ratio))
        order = torch.randperm(group.members.numel(), generator=generator)[:count]
        taken.append(group.members[order.sort().values])
    return torch.cat(taken)
