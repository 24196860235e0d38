"""Writes the files of models/phantom: tokenizer, configuration, chat template, two shards of weights and their index.

Everything has the form in which google/medgemma-4b-it is published, at a thousandth of its size. The tokenizer is
trained on texts of this repository only; no piece of Gemma's vocabulary is copied.
"""

import json
import os
import re
from collections import Counter

import phantom_text

PIECES = 1024          # ids below the image token
EMBEDDING_ROWS = 1088  # as in the original there are more rows than tokens
IMAGE_SIZE, PATCH, IMAGE_TOKENS = 168, 14, 36

CHAT_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""


def learn_merges(texts, count):
    """Byte-pair merges inside words, most frequent pair first, ties in alphabetical order.

    A word keeps the space before it, as in Gemma's pieces; digits and punctuation stay alone."""
    words = Counter()
    for text in texts:
        words.update(re.findall(r" ?[A-Za-z]+|[^A-Za-z]", text))
    spelled = {word: list(word.replace(" ", "\u2581")) for word in words if len(word) > 1}
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for word, pieces in spelled.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, pieces in spelled.items():
            at = 0
            while at + 1 < len(pieces):
                if (pieces[at], pieces[at + 1]) == best:
                    pieces[at:at + 2] = ["".join(best)]
                at += 1
    return merges


def make_tokenizer():
    """tokenizer.json as a dict: normalizer, splitter, decoder and added tokens of Gemma 3 over a small vocabulary."""
    texts = phantom_text.corpus()
    head = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused94>", "<unused95>", "<start_of_turn>",
            "<end_of_turn>"]
    newlines = ["\n" * n for n in range(1, 32)]
    spaces = ["\u2581" * n for n in range(2, 32)]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted({"\u2581"} | {c for text in texts for c in text if c not in " \n"})
    images = ["<start_of_image>", "<end_of_image>"]
    fixed = len(head) + len(newlines) + len(spaces) + len(data) + len(letters) + len(images)
    merges = learn_merges(texts, PIECES - fixed)
    # Two merges can spell the same piece: it is in the vocabulary once, and unused pieces fill the places left over.
    learned = list(dict.fromkeys("".join(pair) for pair in merges))
    unused = [f"<unused{n}>" for n in range(PIECES - fixed - len(learned))]
    order = head + newlines + spaces + data + learned + unused + letters + images + ["<image_soft_token>"]
    vocab = {piece: number for number, piece in enumerate(order)}
    assert len(vocab) == len(order) == PIECES + 1

    # Runs of spaces: longest first, every way to split a run, as sentencepiece's pieces turn out when converted.
    runs = [["\u2581" * left, "\u2581" * (n - left)] for n in range(31, 1, -1) for left in range(n - 1, 0, -1)]
    special = {"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<image_soft_token>"}
    added = [{"id": vocab[piece], "content": piece, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": piece in special}
             for piece in order if piece in head or piece in newlines or piece in spaces or piece in unused
             or piece in images or piece == "<image_soft_token>"]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<bos>", "type_id": 1}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [vocab["<bos>"]], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": runs + [list(pair) for pair in merges]},
    }


def make_config(vocab):
    """config.json in the flat layout that transformers 4.5x published."""
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": vocab["<start_of_image>"], "eoi_token_index": vocab["<end_of_image>"],
        "eos_token_id": [vocab["<eos>"], vocab["<end_of_turn>"]], "image_token_index": vocab["<image_soft_token>"],
        "initializer_range": 0.02, "mm_tokens_per_image": IMAGE_TOKENS, "model_type": "gemma3",
        "text_config": {
            "attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": None,
            "cache_implementation": "hybrid", "final_logit_softcapping": None, "head_dim": 64,
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 128, "initializer_range": 0.02,
            "intermediate_size": 320, "max_position_embeddings": 4096, "model_type": "gemma3_text",
            "num_attention_heads": 4, "num_hidden_layers": 6, "num_key_value_heads": 2, "query_pre_attn_scalar": 64,
            "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_theta": 1000000, "sliding_window": 256,
            "sliding_window_pattern": 3, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": EMBEDDING_ROWS},
        "torch_dtype": "bfloat16", "transformers_version": "4.51.3",
        "vision_config": {
            "attention_dropout": 0.0, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 128, "image_size": IMAGE_SIZE,
            "intermediate_size": 384, "layer_norm_eps": 1e-06, "model_type": "siglip_vision_model",
            "num_attention_heads": 4, "num_channels": 3, "num_hidden_layers": 4, "patch_size": PATCH,
            "torch_dtype": "bfloat16", "vision_use_head": False},
    }


