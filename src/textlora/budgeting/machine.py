"""What a plan must know of a machine, and what is measured to know it."""

import math
from dataclasses import dataclass

from textlora.model.batching import MAX_TOKENS

_ITEMSIZES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class LayerSizes:
    """What is measured: a layer, and a batch of `texts` of `length` tokens each.

    `dropout` is that inside the encoder, `adapter_dropout` that of adapters of `rank`.
    """

    width: int
    heads: int
    inner: int
    texts: int
    length: int
    rank: int
    dropout: float
    adapter_dropout: float


@dataclass(frozen=True)
class Speed:
    """Operations a second of a pass without gradients, and of one there and back.

    Beside its operations an adapter takes `adapter_seconds` in training for each element that it
    reads or writes: masks, and products too narrow to be fast. `is_steady`: repeats took alike, as
    on a machine that does nothing else.
    """

    forward_per_s: float
    trained_per_s: float
    adapter_seconds: float
    is_steady: bool = True

    def is_sound(self) -> bool:
        """Whether every value is one that could have been measured."""
        values = (self.forward_per_s, self.trained_per_s, self.adapter_seconds)
        known = all(isinstance(value, float) and math.isfinite(value) for value in values)
        sound = known and min(values[:2]) > 0.0 and self.adapter_seconds >= 0.0
        return sound and isinstance(self.is_steady, bool)


@dataclass(frozen=True)
class Machine:
    """Where and in which number format training computes here.

    `library_bytes` is what the process takes before data or a model is loaded.
    """

    device: str
    number_format: str
    num_threads: int
    library_bytes: int

    @property
    def itemsize(self) -> int:
        """Bytes of one of the model's numbers."""
        return _ITEMSIZES[self.number_format]

    def is_sound(self) -> bool:
        """Whether every value is one that could have been found."""
        counts = (self.num_threads, self.library_bytes)
        known = all(isinstance(count, int) and not isinstance(count, bool) for count in counts)
        return (
            known
            and min(counts) >= 0
            and self.num_threads > 0
            and self.device in MAX_TOKENS
            and self.number_format in _ITEMSIZES
        )
