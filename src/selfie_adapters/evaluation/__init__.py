"""How good labels are, always beside controls and with intervals."""

from selfie_adapters.evaluation.concepts import ConditionResult, compare_with_controls
from selfie_adapters.evaluation.statistics import Interval, bootstrap_mean

__all__ = ["ConditionResult", "Interval", "bootstrap_mean", "compare_with_controls"]
