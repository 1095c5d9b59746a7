"""Everything that decides the results of the bridge protocol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfie_adapters.chat import ChatSettings
from selfie_adapters.config import Count, Positive, Seed
from selfie_adapters.config_reading import Section
from selfie_adapters.labelling.settings import UNTRAINED_SCALES


class BridgeSettings(Section):
    questions: str = "facts"
    """The project's own (facts), a file, or a data set on the hub such as soheeyang/TwoHopFact."""
    limit: Count | None = 500
    """So many of those that are kept, drawn at random; null takes all."""
    only_answered: bool = True
    """Keep the questions whose bridge and whose answer the model says when it is asked."""
    answerer: ChatSettings = ChatSettings()
    """Who is asked: null the model itself in this process, or the same model behind a url."""
    model: str
    """Hub id, folder, .gguf file, or demo."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    device: str | None = None
    """Where the model goes: cpu, cuda, cuda:1, mps, auto; null: the first GPU, else the CPU."""
    adapter: str
    """Adapter file or hub path."""
    mean: str | None = None
    """File of mean vectors (layer_0, layer_1, …), subtracted from the states first."""
    layers: str | None = None
    """Blocks, zero-based: 24, 4:28:4, 0,5,9; null reads all, or those that `mean` has."""
    chat: Literal["template", "bare", "none"] = "template"
    """The question as the tokenizer's own chat turn, a turn without system prompt, or as it is."""
    samples: Count = 10
    """Labels of every state."""
    max_new_tokens: Count = 20
    temperature: Positive = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    untrained_scales: tuple[Positive, ...] = UNTRAINED_SCALES
    """Of the unit vector without an adapter, in mean embedding norms; each is read too."""
    random: bool = True
    """Read random directions too; costs another reading."""
    batch_size: Count = 256
    seed: Seed = 0
