"""The request format as a Jinja template, for programs that speak in chat messages."""

from __future__ import annotations

import json

from vnprep.tokenizer.load import LoadedTokenizer

# [BOS] REQ1 [SEP] RES1 [EOS] REQ2 [SEP] …; a system text joins the first request, as in
# finetune-pairs. Special tokens are made from their characters here, so a message that holds such
# characters is refused: it would otherwise become the token.
_TEMPLATE = """\
{{- bos_token }}
{%- set ns = namespace(system='', user=true) %}
{%- for message in messages %}
{%- set content = (ns.system + message['content']) | trim %}
{%- for token in @RESERVED@ %}
{%- if token in content %}
{{- raise_exception('A message may not contain the special token ' + token) }}
{%- endif %}
{%- endfor %}
{%- if message['role'] == 'system' and loop.first %}
{%- set ns.system = content + '\\n' if content else '' %}
{%- elif message['role'] == 'user' and ns.user %}
{{- content + @SEPARATOR@ }}
{%- set ns.system = '' %}
{%- set ns.user = false %}
{%- elif message['role'] == 'assistant' and not ns.user %}
{{- content + eos_token }}
{%- set ns.user = true %}
{%- else %}
{{- raise_exception('Messages must come from user and assistant in turn') }}
{%- endif %}
{%- endfor %}"""


def chat_template(tokenizer: LoadedTokenizer) -> str:
    """Return the template for a tokenizer.

    ``add_generation_prompt`` changes nothing: a request always ends with ``[SEP]``, where the
    answer begins.
    """
    backend = tokenizer.backend
    names = [str(backend.id_to_token(number)) for number in tokenizer.special.as_dict().values()]
    added = backend.get_added_tokens_decoder().values()
    reserved = sorted({*names, *(token.content for token in added if token.special)})
    separator = str(backend.id_to_token(tokenizer.special.sep))
    template = _TEMPLATE.replace("@SEPARATOR@", _literal(separator))
    return template.replace("@RESERVED@", _literal(reserved))


def _literal(value: str | list[str]) -> str:
    """Write a Jinja literal."""
    return json.dumps(value, ensure_ascii=False)
