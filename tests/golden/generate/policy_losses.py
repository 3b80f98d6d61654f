"""Policy losses and their gradients on LlamaForCausalLM: GRPO, Dr. GRPO and DAPO by TRL's GRPOTrainer, RLOO by its RLOOTrainer, REINFORCE and
PPO in plain PyTorch -> ../fixtures/policy_losses/

    python policy_losses.py
"""

import copy
import tempfile

import datasets
import tokenizers
import torch
import transformers
import trl
from common import PAD, VOCAB, check, fresh_folder, gradients, llama_config, ragged, randomize, save_golden, save_model
from trl.trainer.utils import nanstd

SEED = 47
GROUP = 3
PROMPTS = [3, 2]
COMPLETIONS = [4, 2, 5, 3, 6, 1]
REWARDS = [1.0, 0.0, 0.25, 2.0, 2.0, -1.0]
MAX_COMPLETION = 8
TEMPERATURE = 0.9
GRPO_BETA = 0.04
RLOO_BETA = 0.05
BASELINE = 0.3
GAMMA, LAMBDA, VALUE_COEFFICIENT, VALUE_CLIP, PPO_BETA = 0.97, 0.9, 0.1, 0.2, 0.05


def trainer(kind, model, folder, **settings):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{index}": index for index in range(VOCAB)}, unk_token="w3"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w2", pad_token="w0", unk_token="w3")
    rows = datasets.Dataset.from_list([dict(prompt="w4 w5")] * 8)
    config = dict(GRPO=trl.GRPOConfig, RLOO=trl.RLOOConfig)[kind]
    args = config(
        output_dir=folder, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, num_generations=2,
        per_device_train_batch_size=2, max_completion_length=MAX_COMPLETION, temperature=TEMPERATURE, **settings,
    )
    make = dict(GRPO=trl.GRPOTrainer, RLOO=trl.RLOOTrainer)[kind]
    return make(model=model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=args, processing_class=tokenizer, train_dataset=rows)


