"""The figures of one validation, and what was fitted to its texts."""

from dataclasses import dataclass

from textlora.settings import Metric


@dataclass(frozen=True)
class ValidationRecord:
    """Validation figures at one step, and what was fitted to these texts.

    A multi-label classifier has one of `thresholds` for each label.
    """

    loss: float
    accuracy: float
    f1_weighted: float
    f1_macro: float
    temperature: float = 1.0  # see `calibration`
    thresholds: tuple[float, ...] = ()  # see `thresholds`

    def rate(self, metric: Metric) -> tuple[float, float]:
        """What the best is chosen by, larger is better: the metric, and of equals the lower loss.

        Few texts have many ties in accuracy; of two equals the lower loss is the better fitted.
        """
        value = -self.loss if metric == "loss" else getattr(self, metric)
        return value, -self.loss
