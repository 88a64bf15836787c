"""Plans, their cost and sweeps as short tables for a terminal."""

from collections import Counter

from rich.text import Text

from textlora.adapters import AdapterPlan
from textlora.budget import BudgetedPlan
from textlora.circumstances import format_seconds
from textlora.console import make_table, print_line, show
from textlora.cost import Cost
from textlora.trials import Sweep, format_figure, format_setting

_MAX_TRIALS = 5


def show_plan(plan: AdapterPlan, model: str) -> None:
    """Print what would be trained, a line a matrix or module, and the totals."""
    table = make_table(("layer", "trained", "shape", "parameters"), right={2, 3})
    for matrix in plan.matrices:
        name = ".".join(matrix.name.split(".")[-3:])
        what = f"{', '.join(matrix.terms)} ({name}, rank {matrix.rank})"
        shape = f"{matrix.in_features:,} x {matrix.out_features:,}"
        table.add_row(str(matrix.layer), what, shape, f"{matrix.num_parameters:,}")
    for module in plan.modules:
        table.add_row("", f"{module.name} (trained whole)", "", f"{module.num_parameters:,}")
    show(table, title=f"{model}, {plan.num_layers} layers")
    print_line(
        f"adapter {plan.adapter_parameters:,} + head {plan.head_parameters:,} = "
        f"{plan.trainable:,} of {plan.total:,} parameters trained ({plan.trainable_share:.4%})"
    )


def show_budget(fitted: BudgetedPlan) -> None:
    """Print how a plan uses its budget, and the settings that it stands for."""
    for line in fitted.describe():
        print_line(line)


def show_cost(cost: Cost, num_labels: int) -> None:
    """Print what a plan costs here, and which texts that is said for."""
    print_line(
        f"cost here (threads: {cost.num_threads}, {cost.number_format}): "
        f"adapter {cost.adapter_bytes / 1e6:.2f} MB, memory about {cost.memory_bytes / 1e9:.1f} GB,"
        f" about {format_seconds(cost.epoch_seconds)} an epoch, "
        f"{format_seconds(cost.seconds)} in all"
    )
    kind = f" by the tokenizer of {cost.tokenizer}" if cost.tokenizer else "; --data counts yours"
    print_line(
        f"for {num_labels} labels, {cost.num_texts:,} training and {cost.num_validation:,} "
        f"validation texts of {cost.mean_tokens:.0f} tokens{kind}"
    )


def show_sweep(found: Sweep) -> None:
    """Print the best trials, how far apart they are, and what became of the others."""
    best, names = found.ranked[:_MAX_TRIALS], list(found.ranked[0].settings)
    accuracy = [] if found.metric == "accuracy" else ["accuracy"]
    columns = ["trial", found.metric, *accuracy, "parameters", "seconds"]
    shown = [name.partition(".")[2] for name in names]
    table = make_table([*columns, *shown], right=set(range(len(columns))))
    for trial in best:
        figures = [(name, trial.figures[name]) for name in (found.metric, *accuracy)]
        table.add_row(
            str(trial.number),
            *(format_figure(value, name) for name, value in figures),
            f"{trial.parameters:,}",
            f"{trial.seconds:.0f}",
            *(Text(format_setting(trial.settings[name])) for name in names),
        )
    counts = Counter(trial.outcome for trial in found.trials)
    show(table, title=", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    print_line(found.verdict)
    print_line("the best of many trials looks better than it is: expect less on other texts")
    files = (("recipe", found.recipe), ("table", found.table), ("picture", found.picture))
    for name, path in files:
        print_line(f"{name:<14} {path}")