def write_json(folder, name, value, indent=2):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        json.dump(value, out, indent=indent, ensure_ascii=False)
        out.write("\n")


def write_tokenizer(folder, tokenizer):
    """tokenizer.json, one entry per line: as readable as the original and half as long as the indented form."""
    model = tokenizer["model"]
    frame = {**tokenizer, "added_tokens": "@added", "model": {**model, "vocab": "@vocab", "merges": "@merges"}}
    text = json.dumps(frame, indent=1, ensure_ascii=False)

    def dump(value):
        return json.dumps(value, ensure_ascii=False)

    text = text.replace('"@added"', "[\n" + ",\n".join(dump(entry) for entry in tokenizer["added_tokens"]) + "]")
    text = text.replace('"@vocab"', "{\n" + ",\n".join(f"{dump(p)}: {n}" for p, n in model["vocab"].items()) + "}")
    text = text.replace('"@merges"', "[\n" + ",\n".join(dump(pair) for pair in model["merges"]) + "]")
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as out:
        out.write(text + "\n")


def write_files(folder):
    """Everything but the weights and the README. Returns the vocabulary."""
    os.makedirs(folder, exist_ok=True)
    tokenizer = make_tokenizer()
    vocab = tokenizer["model"]["vocab"]
    write_tokenizer(folder, tokenizer)
    fields = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    decoder = {str(entry["id"]): {field: entry[field] for field in fields} for entry in tokenizer["added_tokens"]}
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    write_json(folder, "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder, **names,
        "bos_token": "<bos>", "clean_up_tokenization_spaces": False, "eos_token": "<eos>",
        "extra_special_tokens": names, "model_max_length": 4096, "pad_token": "<pad>", "padding_side": "left",
        "processor_class": "Gemma3Processor", "sp_model_kwargs": None, "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>", "use_default_system_prompt": False})
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    roles = ("bos_token", "eos_token", "pad_token", "unk_token")
    write_json(folder, "special_tokens_map.json",
               {**names, **{role: {"content": f"<{role[:3]}>", **plain} for role in roles}})
    write_json(folder, "added_tokens.json", {"<image_soft_token>": vocab["<image_soft_token>"]})
    write_json(folder, "preprocessor_config.json", {
        "do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": IMAGE_TOKENS,
        "image_std": [0.5, 0.5, 0.5], "pan_and_scan_max_num_crops": None, "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None, "processor_class": "Gemma3Processor", "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}})
    write_json(folder, "processor_config.json",
               {"image_seq_length": IMAGE_TOKENS, "processor_class": "Gemma3Processor"})
    write_json(folder, "generation_config.json", {
        "bos_token_id": vocab["<bos>"], "cache_implementation": "hybrid", "do_sample": True,
        "eos_token_id": [vocab["<eos>"], vocab["<end_of_turn>"]], "pad_token_id": vocab["<pad>"], "top_k": 64,
        "top_p": 0.95})
    write_json(folder, "config.json", make_config(vocab))
    with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as out:
        out.write(CHAT_TEMPLATE)
    return vocab


def published_name(name):
    """The name a tensor of transformers 5 has in the published files."""
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        name = name.replace("language_model.", "language_model.model.", 1)
    elif name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def write_weights(folder, state):
    """Two bf16 shards of about the same size and their index, from a state dict of transformers 5."""
    import torch
    from safetensors.torch import save_file
    tensors = {published_name(name): value.detach().to(torch.bfloat16).contiguous()
               for name, value in sorted(state.items()) if name != "lm_head.weight"}
    total = sum(value.numel() * 2 for value in tensors.values())
    shards, size = [{}, {}], 0
    for name, value in tensors.items():
        shards[int(size >= total / 2)][name] = value
        size += value.numel() * 2
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        path = os.path.join(folder, file)
        save_file(shard, path, metadata={"format": "pt"})
        os.chmod(path, 0o644)
        index.update({name: file for name in shard})
    write_json(folder, "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))})
