"""What evaluations leave in a folder: figures, answers and pictures."""

from collections.abc import Sequence
from pathlib import Path

from textlora.errors import TextloraError
from textlora.evaluation.evaluation import write_evaluations
from textlora.evaluation.run_evaluation import RunEvaluation
from textlora.evaluation.stored_predictions import write_answers
from textlora.runs.history import StepRecord


def save_results(
    folder: Path, results: Sequence[RunEvaluation], history: list[StepRecord]
) -> list[Path]:
    """Write figures and answers into `folder`, draw the last evaluation; returns the pictures.

    Raises:  TextloraError if the folder cannot be written.
    """
    from textlora.reporting.plots import save_pictures

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for item in results:
            write_answers(folder, item.evaluation.split, item.answers)
        write_evaluations(folder, [item.evaluation for item in results])
        return save_pictures(folder, results[-1].evaluation, history)
    except OSError as error:
        reason = error.strerror or error
        raise TextloraError(f"{folder}: cannot be written ({reason}); name another") from None
