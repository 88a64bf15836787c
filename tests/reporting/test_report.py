"""The page in a real browser: what it shows, what it asks for, what hostile texts can do."""

import html
import json
import re
import shutil
import subprocess

import pytest

from textlora.checking.findings import DataCheck, Finding, SplitFacts
from textlora.errors import ModelError, TextloraError
from textlora.evaluation.evaluation import read_evaluations
from textlora.evaluation.stored_predictions import read_answers
from textlora.reporting.report import write_report
from textlora.runs.provenance import read_training, write_data_check
from textlora.runs.seeds import Repeats, write_repeats
from textlora.scoring.significance import compute_spread

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
HOSTILE = [
    "<script>document.title = 'run'</script>",
    "</script><script>document.title = 'run'</script>",
    '"><img src=x onerror="document.title = \'run\'">',
    "{{ 7 * 7 }} {% raw %}",
    "مرحبا بالعالم 😀 " + "w" * 3_000,
]


@pytest.fixture
def run(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    return tmp_path / "run"


def spoil(run, texts, label="sport"):
    """Wrong answers to the given texts, and a label of another name."""
    path = run / "predictions" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, text in zip(rows, texts, strict=False):
        row |= {"text": text, "label": "sport", "predicted": "money", "confidence": 0.9}
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    path.write_text(lines.replace('"sport"', json.dumps(label)))
    stored = run / "evaluation.json"
    stored.write_text(stored.read_text().replace('"sport"', json.dumps(label)))


def answer_wrongly(run, count):
    """Other answers to the first texts, whose labels stay."""
    path = run / "predictions" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:count]:
        row["predicted"] = "money" if row["label"] == "sport" else "sport"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def open_page(path, script="", width=1100):
    """The page as the browser has it after `script`, and what it wrote to its console."""
    page = path.with_name("opened.html")
    page.write_text(path.read_text().replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={path.parent / 'profile'}", f"--window-size={width},900",
         "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_answer_comes_first_and_figures_are_those_stored(run):
    page = write_report([run], "test", run / "report.html").read_text()
    evaluation = read_evaluations(run)[1]
    assert f'<p class="big">{100 * evaluation.scores.accuracy:.1f} %' in page
    assert page.index("right label") < page.index("<h2>Classes</h2>")
    assert html.escape(evaluation.baselines[-1].verdict) in page
    for item in evaluation.scores.classes:
        assert f'<th scope="row">{item.label}</th>' in page
    wrong = [item for item in read_answers(run, "test") if item.label != item.predicted]
    assert f"{len(wrong)} of 60 texts" in page


def test_a_score_that_chose_the_checkpoint_is_doubted(run):
    assert "These rows chose the checkpoint" in write_report(
        [run], "validation", run / "v.html"
    ).read_text("utf-8")


def test_the_page_asks_for_nothing(run):
    page = write_report([run], "test", run / "report.html").read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import|https?://", page)


@needs_browser
def test_the_browser_has_no_complaint(run):
    _, console = open_page(write_report([run], "test", run / "report.html"))
    assert console == []


@needs_browser
@pytest.mark.parametrize("label", HOSTILE[:4])
def test_hostile_texts_and_labels_are_shown_and_run_nothing(run, label):
    spoil(run, HOSTILE, label)
    add_check(run, example=label)
    path = write_report([run], "test", run / "report.html")
    script = "document.body.dataset.texts = document.querySelector('.mistakes tbody').textContent"
    dom, console = open_page(path, script)
    assert console == []
    assert "<title>run" not in dom.replace(str(run), "")
    shown = html.unescape(re.search(r'data-texts="([^"]*)"', dom)[1])
    for text in HOSTILE[:4]:
        assert text in shown
    assert label in shown


@needs_browser
def test_search_and_filters_leave_the_rows_that_fit(run):
    texts = ["the red bank", "a RED cup", "a blue bank"]
    spoil(run, texts)
    path = write_report([run], "test", run / "report.html")
    script = (
        "const field = document.querySelector('input');"
        "field.value = 'red b'; field.dispatchEvent(new Event('input'));"
        "document.body.dataset.shown = [...document.querySelectorAll('.mistakes tbody tr')]"
        ".filter((row) => !row.hidden).map((row) => row.cells[3].textContent).join('|');"
        "field.value = ''; const pick = document.querySelectorAll('select')[1];"
        "pick.value = 'space'; pick.dispatchEvent(new Event('input'));"
        "document.body.dataset.picked = document.querySelector('output').textContent;"
    )
    dom, console = open_page(path, script)
    assert console == []
    assert re.search(r'data-shown="([^"]*)"', dom)[1] == "the red bank"
    taken = [a for a in read_answers(run, "test") if a.label != a.predicted == "space"]
    assert re.search(r'data-picked="([^"]*)"', dom)[1] == f"{len(taken)} shown"


@needs_browser
def test_a_narrow_screen_scrolls_tables_and_not_the_page(run):
    spoil(run, HOSTILE, "a long label with many words and averyveryverylongwordinside")
    add_check(run, example="w" * 300)
    add_seeds(run, [0.90, 0.92, 0.94])
    path = write_report([run], "test", run / "report.html")
    script = (
        "document.body.style.width = '390px'; document.body.style.maxWidth = '390px';"
        "document.body.dataset.over = document.body.scrollWidth"
    )
    dom, _ = open_page(path, script)
    assert int(re.search(r'data-over="(\d+)"', dom)[1]) <= 390


def test_several_runs_stand_side_by_side_with_a_paired_test(run, tiny_run, tmp_path):
    path = answer_wrongly(run, 25)
    page = write_report([tiny_run, run], "test", tmp_path / "two.html").read_text()
    assert "Side by side" in page
    assert "worse by" in page
    path.write_text(path.read_text().replace('"label": "sport"', '"label": "athletics"'))
    page = write_report([tiny_run, run], "test", tmp_path / "two.html").read_text()
    assert "measured on other labels" in page
    assert "worse by" not in page.split("Side by side")[1].split("</section>")[0]
    spoil(run, ["another text"])
    page = write_report([tiny_run, run], "test", tmp_path / "two.html").read_text()
    assert "measured on other texts" in page


def test_a_file_of_somebody_else_is_no_place_for_a_page(tiny_run, tmp_path):
    mine = tmp_path / "mine.csv"
    mine.write_text("text,label\na,b\n")
    with pytest.raises(TextloraError, match=r"mine.csv: exists and is no page; name another --out"):
        write_report([tiny_run], "test", mine)
    assert mine.read_text() == "text,label\na,b\n"
    page = write_report([tiny_run], "test", tmp_path / "page.html")
    assert write_report([tiny_run], "test", page) == page  # an older page is


def add_check(run, *, example="train.csv:7: [sport] a text"):
    facts = (SplitFacts("train", 240, {"sport": 200, "money": 40}, None),)
    finding = Finding("warning", "train", "texts of one word", 12, "check the column", (example,))
    write_data_check(run, DataCheck("tickets.csv", facts, (finding,)))


def add_seeds(run, accuracies):
    values = {"accuracy": compute_spread(accuracies), "loss": compute_spread([0.5, 0.4, 0.6])}
    write_repeats(run, Repeats(("seed-1", "seed-2", "seed-3"), (1, 2, 3), "seed-1",
                               {"test": values}))  # fmt: skip


def test_data_machine_and_cost_are_those_stored(run):
    add_check(run)
    page = write_report([run], "test", run / "report.html").read_text()
    record = read_training(run)
    torch = f"torch {record.environment.packages['torch']},"
    for words in (
        "240 rows of train", "200 (83.3 %)", "texts of one word: <b>12</b>; check the column",
        "train.csv:7: [sport] a text", html.escape(record.environment.processor), torch,
        f"threads: {record.environment.num_threads}", record.number_format,
        f"{record.texts:,}, {record.texts_per_s:,.1f} a second",
        f"{record.peak_bytes / 1e9:.2f} GB",
    ):  # fmt: skip
        assert words in page, words


def test_a_run_that_does_not_say_where_it_comes_from_is_reported(run):
    (run / "training.json").unlink()
    page = write_report([run], "test", run / "report.html").read_text()
    assert "What its data was like is not stored" in page
    assert "Time and machine of its training are not stored" in page
    assert "Over" not in re.findall(r"<h2>(\w+)", page)


def test_seeds_are_told_with_mean_spread_and_interval(run):
    add_seeds(run, [0.90, 0.92, 0.94])
    page = write_report([run], "test", run / "report.html").read_text()
    spread = compute_spread([0.90, 0.92, 0.94])
    assert "Over 3 seeds the mean is 92.0 %" in page
    low, high = 100 * spread.interval.low, 100 * spread.interval.high
    assert 0.0 < low < high < 100.0
    assert f"<td>92.00 %</td><td>{low:.2f} % to {high:.2f} %</td><td>2.00 %</td>" in page
    assert page.index("Over 3 seeds the mean") < page.index("<h2>Classes</h2>")
    add_seeds(run, [0.1, 0.9, 0.5])
    page = write_report([run], "test", run / "report.html").read_text()
    assert "<td>0.00 % to 100.00 %</td>" in page


def test_what_seeds_can_explain_is_not_called_better(run, tiny_run, tmp_path):
    """The same answers that are worse by a paired test, where seeds spread widely."""
    answer_wrongly(run, 25)
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    add_seeds(other, [0.95, 0.75, 0.85])
    add_seeds(run, [0.90, 0.60, 0.80])

    def compare():
        page = write_report([other, run], "test", tmp_path / "two.html").read_text()
        return page[page.index("Side by side") : page.index("</table>")]

    assert "no difference shown" in compare()
    assert "worse" not in compare()
    assert "better" not in compare()
    add_seeds(other, [0.95, 0.96, 0.95])
    add_seeds(run, [0.60, 0.61, 0.60])
    assert "worse by" in compare()
    assert "60.33 % ± 0.58" in compare()


def test_what_cannot_be_reported_is_one_line(run, tmp_path):
    with pytest.raises(ModelError, match=r"predictions/nonsense\.jsonl: missing"):
        write_report([run], "nonsense", tmp_path / "x.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(TextloraError, match="cannot be written"):
        write_report([run], "test", tmp_path / "file" / "x.html")
    shutil.rmtree(run / "predictions")
    with pytest.raises(ModelError, match="textlora train writes it"):
        write_report([run], "test", tmp_path / "x.html")


def test_a_run_that_is_being_trained_again_is_reported(run, tmp_path):
    lines = (run / "history.jsonl").read_text().splitlines()
    first = [line for line in lines if json.loads(line)["validation"] is None][:3]
    (run / "history.jsonl").write_text("\n".join(first) + "\n")
    assert "Learning rate by epoch" in write_report([run], "test", tmp_path / "x.html").read_text()
    for damage in (lines[0][:30], "\xff", "{}"):
        (run / "history.jsonl").write_text(damage, encoding="latin-1")
        with pytest.raises(ModelError, match=r"history\.jsonl: damaged"):
            write_report([run], "test", tmp_path / "x.html")
