"""Figures and self-contained pages."""

from selfie_adapters.report.figures import condition_bars, loss_curve
from selfie_adapters.report.page import write_page

__all__ = ["condition_bars", "loss_curve", "write_page"]
