#!/usr/bin/env python3
"""Writes tests/vectors/tokenizer_golden.json: strings, ids and conversations, and what Hugging Face makes of them.

    make_tokenizer_vectors.py FOLDER [OUT]

FOLDER holds Gemma 3's (or MedGemma's) tokenizer.json and tokenizer_config.json. Needs transformers and jinja2.
The texts are this script's own; of Gemma's vocabulary only the ids of their tokens are written.
"""

import json
import os
import random
import sys

from transformers import AutoTokenizer

# Gemma3Processor.full_image_sequence
IMAGE = "\n\n<start_of_image>" + "<image_soft_token>" * 256 + "<end_of_image>\n\n"

SENTENCES = [
    "",
    " ",
    "a",
    "Describe this X-ray.",
    "You are an expert radiologist.",
    "SYSTEM INSTRUCTION: think silently if needed. ",
    "No focal consolidation, pleural effusion or pneumothorax; heart size is normal.",
    "Befund: Größe des Herzens im oberen Normbereich. Kein Nachweis eines Ergusses.",
    "胸部X線写真に異常は認められない。",
    "胸片未见明显异常。",
    "لا توجد كسور ظاهرة في الصورة.",
    "Рентгенограмма без патологии.",
    "ไม่พบความผิดปกติ",
    "हृदय का आकार सामान्य है।",
    "심장 크기는 정상입니다.",
    "Εικόνα φυσιολογική.",
    "אין ממצאים.",
    "🫀🫁🦴🩻",
    "👩🏽‍⚕️ and 🏳️‍🌈",
    "e\u0301 o\u0308 n\u0303",
    "\ufeffBOM",
    "zero\u200bwidth\u200djoiner",
    "ﷺ ﬁ ﬀ Ǆ ẞ",
    "\u0000\u0001\u001f\u007f\u0085\u00a0\u2028\u2029\u3000",
    "\U0010ffff\ue000\U000e0041",
    "𝕳𝖊𝖑𝖑𝖔",
    "\r\n\r\n\r",
    "\ta\t\tb\t\t\t",
    "▁",
    "▁▁",
    "▁ ▁",
    " ▁a ▁ b▁▁▁",
    "a▁b",
    "▁" * 40,
    " " * 40,
    "\n" * 40,
    "\t" * 40,
    " \n \n  \n",
    "\n \n",
    "a" * 100,
    "ab" * 60,
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<bos><bos>",
    "<unused94>thought\nhm<unused95>Yes.",
    "<start_of_image><end_of_image><image_soft_token>",
    "<unused0><unused6241><unused6242>",
    "[multimodal]<mask>[@BOS@]<2mass>",
    "<table><tr><td>1</td></tr></table>",
    "<h1>a</h1><h7>",
    "<b>bold</b><i>it</i><blockquote>",
    "</s><s>",
    "<start_of_turn",
    "< bos >",
    "<0x0A><0x41>",
    "<bos",
    "<<bos>>",
    "<unused94><unused9<unused95>",
    "<eos>\n\n\n<eos>\n",
    "<pad> <unk>",
    '```json\n[{"box_2d": [10, 20, 300, 400], "label": "right clavicle"}]\n```',
    "0123456789 3.14159 1e-10 1,000,000",
    "for (int i = 0; i < n; i++)\n\tif (a[i] != b[i])\n\t\treturn -1;\n",
    "def f(x):\n    return [y for y in x if y]\n",
    "https://example.org/a?b=c&d=%20#e",
    "SLICE 85Based on the CT slices",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "!!!???...---___***///\\\\\\",
    "''\"\"``",
    "a" + "\u0300" * 30,
]
PIECES = [
    "the",
    " heart",
    "<b>",
    "</td>",
    "\n",
    "\n\n",
    "\t",
    " ",
    "  ",
    "▁",
    "<bos>",
    "<unused94>",
    "<end_of_turn>",
    "é",
    "病",
    "🫀",
    "\x00",
    "\u200d",
    "ö",
    "1",
    "9",
    "X-ray",
    ".",
    ",",
    "<",
    ">",
    "[",
    "]",
    "mass",
    "<start_of_image>",
    "ing",
    "ization",
    "\r\n",
    "ß",
    "ж",
]
EDGES = ["", " ", "\n", "\t \n", "\u2003", "\x1c", "\x85", "\u00a0", "\u3000", "\u200b", "\ufeff"]


