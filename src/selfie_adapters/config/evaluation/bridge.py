"""Everything that decides the results of the bridge protocol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfie_adapters.config.labelling import UNTRAINED_SCALES
from selfie_adapters.config.shared import ChatSettings, ModelSettings
from selfie_adapters.config.types import (
    Chat,
    Count,
    InFile,
    NotNegative,
    Nucleus,
    Numbers,
    Option,
    Positive,
    Seed,
)


class BridgeSettings(ModelSettings):
    """Read the entity that connects the two hops of a question from the question's states."""

    questions: InFile = "facts"
    """The project's own (facts), a file, or a data set on the hub such as soheeyang/TwoHopFact."""
    question_id: str | None = None
    """Read this question alone (its uid)."""
    limit: Count | None = 500
    """Take N of those that are kept, drawn at random; null takes all."""
    only_answered: bool = True
    """Keep the questions whose bridge and whose answer the model says when it is asked."""
    answerer: ChatSettings = ChatSettings()
    """Who is asked: null the model itself in this process, or the same model behind a url."""
    adapter: InFile | None = None
    """Adapter file, hub path, or the name of a shipped one; null reads without one, at
    untrained_scales."""
    prompt: Literal["adapter", "chat_template"] = "adapter"
    """What is asked about a state: the adapter's own prompt (or the built-in one), or the same
    question in the tokenizer's whole chat template, for adapters that are bound to no prompt."""
    mean: Annotated[InFile | None, Option(default="the file next to the adapter, if any")] = None
    """File of mean vectors (layer_0, layer_1, …), subtracted from the states first; or the word
    questions: the mean over other questions of the category, by block and token."""
    layers: Annotated[str | None, Option(hyphen=True)] = None
    """Blocks, zero-based: 24, 4:28:4, 0,5,9; null reads all, or those that the file of means has.
    """
    chat: Chat | None = None
    """The question as the tokenizer's own chat turn, a turn without system prompt, or as it is;
    null: as the vectors that the adapter was trained on, else as the mean file, else template."""
    question_prefix: str = ""
    """Words before the question in its turn."""
    first_position: Annotated[int, Field(ge=0)] | None = None
    """First token that is read; null: the question's first."""
    match: Literal["label", "whole_text"] = "label"
    """What is searched for the bridge: the label up to its closing quote, or all that the model
    writes until it ends its turn."""
    echoes: bool = False
    """Count names of the bridge that the question contains."""
    keep_labels: bool = False
    """Keep every label of the first condition in rows.jsonl."""
    samples: Count = 10
    """Labels of every state."""
    max_new_tokens: Count = 20
    """Longest label, in tokens."""
    temperature: NotNegative = 0.7
    """Sampling temperature; 0 is greedy."""
    top_p: Nucleus | None = 1.0
    """null: the model's own generation_config decides."""
    untrained_scales: Annotated[tuple[Positive, ...], Numbers] = UNTRAINED_SCALES
    """Of the unit vector without an adapter; each is read too."""
    untrained_scale_unit: Literal["embedding_norm", "absolute"] = "embedding_norm"
    """What untrained_scales count: mean embedding norms, or the vector's own length."""
    random: bool = True
    """Read random directions too; costs another reading."""
    lens: bool = True
    """Read every state through the logit lens and the cosine with token embeddings too: the best
    tokens, as many as `samples`."""
    training_file: InFile | None = None
    """Read every state with a ridge probe too, which is fitted on the train vectors of its block in
    this training file (as selfie prepare topics makes it)."""
    batch_size: Count = 256
    """Labels per batch."""
    seed: Seed = 0
    """Seed of the questions that are taken, of the labels, and of the controls."""

    @model_validator(mode="after")
    def _something_to_read_with(self) -> BridgeSettings:
        if self.adapter is None and not self.untrained_scales:
            raise ValueError("without adapter, untrained_scales needs at least one scale")
        return self
