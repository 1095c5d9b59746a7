"""How good labels are: protocols with their controls and intervals."""

from selfie_adapters.evaluation.baselines import Baseline, LogitLens, RidgeProbe, TokenCosine
from selfie_adapters.evaluation.naming.conditions import Known, name_vectors
from selfie_adapters.evaluation.naming.verdicts import Named
from selfie_adapters.statistics import Interval, bootstrap_mean, wilson

__all__ = [
    "Baseline",
    "Interval",
    "Known",
    "LogitLens",
    "Named",
    "RidgeProbe",
    "TokenCosine",
    "bootstrap_mean",
    "name_vectors",
    "wilson",
]
