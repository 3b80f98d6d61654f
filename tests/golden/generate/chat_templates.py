"""Conversations by two chat templates, with and without marks for the assistant's part -> ../fixtures/chat_templates/

    python chat_templates.py
"""

import json

import tokenizers
import transformers
from common import check, fresh_folder
from tokenizers import decoders, models, pre_tokenizers

SPECIAL = ["<pad>", "<s>", "</s>", "<|begin|>", "<|end|>"]

# Roles between special tokens, a default system message, and the reply marked.
MARKED = """{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = 'Answer briefly.' %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token + '<|begin|>system\\n' + system + '<|end|>\\n' }}
{%- for message in turns %}
    {%- if message.role == 'assistant' %}
        {{- '<|begin|>assistant\\n' }}
        {%- generation %}
        {{- message.content.strip() + '<|end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|begin|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|begin|>assistant\\n' }}
{%- endif %}
"""

# Brackets around what the user says, checks, Python's string methods, a namespace, and statements on lines of their own.
PLAIN = """{% set state = namespace(system='') %}
{% for message in messages %}
    {% if message['role'] == 'system' and loop.first %}
        {% set state.system = message['content'].upper() ~ '\\n\\n' %}
        {% continue %}
    {% endif %}
    {% if message['role'] not in ['user', 'assistant'] %}
        {{ raise_exception('Unknown role ' + message['role']) }}
    {% endif %}
    {% if message['role'] == 'user' %}
{{ bos_token if loop.index0 < 2 else '' }}[ASK] {{ state.system if loop.index0 < 2 }}{{ message['content'].strip() }} [/ASK]
    {%- else %}
 {{ message['content'].split('###')[-1] | trim }}{{ eos_token }}
    {%- endif %}
{% endfor %}
"""

CONVERSATIONS = [
    [("user", "How far is Ys?"), ("assistant", "Two days by boat.")],
    [("system", " Be kind. "), ("user", "Who baked this?"), ("assistant", " Mira did.\n"), ("user", "With rye?"), ("assistant", "Half & half, \"<b>\".")],
    [("user", "naïve café?"), ("assistant", "thinking ### déjà vu ☕")],
]


def main():
    folder = fresh_folder("chat_templates")
    folder.mkdir()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(SPECIAL + letters)}
    core = tokenizers.Tokenizer(models.BPE(vocab, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    core.save(str(folder / "tokenizer.json"), pretty=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    cases = []
    for name, template in [("marked", MARKED), ("plain", PLAIN)]:
        for conversation in CONVERSATIONS:
            messages = [dict(role=role, content=content) for role, content in conversation]
            case = dict(template=name, messages=messages)
            case["text"] = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
            case["opened"] = tokenizer.apply_chat_template(messages[:-1], chat_template=template, tokenize=False, add_generation_prompt=True)
            encoded = tokenizer.apply_chat_template(
                messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=name == "marked",
            )
            case["input_ids"] = encoded["input_ids"]
            case["assistant"] = encoded.get("assistant_masks")
            cases.append(case)
    origin = dict(
        generator="tests/golden/generate/chat_templates.py", transformers=transformers.__version__, tokenizers=tokenizers.__version__,
    )
    content = dict(origin=origin, templates=dict(marked=MARKED, plain=PLAIN), cases=cases)
    (folder / "cases.json").write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
    check(folder)


if __name__ == "__main__":
    main()
