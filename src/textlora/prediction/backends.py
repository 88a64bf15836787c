"""Which backend answers: torch, OpenVINO, or the fastest of them that keeps the labels.

    RUN/backends/NAME/  model.xml, model.bin   the converted classifier
                        backend.json           from what it was made, and what the probe found
    RUN/backends/auto.json                     which one is the fastest on which machine

They are made on first use, and again when the classifier or a package has changed. Where the run
folder cannot be written they are made each time.
"""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from textlora.data.cleaning import clean_text
from textlora.errors import DataError, ModelError, SettingsError
from textlora.model.batching import TokenizedTexts, tokenize
from textlora.model.logits import Backend
from textlora.prediction import openvino_backend
from textlora.prediction.cascade import CascadeBackend, find_margin
from textlora.prediction.converted import (
    MAX_AGAIN,
    MAX_FLIPS,
    Probe,
    keep_converted,
    read_converted,
)
from textlora.prediction.openvino_backend import OpenVinoBackend
from textlora.runs.loaded_run import LoadedRun
from textlora.runs.run_folder import BACKENDS
from textlora.scoring.tasks import find_task
from textlora.settings import BackendName
from textlora.system import runtime
from textlora.system.files import (
    write_json,
)

if TYPE_CHECKING:
    from textlora.model.plain_classifier import MergedModel
    from textlora.model.torch_backend import TorchBackend

Say = Callable[[str], None]
_CALIBRATION_TEXTS, _PROBE_TEXTS = 300, 1_000
_AUTO = "auto.json"


def open_backend(run: LoadedRun, name: BackendName, say: Say) -> Backend:
    """The backend of a loaded run, converted first where that was not done; it takes the model.

    Raises:  SettingsError for an unknown name; ModelError if its packages are missing, it cannot
    convert this encoder, or int8 changes too many labels or has no validation texts.
    """
    if name not in get_args(BackendName):
        known = ", ".join(get_args(BackendName))
        raise SettingsError(f"backend: unknown name, got {name!r}; known: {known}")
    maker = _Maker(run, say)
    if name == "torch":
        return maker.make_torch()
    return maker.find_fastest() if name == "auto" else maker.open(name)


