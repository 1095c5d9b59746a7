"""Topics from a data set on the hub, such as keenanpepper/fifty-thousand-things."""

from __future__ import annotations

from selfie_adapters.errors import DataError
from selfie_adapters.hub import hub_rows
from selfie_adapters.sources.topics.topic import Topic, topic_of_row


def hub_topics(repo: str) -> list[Topic]:
    """The topics of data set `repo`: columns original_title, labels, and perhaps prompt, split.

    Raises DataError naming file and row, and what `hub_rows` raises.
    """
    topics = []
    for place, row in hub_rows(repo):
        if "original_title" not in row:
            raise DataError(
                f"{place}: no column original_title (columns: {', '.join(row)}). Expected a data "
                "set like keenanpepper/fifty-thousand-things."
            )
        split = "val" if row.get("split") == "validation" else row.get("split")
        fields = {"name": row["original_title"], "labels": row.get("labels"), "split": split}
        topics.append(topic_of_row(place, {**fields, "prompt": row.get("prompt") or None}))
    if not topics:
        raise DataError(f"{repo}: the data set has no rows.")
    return topics
