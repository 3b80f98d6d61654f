"""The first losses of transformers' Trainer on a published encoder and published data, without dropout -> ../fixtures/classify/

    KILN_SHARED=... python classify.py

The new head follows formula.py and the rows its `order`; neither weights nor data are stored.
"""

import math
import os
import pathlib
import tempfile

import torch
import transformers
from common import check, fresh_folder, save_golden
from formula import order, uniform

N_STEPS, N_SCHEDULED_STEPS = 10, 60
ROWS_PER_STEP = 32


class Trainer(transformers.Trainer):
    """Keeps each loss as it is: the log has it rounded."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.losses = []

    def training_step(self, *arguments, **settings):
        loss = super().training_step(*arguments, **settings)
        self.losses.append(loss.item())
        return loss


class Watch(transformers.TrainerCallback):
    def __init__(self):
        self.rates, self.norms = [], []

    def on_pre_optimizer_step(self, args, state, control, optimizer, **rest):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args, state, control, **rest):
        control.should_training_stop = state.global_step == N_STEPS

    def on_log(self, args, state, control, logs, **rest):
        if "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


def main():
    shared = pathlib.Path(os.environ["KILN_SHARED"])
    folder = fresh_folder("classify")
    folder.mkdir()
    base = shared / "models/all-MiniLM-L6-v2"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    with torch.no_grad():
        model.classifier.weight.copy_(uniform("classifier.weight", model.classifier.weight.shape, 0.02 * math.sqrt(3)))
        model.classifier.bias.zero_()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    lines = [line.split("\t") for line in (shared / "data/sst2/train.tsv").read_text().split("\n") if line]
    chosen = [lines[index] for index in order(len(lines), 0)[: N_STEPS * ROWS_PER_STEP]]
    rows = [{**tokenizer(text, truncation=True), "label": int(label)} for text, label in chosen]
    watch = Watch()
    settings = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=N_SCHEDULED_STEPS, per_device_train_batch_size=ROWS_PER_STEP, learning_rate=5e-5,
        train_sampling_strategy="sequential", logging_steps=1, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
    )
    collator = transformers.DataCollatorWithPadding(tokenizer)
    trainer = Trainer(model=model, args=settings, train_dataset=rows, data_collator=collator, callbacks=[watch])
    trainer.train()
    columns = dict(losses=trainer.losses, learning_rates=watch.rates, gradient_norms=watch.norms)
    print(columns)
    assert all(len(column) == N_STEPS for column in columns.values())
    save_golden(folder / "golden.safetensors", {name: torch.tensor(column) for name, column in columns.items()}, __file__)
    check(folder)


if __name__ == "__main__":
    main()
