# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A news classifier with low-rank adapters
#
# From labelled texts to a measured, saved and reusable classifier. Everything here runs offline on
# the sample that textlora brings; change `SOURCE` and `MODEL` for the real thing:
# `SOURCE = "ag_news"`, `MODEL = "FacebookAI/roberta-base"`, and the recipe `"reference"`.

# %%
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from IPython.display import Image

from textlora import Predictor, load_recipe
from textlora.data.labelled_texts import load_labelled_texts
from textlora.model.adapter_plan import plan_adapter
from textlora.model.encoder_files import find_local_folder
from textlora.model.shapes import find_new_parameters, find_shapes
from textlora.system.progress import Reporter
from textlora.training.pipeline import train_run

SOURCE = "embedded:headlines"
MODEL = "embedded:minilm"
RUN = Path("../runs/notebook")

# %% [markdown]
# ## The data
#
# Texts are stripped, and every run of white space becomes one space. A part of the training split
# is held out, seeded; the test split is measured once and chooses nothing.

# %%
recipe = load_recipe("quickstart", data__source=SOURCE, model__name=MODEL)
texts = load_labelled_texts(recipe.data)
print(len(texts.train.texts), "train,", len(texts.validation.texts), "validation")
pd.DataFrame(
    {
        "label": [texts.labels[i] for i in texts.train.label_ids[:5]],
        "text": texts.train.texts[:5],
    }
)

# %% [markdown]
# ## The plan
#
# What will be trained, counted exactly, before any weight is loaded. First the reference recipe on
# RoBERTa-base: four matrices of rank 36 and the head.


# %%
def count(recipe):
    """The plan of a recipe for four labels, counted from the model's shapes."""
    shapes = find_shapes(recipe.model, 4)
    new = find_new_parameters(shapes, find_local_folder(recipe.model))
    return plan_adapter(shapes, new, recipe.adapter)


for name in ("reference", "quickstart"):
    plan = count(load_recipe(name))
    print(f"{name:<11} {plan.trainable:>9,} of {plan.total:>11,} = {plan.trainable_share:.4%}")

# %%
pd.DataFrame(asdict(matrix) for matrix in count(load_recipe("reference")).matrices)

# %% [markdown]
# ## Training
#
# One call: it trains, keeps the best checkpoint by validation accuracy, saves, loads the result
# again in a fresh process to compare its answers, and evaluates. With `resume="auto"`, a run that
# was stopped goes on where it was.

# %%
result = train_run(recipe, texts, RUN, resume="never", report=Reporter(quiet=True))
print(
    f"{result.steps} steps, {result.seconds:.0f} s, largest difference after reload "
    f"{result.reload_difference:g}"
)

# %% [markdown]
# ## How good is it?

# %%
evaluation = result.evaluations[-1]
scores = evaluation.scores
print(f"{evaluation.split}: accuracy {scores.accuracy:.2%}, weighted F1 {scores.weighted.f1:.2%}")
pd.DataFrame(
    {
        "label": item.label,
        "accuracy": f"{item.accuracy:.2%}",
        "correct/total": f"{item.correct}/{item.total}",
        "most often taken for": ", ".join(f"{c.label} {c.count}" for c in item.confusions[:2]),
    }
    for item in scores.classes
)

# %%
Image(RUN / "visualizations" / "confusion_matrix.png", width=560)

# %%
Image(RUN / "visualizations" / "learning_curves.png", width=800)

# %%
Image(RUN / "visualizations" / "prediction_distribution.png", width=560)

# %% [markdown]
# ## Using it

# %%
predictor = Predictor.load(RUN)
for answer in predictor.predict(["Midfielder signs for two more seasons", "Phone maker cuts jobs"]):
    print(f"{answer.label:<10} {answer.confidence:.1%}")

# %% [markdown]
# The folder `adapter` of the run is in PEFT's own format, so other tools load it too:
#
# ```python
# base = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=4)
# model = PeftModel.from_pretrained(base, "runs/notebook", subfolder="adapter")
# ```
#
# For a Trainer of your own, `textlora.callbacks` has the dropout schedule and the metrics history
# as callbacks: `DropoutScheduler(start=0.15, end=0.05)` and `MetricsTracker()`.
