"""Everything that decides what a data set written from titles holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from selfie_adapters.config.chat import ChatSettings
from selfie_adapters.config.reading import Section
from selfie_adapters.config.types import Count, NotNegative, Seed, Share


class WriterSettings(ChatSettings):
    """A chat model and what it costs."""

    input_price: NotNegative | None = None
    """For a million tokens; null leaves the costs in tokens."""
    output_price: NotNegative | None = None

    @model_validator(mode="after")
    def _both_prices(self) -> WriterSettings:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("give both input_price and output_price, or neither")
        return self


class TopicWritingSettings(Section):
    titles: str
    """JSON ({"titles": […]} or a list), JSONL, or one title a line; .gz too."""
    limit: Count | None = None
    """Number of titles, sampled at random; null: all."""
    earlier: tuple[str, ...] = ()
    """candidates.jsonl of earlier runs, merged with this one's."""
    writer: WriterSettings
    judge: WriterSettings | None = None
    """Who chooses prompts and rates labels; default: the writer."""
    device: str | None = None
    """Where a model in this process goes: cpu, cuda, cuda:1, mps, auto; null: the first GPU, else
    the CPU."""
    judged: bool = True
    """false keeps everything: the first prompt, all labels."""
    prompts: Count = 3
    """Of every title, of which one is chosen."""
    labels: Count = 8
    """Of every title and run."""
    runs: Count = 1
    """Questions per title."""
    temperature: NotNegative = 0.8
    max_tokens: Count = 800
    least_mark: Share = 0.6
    """Labels with a lower rating are dropped."""
    least_labels: Count = 3
    """Topics with fewer remaining labels are dropped."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: Seed = 42