class _Maker:
    """Makes the backends of one run from one merged model.

    Graphs are converted from it in float32; torch takes it over and casts it, so torch comes last.
    """

    def __init__(self, run: LoadedRun, say: Say) -> None:
        self._run, self._say = run, say
        self._pad_id = int(run.tokenizer.pad_token_id)
        self._dtype = runtime.name_dtype(run.recipe.training.precision, runtime.name_device())
        self._task = find_task(run.recipe.data, run.manifest.thresholds)
        self._merged: MergedModel | None = None
        self._graph: Any = None  # in float32
        self._torch: TorchBackend | None = None
        self._opened: dict[str, Backend] = {}
        self._parts: tuple[TokenizedTexts, TokenizedTexts] | None = None

    def make_torch(self) -> "TorchBackend":
        if self._torch is None:
            import torch

            from textlora.model.torch_backend import TorchBackend

            merged, dtype = self._merge(), getattr(torch, self._dtype)
            self._torch = TorchBackend(merged.model, merged.whole, dtype, self._pad_id)
        return self._torch

    def _merge(self) -> "MergedModel":
        if self._merged is None:
            self._merged = self._run.merge()
        return self._merged

    def find_fastest(self) -> Backend:
        """As `auto` chooses; remembered for this machine."""
        if runtime.name_device() != "cpu":
            return self.make_torch()
        try:
            key = self._describe("auto", int8=True) | {"machine": _describe_machine()}
            chosen = self._read_choice(key) or self._choose(key)
        except (ModelError, DataError) as error:
            self._say(f"auto: torch answers, as the others cannot be compared ({error})")
            return self.make_torch()
        return self.make_torch() if chosen == "torch" else self.open(chosen)

    def _choose(self, key: dict[str, Any]) -> str:
        opened = {}
        for name in ("openvino-int8", "openvino"):
            try:
                opened[name] = self.open(name)
            except ModelError as error:
                self._say(f"auto: without {name} ({error})")
        probes = {name: self._probe(backend) for name, backend in opened.items()}
        rates = {"torch": max((probe.torch_rate for probe in probes.values()), default=0.0)}
        rates |= {name: probe.rate for name, probe in probes.items() if probe.keeps_labels}
        chosen = max(rates, key=lambda name: rates[name])
        listed = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        self._say(f"auto: {chosen} answers (texts/s: {listed})")
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            write_json(self._folder / _AUTO, {"key": key, "chosen": chosen, "rates": rates})
        return chosen

    def _read_choice(self, key: dict[str, Any]) -> str | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self._folder / _AUTO).read_text("utf-8"))
            if found["key"] == key and found["chosen"] in get_args(BackendName):
                return str(found["chosen"])
        return None

    def open(self, name: str) -> Backend:
        """An OpenVINO backend, from the run folder or made now."""
        if name in self._opened:
            return self._opened[name]
        int8 = name == "openvino-int8"
        key = self._describe(name, int8=int8)
        folder = self._folder / name
        facts = read_converted(folder, key)
        if facts is None:
            self._say(f"{name}: converting the classifier; this is done once")
            graph, probe = self._make(folder, key, int8=int8)
        else:
            graph, probe = openvino_backend.load(folder), facts["probe"]
        packages = ", ".join(f"{package} {number}" for package, number in key["packages"].items())
        identity = f"{name} {key['dtype']} ({packages})"
        if probe is None:
            self._opened[name] = self._compile(graph, identity)
        else:
            self._refuse(probe)
            # torch takes the model over, from which other graphs may still be made: it comes later.
            self._opened[name] = self._cascade(self._compile(graph), probe.margin, identity)
        return self._opened[name]

    def _refuse(self, probe: Probe) -> None:
        """Raise what speaks against int8, if something does."""
        where, instead = f"{self._run.folder}: int8", "use --backend openvino"
        if not probe.is_sure:
            raise ModelError(
                f"{where} leaves {probe.again} of {probe.texts} probe texts too close to call, "
                f"allowed are {MAX_AGAIN:.0%}; {instead}"
            )
        if not probe.keeps_labels:
            raise ModelError(
                f"{where} changes {probe.flips} of {probe.texts} probe labels, "
                f"allowed are {MAX_FLIPS:.1%}; {instead}"
            )

    def _make(self, folder: Path, key: dict[str, Any], *, int8: bool) -> tuple[Any, Probe | None]:
        """Convert, and keep what was converted if the run folder can be written."""
        if self._graph is None:
            model: Any = self._merge().model
            from textlora.prediction import openvino_conversion

            self._graph = openvino_conversion.convert(
                model, self._pad_id, self._run.manifest.max_length, int(model.config.vocab_size)
            )
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            if int8:
                graph, probe = self._quantize(scratch)
            else:
                graph, probe = self._store(self._graph, scratch), None
            try:
                keep_converted(scratch, folder, {"key": key, "probe": probe and asdict(probe)})
            except OSError as error:  # another process converts it, the disk is full, or not ours
                reason = error.strerror or f"process {error} is writing there"
                self._say(f"{folder}: not kept ({reason}); it will be converted again")
        return graph, probe

    def _quantize(self, scratch: Path) -> tuple[Any, Probe]:
        """The faster way if it keeps the labels, else the more careful one."""
        calibration, tokens = self._read_parts()
        for careful in (False, True):
            graph = self._graph.clone()
            graph = openvino_backend.quantize(graph, calibration, self._pad_id, careful=careful)
            graph = self._store(graph, scratch)
            quick = self._compile(graph)
            logits = quick.compute_logits(tokens)
            exact = self.make_torch().compute_logits(tokens)
            leads = self._compute_margin(logits)
            margin = find_margin(leads, self._task.margin_shift(logits, exact))
            again = int((leads < margin).sum())
            probe = replace(self._probe(self._cascade(quick, margin)), margin=margin, again=again)
            if probe.keeps_labels and probe.is_sure:
                break
        return graph, probe

    def _store(self, graph: Any, scratch: Path) -> Any:
        # Read back: weights are rounded, and the next process must give the same bits as this one.
        openvino_backend.save(graph, scratch, self._dtype)
        return openvino_backend.load(scratch)

    def _compile(self, graph: Any, identity: str = "") -> OpenVinoBackend:
        return OpenVinoBackend(graph, self._dtype, self._pad_id, identity)

    def _cascade(self, quick: Backend, margin: float, identity: str = "") -> CascadeBackend:
        return CascadeBackend(quick, self.make_torch, self._compute_margin, margin, identity)

    def _compute_margin(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        return self._task.margin(logits, self._run.manifest.temperature)

    def _probe(self, backend: Backend) -> Probe:
        _, tokens = self._read_parts()
        answers, rates = [], []
        for candidate in (self.make_torch(), backend):
            candidate.compute_logits(tokens.take(np.arange(len(tokens))[:8]))  # builds kernels
            begin = time.perf_counter()
            answers.append(self._answer(candidate.compute_logits(tokens)))
            rates.append(len(tokens) / (time.perf_counter() - begin))
        flips = int(np.count_nonzero(~self._task.match(*answers)))
        return Probe(len(tokens), flips, 0.0, 0, rates[1], rates[0])

    def _answer(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        temperature = self._run.manifest.temperature
        shares = self._task.compute_probabilities(logits, logits.shape[1], temperature)
        return self._task.decide(shares)

    def _read_parts(self) -> tuple[TokenizedTexts, TokenizedTexts]:
        """Validation texts to calibrate on, and others to probe."""
        if self._parts is None:
            from textlora.data.labelled_texts import load_labelled_texts

            settings = self._run.recipe.data
            try:
                validation = load_labelled_texts(settings).validation.texts
            except DataError as error:
                raise ModelError(
                    f"{self._run.folder}: its validation texts are needed here ({error}); "
                    "use --backend openvino or torch"
                ) from None
            repair = settings.repair_entities
            texts = [clean_text(text, repair_entities=repair) for text in validation]
            count = min(_CALIBRATION_TEXTS, (len(texts) + 1) // 2)
            chosen = texts[:count], texts[count : count + _PROBE_TEXTS] or texts
            length = self._run.manifest.max_length
            first, second = (tokenize(self._run.tokenizer, part, length) for part in chosen)
            self._parts = first, second
        return self._parts

    def _describe(self, name: str, *, int8: bool) -> dict[str, Any]:
        """All that a converted classifier follows from."""
        return {
            "name": name,
            "classifier": self._run.fingerprint,
            "dtype": self._dtype,
            "packages": openvino_backend.describe_versions(int8=int8),
        }

    @property
    def _folder(self) -> Path:
        return self._run.folder / BACKENDS


def _describe_machine() -> str:
    environment = runtime.describe_environment()
    return f"{environment.processor}, {environment.num_threads} threads"
