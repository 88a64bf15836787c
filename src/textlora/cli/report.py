"""The command report: one page about one run, or several side by side."""

from pathlib import Path
from typing import Annotated

import typer

from textlora.cli.options import (
    JsonOption,
    print_json,
)
from textlora.errors import SettingsError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Run folders.")],
    split: Annotated[
        str | None, typer.Option(help="Figures on which split; test where there is one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File; that of the run, RUN/report.html, if not named.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about one run, or several side by side."""
    from textlora.evaluation.evaluation import read_evaluations
    from textlora.reporting.report import write_report
    from textlora.runs.run_folder import REPORT

    if out is None and len(runs) > 1:
        raise SettingsError("--out: missing; name the file of a report about several runs")
    split = split or read_evaluations(runs[0])[-1].split
    path = write_report(runs, split, out or runs[0] / REPORT)
    if as_json:
        print_json({"report": path, "bytes": path.stat().st_size})
    else:
        print(f"report        {path}")
