"""The model card of an adapter: README.md of its repository on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.specialists import is_specialist
from selfie_adapters.hub import is_repo_name
from selfie_adapters.output import visible
from selfie_adapters.report.evaluation_figures import Figure
from selfie_adapters.training.run_reading import Run, flat

DEMO_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the model "demo" is on the hub."""
LIBRARY = "selfie-adapters"

_TRAINING = {
    "seed": "seed",
    "model.dtype": "dtype of the model",
    "data.batch_size": "batch size",
    "training.optimizer_type": "optimizer",
    "training.learning_rate": "learning rate",
    "training.scheduler_type": "schedule",
    "training.num_epochs": "epochs",
    "training.max_steps": "steps at most",
}
_CONTENT = (
    (".mean.safetensors", "mean vectors, subtracted from activations before the adapter"),
    (".confidence.json", "calibration: when to believe a label"),
    ("README.md", "this card"),
)


def model_card(
    repo: str,
    adapter: Adapter,
    files: Sequence[str],
    figures: Sequence[Figure] = (),
    run: Run | None = None,
) -> str:
    """The card as Markdown with YAML front matter.

    files: names in the repository. figures: of the adapter, alongside its controls. run: the
    training run that the adapter is from, if its folder is at hand.
    """
    name = repo.split("/")[-1]
    return "\n".join(
        [
            "---",
            yaml.safe_dump(_front_matter(name, adapter, figures), sort_keys=False).rstrip(),
            "---",
            "",
            f"# {name}",
            "",
            *_summary(repo, adapter, files),
            *_trained_for(adapter),
            *_training(adapter, run),
            *_figures(figures),
            *_files(files),
        ]
    )


def base_model(adapter: Adapter) -> str | None:
    """The hub's name of the model an adapter is for; None where it is only known by a path."""
    binding = adapter.binding
    if binding is not None:
        stated: Any = binding.model
    else:
        stated = flat(adapter.record.config).get("model.name")
    if stated == "demo":
        return DEMO_BASE
    known = isinstance(stated, str) and is_repo_name(stated) and not Path(stated).exists()
    return stated if known else None


def _front_matter(name: str, adapter: Adapter, figures: Sequence[Figure]) -> dict[str, Any]:
    found: dict[str, Any] = {"library_name": LIBRARY}
    if (base := base_model(adapter)) is not None:
        found |= {"base_model": base, "base_model_relation": "adapter"}
    found["tags"] = ["selfie-adapter", "interpretability", adapter.kind.replace("_", "-")]
    if figures:
        found["model-index"] = [{"name": name, "results": _results(figures)}]
    return found


def _results(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Results of a model index: one for each protocol, data set and split."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for one in figures:
        metric = {
            "type": one.metric.split(" (")[0],
            "name": f"{one.metric}, {one.condition}",
            "value": round(one.value, 6),
            "args": {"low": round(one.low, 6), "high": round(one.high, 6), "own": one.own},
        }
        groups.setdefault((one.protocol, one.dataset, one.split), []).append(metric)
    return [
        {
            "task": {"type": "text-generation", "name": f"labels of vectors: {protocol}"},
            "dataset": {"name": dataset, "type": dataset, "split": split},
            "metrics": metrics,
        }
        for (protocol, dataset, split), metrics in groups.items()
    ]


def _summary(repo: str, adapter: Adapter, files: Sequence[str]) -> list[str]:
    model = base_model(adapter) or "its language model"
    option = f" --model {model}" if base_model(adapter) else " --model MODEL"
    with_mean = " Its mean vectors come with it." if _has(files, ".mean.safetensors") else ""
    return [
        f"An adapter ({adapter.kind}, {adapter.num_parameters():,} parameters, width "
        f"{adapter.dim:,}) that turns a vector of {model} into a soft token, so that the model "
        "itself labels the vector.",
        "",
        "```bash",
        "pip install selfie-adapters",
        f"selfie label VECTORS{option} --adapter {repo} --out labels",
        "```",
        "",
        "```python",
        "from selfie_adapters import load_adapter",
        "",
        f'adapter = load_adapter("{repo}")',
        "soft_tokens = adapter.transform(vectors)  # [n, d] → [n, d]",
        "```",
        "",
        f"It reads vectors of this model alone, through the prompt below.{with_mean}",
        "",
    ]


def _trained_for(adapter: Adapter) -> list[str]:
    binding = adapter.binding
    if binding is None:
        return []
    model = base_model(adapter) or Path(binding.model).name
    rows = {
        "model": f"{model} at {binding.revision}" if binding.revision else model,
        "layer": "several, or not stated" if binding.layer is None else binding.layer,
        "position": binding.position,
        "chat format of the vectors": binding.chat,
        "question of the vectors": binding.question,
        "prompt": binding.template,
        "placeholder": binding.placeholder,
        "label for no concept": binding.no_concept,
    }
    return ["## Trained for", "", *_table(("", ""), list(rows.items())), ""]


def _training(adapter: Adapter, run: Run | None) -> list[str]:
    config = flat(adapter.record.config)
    rows = [(name, config.get(key)) for key, name in _TRAINING.items()]
    rows.append(
        ("steps", f"{adapter.record.global_step:,}" if adapter.record.global_step else None)
    )
    loss = adapter.record.best_val_loss
    rows.append(("validation loss (nats per token)", None if loss is None else f"{loss:.4f}"))
    if run is not None and run.best is not None:
        step, value = run.best
        rows.append(("lowest validation loss of the run", f"{value:.4f} at step {step:,}"))
    if all(value is None for _, value in rows):
        return []
    return ["## Training", "", *_table(("", ""), rows), ""]


def _figures(figures: Sequence[Figure]) -> list[str]:
    if not figures:
        return [
            "## Evaluation",
            "",
            "No evaluation came with this adapter: how often its labels are right is not known.",
            "",
        ]
    rows = [
        (
            f"{one.protocol}, {one.dataset} ({one.split}, {one.vectors:,} vectors)",
            one.metric,
            f"**{one.condition}**" if one.own else one.condition,
            f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]",
        )
        for one in figures
    ]
    header = ("data", "measure", "condition", "value, 95 % interval")
    return ["## Evaluation", "", *_table(header, rows), ""]


def _files(files: Sequence[str]) -> list[str]:
    rows = []
    for name in files:
        known = next((text for ending, text in _CONTENT if name.endswith(ending)), None)
        if known is None:
            known = (
                "specialist for one block and kind of position"
                if is_specialist(Path(name))
                else "the adapter"
            )
        rows.append((f"`{name}`", known))
    return ["## Files", "", *_table(("file", "content"), rows), ""]


def _has(files: Sequence[str], ending: str) -> bool:
    return any(name.endswith(ending) for name in files)


def _table(header: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """A Markdown table; rows whose last value is None are dropped."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        if row[-1] is not None:
            lines.append("| " + " | ".join(map(_cell, row)) + " |")
    return lines


def _cell(value: Any) -> str:
    """A value inside one cell: on one line, without marks that end a cell or begin HTML."""
    text = visible(str(value)).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;")
