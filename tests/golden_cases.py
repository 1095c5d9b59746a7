"""Names of the golden adapters: every kind, with inputs normalized and raw."""

GOLDEN_ADAPTERS = [
    f"{kind}_{form}"
    for kind in (
        "scale_only",
        "scalar_affine",
        "low_rank_only",
        "scalar_affine_plus_low_rank",
        "full_rank",
    )
    for form in ("norm", "raw")
]
