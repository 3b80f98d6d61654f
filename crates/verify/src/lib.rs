//! A model against reference values: a file of what another implementation computed from the same checkpoint, and the comparison with what
//! this one computes.
//!
//! `golden.safetensors` in a checkpoint's folder holds, computed in float32 without dropout:
//!
//! | tensor | meaning |
//! |---|---|
//! | `input_ids`, `attention_mask`, `labels` | `[batch, time]` int32, padded on the right; a label below 0 is not scored. Decoders predict the label at t + 1 from the token at t, encoders the one at t from it |
//! | `token_type_ids` | the same, if there are any |
//! | `logits`, `last_hidden_state` | `[batch, time, vocab]`, `[batch, time, width]` |
//! | `loss` | mean cross-entropy over the scored positions, in nats |
//! | `grad.<parameter>` | its gradient, by Hugging Face's name of the parameter |
//! | `greedy_ids` | `[1, prompt + 12]`: a greedy continuation of 12 tokens, in decoders |
//! | `adamw_losses` | the loss before each of some steps of AdamW: rate 1e-2, betas 0.9 and 0.999, epsilon 1e-8, decay 0.01 of everything, norm of the gradient at most 1 |
//!
//! Its metadata may hold `texts`, a JSON list of one text for each row, which the folder's tokenizer turns into the row's tokens. All but
//! the first three tensors may be left out: what is not there is not compared.
//! `tests/golden/generate/reference.py` writes such a file with transformers.

pub mod gradients;
pub mod reference;
pub mod rows;
pub mod verify;
