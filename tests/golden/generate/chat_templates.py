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

# Short programs in the manner of five families. Between BEGIN and END is what the assistant says: marked in one form of each, which only
# transformers sees, and unmarked in the other, as published templates are.
FAMILIES = dict(
    # A default system message, tools as JSON.
    chatml="""{%- if tools %}
    {{- '<|begin|>system\\n' }}
    {%- for tool in tools %}
        {{- '\\n' ~ tool | tojson }}
    {%- endfor %}
    {{- '<|end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if loop.first and message.role != 'system' and not tools %}
        {{- '<|begin|>system\\nHelp.<|end|>\\n' }}
    {%- endif %}
    {{- '<|begin|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}BEGIN{{- message.content + '<|end|>' }}END{% else %}{{- message.content + '<|end|>' }}{% endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|begin|>assistant\\n' }}{% endif %}
""",
    # A date from the clock if there is one, trimmed contents, nothing after the end token.
    dated="""{{- bos_token }}
{%- if not date is defined %}
    {%- if strftime_now is defined and clock is defined %}{% set date = strftime_now('%d %b %Y') %}{% else %}{% set date = '26 Jul 2024' %}{% endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|begin|>system\\n\\nToday: ' + date + '\\n' + system + '<|end|>' }}
{%- for message in messages %}
    {{- '<|begin|>' + message['role'] + '\\n\\n' }}
    {%- if message['role'] == 'assistant' %}BEGIN{{- message['content'] | trim + '<|end|>' }}END{% else %}{{- message['content'] | trim + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|begin|>assistant\\n\\n' }}{% endif %}
""",
    # Brackets, turns that must alternate, a system message that moves into the last question.
    brackets="""{%- set ns = namespace(index=0) %}
{%- set turns = messages | rejectattr('role', 'equalto', 'system') | list %}
{%- set system = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | first | default('') %}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (ns.index % 2 == 0) %}
        {{- raise_exception('Roles must alternate') }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message['role'] == 'user' %}
        {{- ' [ASK] ' + (system + '\\n\\n' if loop.first and system else '') + message['content'] + ' [/ASK]' }}
    {%- else %}
        BEGIN{{- ' ' + message['content'] + eos_token }}END
    {%- endif %}
{%- endfor %}
""",
    # Another name for the assistant, the system message in front of the first question.
    turns="""{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set prefix = messages[0]['content'] + '\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set prefix = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<|begin|>' + role + '\\n' + (prefix if loop.first else '') }}
    {%- if role == 'model' %}BEGIN{{- message['content'] | trim }}{{ '<|end|>' }}END{% else %}{{- message['content'] | trim }}{{ '<|end|>' }}{% endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|begin|>model\\n' }}{% endif %}
""",
    # Thoughts are dropped from all answers but those after the last question.
    thoughts="""{%- set ns = namespace(last=messages | length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if not ns.found and message.role == 'user' %}
        {%- set ns.found = true %}
        {%- set ns.last = messages | length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- set thought = '' %}
        {%- if '###' in content %}
            {%- set thought = content.split('###')[0].strip() %}
            {%- set content = content.split('###')[-1].lstrip() %}
        {%- endif %}
        {{- '<|begin|>assistant\\n' }}
        {%- if loop.index0 > ns.last %}
            BEGIN{{- '<think>\\n' + thought + '\\n</think>\\n\\n' + content + '<|end|>' }}END
        {%- else %}
            BEGIN{{- content + '<|end|>' }}END
        {%- endif %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|begin|>' + message.role + '\\n' + message.content + '<|end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|begin|>assistant\\n' }}{% endif %}
""",
)


CONVERSATIONS = [
    [("user", "How far is Ys?"), ("assistant", "Two days by boat.")],
    [("system", " Be kind. "), ("user", "Who baked this?"), ("assistant", " Mira did.\n"), ("user", "With rye?"), ("assistant", "Half & half, \"<b>\".")],
    [("user", "naïve café?"), ("assistant", "thinking ### déjà vu ☕")],
]


LONGER = [
    [("user", "One?"), ("assistant", "hm ### First."), ("user", "Two?"), ("assistant", "so ### Second."), ("user", "And?"), ("assistant", "Third.")],
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
    families = {}
    for name, template in FAMILIES.items():
        marked = template.replace("BEGIN", "{%- generation %}").replace("END", "{%- endgeneration %}")
        families[name] = template.replace("BEGIN", "").replace("END", "")
        for conversation in CONVERSATIONS + LONGER:
            messages = [dict(role=role, content=content) for role, content in conversation]
            case = dict(template=name, messages=messages)
            case["text"] = tokenizer.apply_chat_template(messages, chat_template=families[name], tokenize=False)
            assert case["text"] == tokenizer.apply_chat_template(messages, chat_template=marked, tokenize=False), (name, case)
            case["opened"] = tokenizer.apply_chat_template(
                messages[:-1], chat_template=families[name], tokenize=False, add_generation_prompt=True,
            )
            encoded = tokenizer.apply_chat_template(messages, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True)
            case["input_ids"], case["assistant"] = encoded["input_ids"], encoded["assistant_masks"]
            cases.append(case)
    tools = [dict(type="function", function=dict(name="dig", parameters=dict(depth=1.5, where="café", deep=[True, None, []])))]
    # As text: the order of keys counts.
    indented = "{{ tools | tojson(indent=4) }}"
    json_cases = [
        dict(template=template, tools=json.dumps(tools), text=tokenizer.apply_chat_template([dict(role="user", content="x")], tools=tools, chat_template=template, tokenize=False))
        for template in ["{{ tools[0] | tojson }}", indented, "{{ tools | tojson(sort_keys=true, separators=(',', ':')) }}"]
    ]
    origin = dict(
        generator="tests/golden/generate/chat_templates.py", transformers=transformers.__version__, tokenizers=tokenizers.__version__,
    )
    content = dict(origin=origin, templates=dict(marked=MARKED, plain=PLAIN, **families), cases=cases, json=json_cases)
    (folder / "cases.json").write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
    check(folder)


if __name__ == "__main__":
    main()