def inputs():
    """Prompts padded on the left, completions on the right, as TRL wants them."""
    prompts, masks = zip(*[ragged([length], SEED + 1 + index) for index, length in enumerate(PROMPTS)])
    longest = max(PROMPTS)
    prompt_ids = torch.full((len(COMPLETIONS), longest), PAD)
    prompt_mask = torch.zeros_like(prompt_ids)
    for row in range(len(COMPLETIONS)):
        prompt = prompts[row // GROUP][0]
        prompt_ids[row, longest - len(prompt):] = prompt
        prompt_mask[row, longest - len(prompt):] = 1
    completion_ids, completion_mask = ragged(COMPLETIONS, SEED + 9)
    return dict(prompt_ids=prompt_ids, prompt_mask=prompt_mask, completion_ids=completion_ids, completion_mask=completion_mask)


def forward(model, batch):
    """Log-probabilities of the completions' tokens and the hidden states they are predicted from."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    n = batch["completion_ids"].shape[1]
    hidden = model.model(ids, attention_mask=mask, position_ids=positions).last_hidden_state[:, -n - 1:-1]
    logits = model.lm_head(hidden) / TEMPERATURE
    return torch.log_softmax(logits, -1).gather(-1, batch["completion_ids"][..., None])[..., 0], hidden


def grouped_mean(rewards):
    return rewards.view(-1, GROUP).mean(1).repeat_interleave(GROUP)


def main():
    folder = fresh_folder("policy_losses")
    shape = llama_config(
        hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True
    )
    model = randomize(transformers.LlamaForCausalLM(shape), SEED)
    reference = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(SEED + 20)
    with torch.no_grad():
        for _, parameter in sorted(reference.named_parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    save_model(model, folder / "model")
    save_model(reference, folder / "reference")
    batch = inputs()
    mask = batch["completion_mask"].float()
    rewards = torch.tensor(REWARDS)
    with torch.no_grad():
        own, _ = forward(model, batch)
        referred, _ = forward(reference, batch)
        # Far enough from the policy that the clip holds for some tokens on either side.
        old = own + 0.3 * torch.randn(own.shape, generator=noise)
    golden = dict(batch, rewards=rewards, log_probabilities=own * mask, reference_log_probabilities=referred * mask, old=old * mask)

    def keep(case, loss, policy):
        golden[f"{case}_loss"] = loss.detach().reshape(1)
        golden.update({f"{case}_{name}": value.clone() for name, value in gradients(policy).items()})

    centred = rewards - grouped_mean(rewards)
    deviations = torch.stack([nanstd(group) for group in rewards.view(-1, GROUP)]).repeat_interleave(GROUP)
    advantages = dict(grpo=centred / (deviations + 1e-4), dr_grpo=centred, dapo=centred / (deviations + 1e-4))
    for case, settings in dict(grpo={}, dr_grpo={}, dapo=dict(epsilon_high=0.28)).items():
        policy = copy.deepcopy(model)
        with tempfile.TemporaryDirectory() as place:
            training = trainer("GRPO", policy, place, loss_type=case, beta=0.0, **settings)
            # Only now: at its making the trainer would look for a reference model to load.
            training.beta = GRPO_BETA if case == "grpo" else 0.0
            policy = training.model.eval()
            policy.zero_grad()
            extra = dict(advantages=advantages[case], old_per_token_logps=old, ref_per_token_logps=referred, num_items_in_batch=mask.sum())
            loss = training._compute_loss(policy, {**batch, **extra})
            loss.backward()
            golden[f"{case}_clip_share"] = torch.tensor([training._metrics["eval"]["clip_ratio/region_mean"][-1]])
        keep(case, loss, policy)

    # RLOO where it was sampled: the divergence is taken off the rewards, and the others' mean off what is left.
    policy = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as place:
        training = trainer("RLOO", policy, place, beta=0.0)
        policy = training.model.eval()
        policy.zero_grad()
        shaped = rewards - RLOO_BETA * ((own - referred) * mask).sum(1)
        leave_one_out = (shaped - grouped_mean(shaped)) * GROUP / (GROUP - 1)
        loss = training._compute_loss(policy, {**batch, "advantages": leave_one_out, "old_logps": (own * mask).sum(1)})
        loss.backward()
    keep("rloo", loss, policy)

    policy = copy.deepcopy(model)
    logps, _ = forward(policy, batch)
    ratios = torch.exp(logps - old)
    loss = -(ratios * (rewards - BASELINE)[:, None] * mask).sum() / len(COMPLETIONS)
    loss.backward()
    keep("reinforce", loss, policy)

    policy = copy.deepcopy(model)
    logps, hidden = forward(policy, batch)
    head = torch.nn.Linear(8, 1)
    with torch.no_grad():
        head.weight.copy_(0.3 * torch.randn(1, 8, generator=noise))
        head.bias.fill_(0.1)
        before = torch.nn.Linear(8, 1)
        before.weight.copy_(head.weight + 0.1 * torch.randn(1, 8, generator=noise))
        before.bias.fill_(0.05)
        # What the value head said when the tokens were sampled: a head somewhat different from the one that trains.
        old_values = before(forward(model, batch)[1])[..., 0] * mask
        token_rewards = -PPO_BETA * (old - referred) * mask
        for row, length in enumerate(COMPLETIONS):
            token_rewards[row, length - 1] += rewards[row]
        lam = torch.zeros_like(old)
        for row, length in enumerate(COMPLETIONS):
            ahead, value_ahead = 0.0, 0.0
            for t in reversed(range(length)):
                delta = token_rewards[row, t] + GAMMA * value_ahead - old_values[row, t]
                ahead = delta + GAMMA * LAMBDA * ahead
                lam[row, t], value_ahead = ahead, old_values[row, t]
        returns = lam + old_values
        flat = lam[mask == 1]
        white = (lam - flat.mean()) / (flat.std() + 1e-8)
    ratios = torch.exp(logps - old)
    surrogate = torch.max(-ratios * white, -ratios.clamp(0.8, 1.2) * white)
    values = head(hidden)[..., 0]
    held = old_values + (values - old_values).clamp(-VALUE_CLIP, VALUE_CLIP)
    value_loss = 0.5 * torch.max((values - returns) ** 2, (held - returns) ** 2)
    loss = ((surrogate + VALUE_COEFFICIENT * value_loss) * mask).sum() / mask.sum()
    loss.backward()
    keep("ppo", loss, policy)
    golden |= dict(value_weight=head.weight, value_bias=head.bias, old_value_weight=before.weight, old_value_bias=before.bias)
    golden |= {"ppo_value_grad.weight": head.weight.grad, "ppo_value_grad.bias": head.bias.grad, "old_values": old_values, "returns": returns * mask}
    settings = dict(temperature=TEMPERATURE, grpo_beta=GRPO_BETA, rloo_beta=RLOO_BETA, baseline=BASELINE, max_completion=MAX_COMPLETION)
    golden |= {name: torch.tensor([float(value)]) for name, value in settings.items()}
    golden |= dict(ppo=torch.tensor([GAMMA, LAMBDA, VALUE_COEFFICIENT, VALUE_CLIP, PPO_BETA]))
    save_golden(folder / "golden.safetensors", golden, __file__, seed=SEED, trl=trl.__version__)
    for part in ["model", "reference"]:
        check(folder / part)
    print((folder / "golden.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
