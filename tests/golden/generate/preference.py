"""Direct preference optimisation by TRL's DPOTrainer on LlamaForCausalLM: loss, margins and gradients -> ../fixtures/preference/

    python preference.py
"""

import copy
import tempfile

import datasets
import tokenizers
import torch
import transformers
import trl
from common import VOCAB, check, fresh_folder, gradients, llama_config, ragged, randomize, save_golden, save_model

SEED = 38
PROMPTS = [3, 2, 4]
CHOSEN = [7, 5, 6]
REJECTED = [5, 8, 9]
BETA = 0.3
LABEL_SMOOTHING = 0.1


def trainer(model, reference, folder, **settings):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{index}": index for index in range(VOCAB)}, unk_token="w3"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w2", pad_token="w0", unk_token="w3")
    rows = datasets.Dataset.from_list([dict(prompt="w4 w5", chosen="w6", rejected="w7")])
    args = trl.DPOConfig(output_dir=folder, beta=BETA, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, **settings)
    return trl.DPOTrainer(model=model, ref_model=reference, args=args, processing_class=tokenizer, train_dataset=rows)


def inputs(rows):
    """The chosen and then the rejected sequences of `rows`, and which of their tokens are a completion's."""
    lengths = [CHOSEN[row] for row in rows] + [REJECTED[row] for row in rows]
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask, completion = torch.zeros_like(ids), torch.zeros_like(ids)
    for index, length in enumerate(lengths):
        row = rows[index % len(rows)]
        # A row's own tokens, whatever else is in the batch; both sequences begin with the same prompt.
        prompt, _ = ragged([PROMPTS[row]], SEED + 10 * row)
        own, _ = ragged([length - PROMPTS[row]], SEED + 10 * row + 1 + index // len(rows))
        ids[index, :length] = torch.cat([prompt[0], own[0]])
        mask[index, :length] = 1
        completion[index, PROMPTS[row]:length] = 1
    return dict(input_ids=ids, attention_mask=mask, completion_mask=completion)


def run(model, reference, rows_of_batches, **settings):
    """The mean loss over the batches, its gradients, and the margins."""
    model = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        training = trainer(model, copy.deepcopy(reference), folder, **settings)
        policy = training.model.eval()
        policy.zero_grad()
        losses, margins = [], []
        for rows in rows_of_batches:
            loss = training._compute_loss(policy, inputs(rows), return_outputs=False)
            loss.backward()
            losses.append(loss.item())
            margins.append(training._metrics["eval"]["rewards/margins"][-1])
    for parameter in policy.parameters():
        parameter.grad /= len(losses)
    return sum(losses) / len(losses), sum(margins) / len(margins), gradients(policy)


def main():
    folder = fresh_folder("preference")
    model = randomize(transformers.LlamaForCausalLM(llama_config()), SEED)
    reference = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(SEED + 1)
    with torch.no_grad():
        for _, parameter in sorted(reference.named_parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    save_model(model, folder / "model")
    save_model(reference, folder / "reference")
    batch = inputs([0, 1, 2])
    golden = dict(batch)
    loss, margin, grads = run(model, reference, [[0, 1, 2]], loss_type=["sigmoid"])
    golden |= dict(loss=torch.tensor([loss]), margin=torch.tensor([margin]), **grads)
    # With one pair in a batch TRL's `aot` has nothing to sort: what is left is the loss with label smoothing, pair by pair.
    loss, _, grads = run(model, reference, [[0], [1], [2]], loss_type=["aot"], label_smoothing=LABEL_SMOOTHING)
    golden |= {"smooth_loss": torch.tensor([loss]), **{f"smooth_{name}": value for name, value in grads.items()}}
    golden |= dict(beta=torch.tensor([BETA]), label_smoothing=torch.tensor([LABEL_SMOOTHING]))
    save_golden(folder / "golden.safetensors", golden, __file__, seed=SEED, trl=trl.__version__)
    for part in ["model", "reference"]:
        check(folder / part)
    print((folder / "golden.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