def random_text(rng):
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 25)))


def random_character(rng):
    while True:
        low, high = rng.choice(
            [
                (0, 0x100),
                (0x300, 0x600),
                (0x900, 0x1000),
                (0x2000, 0x3100),
                (0x4E00, 0xA000),
                (0xAC00, 0xD7A4),
                (0x1F300, 0x1FB00),
                (0, 0x110000),
            ]
        )
        code = rng.randrange(low, high)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def random_ids(rng, tokenizer):
    byte = tokenizer.convert_tokens_to_ids("<0x00>")
    ids = []
    for _ in range(rng.randrange(1, 6)):
        kind = rng.randrange(5)
        if kind == 0:
            ids += [byte + value for value in random_character(rng).encode()]
        elif kind == 1:
            ids += [byte + rng.randrange(256) for _ in range(rng.randrange(1, 6))]
        elif kind == 2:
            ids += [rng.randrange(260)]
        else:
            ids += [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(1, 4))]
    # <mask> is special for transformers' class and in tokenizer.model, but not in tokenizer.json.
    return [value for value in ids if value != tokenizer.mask_token_id]


def random_content(rng, images):
    words = [piece for piece in PIECES if not piece.startswith("<") or piece in ("<b>", "</td>", "<")]
    parts = []
    for _ in range(rng.randrange(1, 5)):
        if images and rng.random() < 0.35:
            parts.append({"type": "image"})
        else:
            body = "".join(rng.choice(words) for _ in range(rng.randrange(0, 6))).replace("\x00", "")
            parts.append({"type": "text", "text": rng.choice(EDGES) + body + rng.choice(EDGES)})
    return parts


def random_messages(rng):
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": random_content(rng, False)})
    for turn in range(rng.choice([1, 1, 3, 5])):
        messages.append({"role": "assistant" if turn % 2 else "user", "content": random_content(rng, turn % 2 == 0)})
    return messages


def chat_ids(tokenizer, messages):
    """As Gemma3Processor: the template's text, images expanded in it, then tokenized as one string."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text.replace("<start_of_image>", IMAGE), add_special_tokens=False)


def folded(ids, image):
    """Each run of image tokens as one, to keep the file short; the test unfolds it."""
    return [value for i, value in enumerate(ids) if value != image or ids[i - 1] != image]


def main():
    folder = sys.argv[1]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    out = sys.argv[2] if len(sys.argv) > 2 else os.path.join(root, "tests", "vectors", "tokenizer_golden.json")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image = tokenizer.convert_tokens_to_ids("<image_soft_token>")
    rng = random.Random(3)
    texts = SENTENCES + [random_text(rng) for _ in range(150)]
    texts += ["".join(random_character(rng) for _ in range(rng.randrange(1, 12))) for _ in range(100)]
    decodes = [random_ids(rng, tokenizer) for _ in range(100)]
    chats = [random_messages(rng) for _ in range(60)]
    golden = {
        "encode": [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False)} for text in texts],
        "decode": [
            {
                "ids": ids,
                "text": tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False),
                "text_without_special": tokenizer.decode(
                    ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
            }
            for ids in decodes
        ],
        "chat": [{"messages": messages, "ids": folded(chat_ids(tokenizer, messages), image)} for messages in chats],
    }
    with open(out, "w", encoding="ascii") as file:
        file.write("{\n")
        for i, (name, items) in enumerate(golden.items()):
            lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)
            file.write(f'"{name}": [\n{lines}\n]{"," if i < 2 else ""}\n')
        file.write("}\n")


if __name__ == "__main__":
    main()
