"""Everything that decides what a data set written from titles holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from selfie_adapters.config.chat import ChatSettings
from selfie_adapters.config.shared import DeviceSettings
from selfie_adapters.config.types import Count, InFile, NotNegative, Seed, Share


class WriterSettings(ChatSettings):
    """A chat model and what it costs."""

    input_price: NotNegative | None = None
    """Price of a million tokens that are sent; null leaves the costs in tokens."""
    output_price: NotNegative | None = None
    """Price of a million tokens that are received."""

    @model_validator(mode="after")
    def _both_prices(self) -> WriterSettings:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("give both input_price and output_price, or neither")
        return self


class TopicWritingSettings(DeviceSettings):
    titles: InFile
    """JSON ({"titles": […]} or a list), JSONL, or one title a line; .gz too."""
    limit: Count | None = None
    """Take N titles, drawn at random; null takes all."""
    earlier: tuple[InFile, ...] = ()
    """candidates.jsonl of earlier runs, merged with this one's."""
    writer: WriterSettings
    judge: WriterSettings | None = None
    """Who chooses prompts and rates labels; default: the writer."""
    judged: bool = True
    """false keeps everything: the first prompt, all labels."""
    prompts: Count = 3
    """Prompts of every title, of which one is chosen."""
    labels: Count = 8
    """Labels of every title and run."""
    runs: Count = 1
    """How many times every title is asked about."""
    temperature: NotNegative = 0.8
    """Sampling temperature; 0 is greedy."""
    max_tokens: Count = 800
    """Longest answer, in tokens."""
    least_mark: Share = 0.6
    """Labels with a lower rating are dropped."""
    least_labels: Count = 3
    """Topics with fewer remaining labels are dropped."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the topics that is held out."""
    seed: Seed = 42
    """Seed of the titles that are taken, of the answers, and of the split."""
