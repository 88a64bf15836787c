import numpy as np
import pytest
import torch
from conftest import make_rows
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerState,
    TrainingArguments,
)

from textlora.callbacks import DropoutScheduler, MetricsTracker
from textlora.errors import SettingsError
from textlora.scoring.metrics import compute_scores

LABELS = ("sport", "money", "space")


def make_trainer(folder, tiny_bert, scheduler, tracker, *, lora_dropout=0.1, epochs=2):
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    config = LoraConfig(
        task_type="SEQ_CLS", r=4, lora_dropout=lora_dropout, target_modules=["query", "value"]
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    rows = [
        {**tokenizer(text), "labels": LABELS.index(label)} for text, label in make_rows(48, seed=3)
    ]

    def compute_metrics(answer):
        logits = torch.from_numpy(answer.predictions)
        scores = compute_scores(answer.label_ids, logits.softmax(dim=1).numpy(), LABELS)
        return {
            "accuracy": scores.accuracy,
            "f1_weighted": scores.weighted.f1,
            "f1_macro": scores.macro.f1,
        }

    return Trainer(
        model=get_peft_model(base, config),
        args=TrainingArguments(
            output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=8,
            learning_rate=1e-3, eval_strategy="epoch", logging_steps=1, save_strategy="epoch",
            report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
        ),
        train_dataset=rows,
        eval_dataset=rows[:24],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
        callbacks=[scheduler, tracker],
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_bert):
    scheduler, tracker = DropoutScheduler(0.15, 0.05), MetricsTracker()
    trainer = make_trainer(tmp_path_factory.mktemp("trainer"), tiny_bert, scheduler, tracker)
    seen = []
    for name, module in trainer.model.named_modules():
        if name.endswith("layer.0.attention.self.query.lora_dropout.default"):
            module.register_forward_pre_hook(lambda m, _: seen.append(m.p) if m.training else None)
    trainer.train()
    return trainer, scheduler, tracker, seen


def test_a_plain_trainer_applies_the_schedule_at_every_step(trained):
    _, scheduler, _, seen = trained
    assert len(seen) == 12  # 48 texts, batches of 8, two epochs
    assert seen == scheduler.applied
    assert (seen[0], seen[-1]) == (0.15, 0.05)
    assert np.allclose(np.diff(seen), -0.1 / 11)


def test_only_the_adapters_are_touched(trained):
    trainer = trained[0]
    others = {
        m.p
        for n, m in trainer.model.named_modules()
        if isinstance(m, torch.nn.Dropout) and "lora_dropout" not in n
    }
    assert others == {0.1}  # what the encoder came with


def test_the_tracker_records_training_and_validation(trained, tmp_path):
    _, _, tracker, _ = trained
    training = [record for record in tracker.history if record.validation is None]
    checked = [record for record in tracker.history if record.validation is not None]
    assert [record.step for record in training] == list(range(1, 13))
    assert [record.step for record in checked] == [6, 12]
    assert all(0.0 <= record.validation.accuracy <= 1.0 for record in checked)
    assert training[-1].dropout == 0.05
    path = tracker.draw(tmp_path / "curves.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    tracker.save(tmp_path / "history.json")
    assert (tmp_path / "history.json").stat().st_size > 100


def test_the_schedule_goes_on_after_a_resume(trained, tmp_path_factory, tiny_bert):
    trainer, scheduler, _, _ = trained
    again = DropoutScheduler(0.15, 0.05)
    resumed = make_trainer(trainer.args.output_dir, tiny_bert, again, MetricsTracker())
    resumed.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-6")
    assert again.applied == scheduler.applied[6:]


def test_a_schedule_can_rise_from_zero(tmp_path, tiny_bert):
    scheduler = DropoutScheduler(0.0, 0.2, shape="cosine", scope="all")
    make_trainer(tmp_path, tiny_bert, scheduler, MetricsTracker(), epochs=1).train()
    assert (scheduler.applied[0], scheduler.applied[-1]) == (0.0, 0.2)
    assert scheduler.applied == sorted(scheduler.applied)


def test_a_scheduler_that_would_do_nothing_says_so():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1))
    state = TrainerState(global_step=0, max_steps=10)
    with pytest.raises(SettingsError, match="no dropout module in scope 'adapter'"):
        DropoutScheduler(0.1, 0.0).on_step_begin(None, state, None, model=model)
