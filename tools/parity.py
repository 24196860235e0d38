#!/usr/bin/env python3
"""Compares ward with transformers on any local checkpoint, stage by stage.

    parity.py MODEL IMAGE PROMPT [-n 32] [--lib build/libward.so] [--cpu-mask NAME] [--json]

MODEL is a checkpoint folder, IMAGE a picture ("-": none, for text-only checkpoints). Needs torch, transformers 5,
safetensors and Pillow 13 (earlier ones resize some sizes in another order of passes). See docs/parity.md.

ward answers greedily; transformers is then run on the same prompt and the same answer, once with float32 arithmetic and
once in bfloat16. At every stage (image patches, each encoder layer, image features, each decoder layer,
log-probabilities) the error of ward against float32 must be no larger than the error of transformers' own bfloat16 run.
Exit 0: so it is; 1: it is not; 2: the comparison could not be made.

The three runs are processes of their own, one after the other. The float32 run widens one layer of the file's weights
at a time, so that the 4B checkpoint takes about 13 GB of memory instead of 21; activations take 1.4 GB in TMPDIR.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

TOP = 20      # log-probabilities compared at each step
LISTED = 100  # asked of ward, whose order may differ

# ---- activations on disk --------------------------------------------------------------------------------------------


def activation_path(work, who, name):
    return os.path.join(work, f"{who}.{name}.f32")


def read_activation(work, who, name, cols):
    return np.fromfile(activation_path(work, who, name), np.float32).reshape(-1, cols)


def write_json(work, name, value):
    with open(os.path.join(work, name), "w", encoding="utf-8") as file:
        json.dump(value, file)


def read_json(work, name):
    with open(os.path.join(work, name), encoding="utf-8") as file:
        return json.load(file)


# ---- ward, through its public header --------------------------------------------------------------------------------

c_float_p, c_int32_p = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int32)


def struct(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields)})


Error = struct("ward_error", ("code", ctypes.c_int), ("text", ctypes.c_char * 1024))
ModelOptions = struct("ward_model_options", ("threads", ctypes.c_int), ("cpu_mask", ctypes.c_char_p),
                      ("device", ctypes.c_char_p), ("mmproj", ctypes.c_char_p))
Part = struct("ward_part", ("text", ctypes.c_char_p), ("image", ctypes.c_void_p))
Message = struct("ward_message", ("role", ctypes.c_char_p), ("parts", ctypes.POINTER(Part)),
                 ("n_parts", ctypes.c_size_t))
Logprob = struct("ward_logprob", ("id", ctypes.c_int32), ("logprob", ctypes.c_float))
Token = struct("ward_token", ("id", ctypes.c_int32), ("text", ctypes.c_char_p), ("length", ctypes.c_size_t),
               ("thinking", ctypes.c_bool), ("logprob", ctypes.c_float), ("top", ctypes.POINTER(Logprob)),
               ("n_top", ctypes.c_int))
TokenFn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Token))
GenerateOptions = struct("ward_generate_options", ("max_tokens", ctypes.c_int), ("temperature", ctypes.c_float),
                         ("top_k", ctypes.c_int), ("top_p", ctypes.c_float), ("min_p", ctypes.c_float),
                         ("seed", ctypes.c_uint64), ("ignore_eos", ctypes.c_bool), ("logprobs", ctypes.c_int),
                         ("draft_max", ctypes.c_int),
                         ("on_token", TokenFn), ("on_progress", ctypes.c_void_p), ("user", ctypes.c_void_p))
Result = struct("ward_result", ("text", ctypes.c_char_p), ("thinking", ctypes.c_char_p),
                ("text_length", ctypes.c_size_t), ("thinking_length", ctypes.c_size_t), ("prompt_ids", c_int32_p),
                ("ids", c_int32_p), ("n_prompt_ids", ctypes.c_size_t), ("n_ids", ctypes.c_size_t),
                ("finish", ctypes.c_int), ("cached_tokens", ctypes.c_int), ("image_ms", ctypes.c_double),
                ("vision_ms", ctypes.c_double), ("prefill_ms", ctypes.c_double), ("decode_ms", ctypes.c_double),
                ("first_token_ms", ctypes.c_double), ("total_ms", ctypes.c_double), ("prefill_tokens", ctypes.c_int),
                ("decode_tokens", ctypes.c_int), ("drafted_tokens", ctypes.c_int),
                ("accepted_tokens", ctypes.c_int), ("cached_images", ctypes.c_int))
ModelInfo = struct("ward_model_info", ("path", ctypes.c_char_p), ("mmproj", ctypes.c_char_p),
                   ("mmproj_guessed", ctypes.c_bool), ("type", ctypes.c_char_p), ("device", ctypes.c_char_p),
                   ("device_name", ctypes.c_char_p), ("device_note", ctypes.c_char_p),
                   ("kernels", ctypes.c_char_p), ("threads", ctypes.c_int), ("vocab_size", ctypes.c_int),
                   ("hidden_size", ctypes.c_int), ("context_limit", ctypes.c_int), ("image_tokens", ctypes.c_int),
                   ("image_size", ctypes.c_int), ("has_chat_template", ctypes.c_bool),
                   ("not_for_clinical_use", ctypes.c_bool), ("random_weights", ctypes.c_bool))
ObserveFn = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                             c_float_p)


class Recorder:
    """Files the rows that ward shows: of text at their positions, of the one image from row 0."""

    def __init__(self, work):
        self.work, self.files, self.shapes = work, {}, {}

    def observe(self, _user, name, first, rows, cols, data):
        name = name.decode()
        if name in ("text.norm", "text.logits"):  # shown for single rows; the log-probabilities tell the same
            return
        if name not in self.files:
            self.files[name] = open(activation_path(self.work, "ward", name), "wb")
            self.shapes[name] = [0, cols]
        at = first if name.startswith("text.") else 0
        self.files[name].seek(at * cols * 4)
        self.files[name].write(ctypes.string_at(data, rows * cols * 4))
        self.shapes[name][0] += rows

    def close(self):
        for file in self.files.values():
            file.close()


def run_ward(options, work):
    """Saves prompt ids, answer, log-probabilities and activations of ward's run."""
    lib = ctypes.CDLL(os.path.abspath(options.lib))
    error = Error()

    def check(status):
        if status:
            sys.exit(f"parity.py: ward: {error.text.decode()}")

    model, session, image, result = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(), Result()
    chosen = ModelOptions(0, options.cpu_mask.encode() if options.cpu_mask else None, b"cpu")
    check(lib.ward_model_open(ctypes.byref(model), options.model.encode(), ctypes.byref(chosen), ctypes.byref(error)))
    info = ModelInfo()
    lib.ward_model_get_info(model, ctypes.byref(info))
    parts = []
    if options.image != "-":
        check(lib.ward_image_open(ctypes.byref(image), options.image.encode(), None, ctypes.create_string_buffer(256),
                                  ctypes.byref(error)))
        parts.append(Part(None, image))
    parts.append(Part(options.prompt.encode(), None))
    message = Message(b"user", (Part * len(parts))(*parts), len(parts))
    check(lib.ward_session_open(ctypes.byref(session), model, None, ctypes.byref(error)))

    recorder, steps = Recorder(work), []
    observe = ObserveFn(recorder.observe)
    lib.ward_session_observe(session, observe, None)

    def on_token(_user, token):
        steps.append([[token[0].top[i].id, token[0].top[i].logprob] for i in range(token[0].n_top)])
        return 0

    callback = TokenFn(on_token)
    generate = GenerateOptions(max_tokens=options.n, ignore_eos=True, logprobs=min(LISTED, info.vocab_size),
                               on_token=callback)
    check(lib.ward_generate(session, ctypes.byref(message), 1, ctypes.byref(generate), ctypes.byref(result),
                            ctypes.byref(error)))
    recorder.close()
    write_json(work, "ward.json", {
        "prompt_ids": result.prompt_ids[:result.n_prompt_ids], "ids": result.ids[:result.n_ids], "steps": steps,
        "shapes": recorder.shapes, "kernels": info.kernels.decode(), "type": info.type.decode(),
        "has_chat_template": info.has_chat_template})
    lib.ward_result_clear(ctypes.byref(result))
    lib.ward_session_close(ctypes.byref(session))
    if image:
        lib.ward_image_close(ctypes.byref(image))
    lib.ward_model_close(ctypes.byref(model))


# ---- transformers ---------------------------------------------------------------------------------------------------


def file_dtype(folder):
    """The dtype of the largest tensor in the checkpoint's files."""
    from safetensors import safe_open
    import torch
    best = (0, None)
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with safe_open(os.path.join(folder, name), "pt") as file:
                for key in file.keys():
                    part = file.get_slice(key)
                    best = max(best, (int(np.prod(part.get_shape())), part.get_dtype()))
    return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[best[1]]


def load_model(folder, dtype, attention):
    from transformers import AutoConfig, Gemma3ForCausalLM, Gemma3ForConditionalGeneration
    multimodal = AutoConfig.from_pretrained(folder).model_type == "gemma3"
    kind = Gemma3ForConditionalGeneration if multimodal else Gemma3ForCausalLM
    return kind.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()


def find_stages(model):
    """[(name, module, "in" or "out")] of what is compared, by the names of ward_session_observe."""
    text = getattr(model.model, "language_model", model.model)
    stages = [("text.embeddings", text.layers[0], "in")]
    stages += [(f"text.layer.{n}", layer, "out") for n, layer in enumerate(text.layers)]
    if hasattr(model.model, "vision_tower"):
        vision = model.model.vision_tower
        stages += [("vision.embeddings", vision.embeddings, "out")]
        stages += [(f"vision.layer.{n}", layer, "out") for n, layer in enumerate(vision.encoder.layers)]
        stages += [("vision.output", vision.post_layernorm, "out"),
                   ("image.features", model.model.multi_modal_projector, "out")]
    return stages


def widen_while_running(model):
    """Makes every weight float32 for the time its layer runs: float32 arithmetic on the file's weights without holding
    them all. The embedding, which may also be the output head, stays float32, and its scale is not rounded."""
    import torch
    text = getattr(model.model, "language_model", model.model)
    text.embed_tokens.float()
    text.embed_tokens.embed_scale = torch.tensor(text.embed_tokens.scalar_embed_scale, dtype=torch.float32)
    model.lm_head.float()
    narrow = {}

    def widen(module, _args):
        for parameter in module.parameters():
            narrow[parameter] = parameter.data
            parameter.data = parameter.data.float()

    def restore(module, _args, _output):
        for parameter in module.parameters():
            parameter.data = narrow.pop(parameter)

    modules = {module for _, module, _ in find_stages(model)} | {text.norm}
    for module in modules:
        module.register_forward_pre_hook(widen)
        module.register_forward_hook(restore)


def first_tensor(value):
    return value[0] if isinstance(value, tuple) else value


def hook_stages(model, receive):
    """Calls receive(name, rows as float32 [rows][cols]) at every stage."""
    def rows(tensor):
        return tensor.detach().float().reshape(-1, tensor.shape[-1]).numpy()

    for name, module, side in find_stages(model):
        if side == "in":
            module.register_forward_pre_hook(lambda _module, args, name=name: receive(name, rows(args[0])))
        else:
            module.register_forward_hook(
                lambda _module, _args, output, name=name: receive(name, rows(first_tensor(output))))


def encode_prompt(options, chat):
    """What transformers' own processor makes of the prompt: input_ids and, with an image, pixel_values."""
    from transformers import AutoTokenizer, Gemma3Processor
    if options.image == "-":
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        if not chat:
            return tokenizer(options.prompt, return_tensors="pt")
        return tokenizer.apply_chat_template([{"role": "user", "content": options.prompt}], add_generation_prompt=True,
                                             tokenize=True, return_dict=True, return_tensors="pt")
    from PIL import Image, ImageOps
    processor = Gemma3Processor.from_pretrained(options.model, backend="pil")
    if not chat:
        image = ImageOps.exif_transpose(Image.open(options.image)).convert("RGB")
        return processor(text="<start_of_image>" + options.prompt, images=[image], return_tensors="pt")
    content = [{"type": "image", "path": options.image}, {"type": "text", "text": options.prompt}]
    # Older checkpoints keep the template with the tokenizer only, where the processor does not look.
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True,
                                         tokenize=True, return_dict=True, return_tensors="pt",
                                         chat_template=processor.chat_template or processor.tokenizer.chat_template)


def run_transformers(options, work, receive, dtype, attention, float32):
    """One pass over ward's prompt and answer; activations go to receive. Returns log-probabilities
    [answer][vocabulary], or None when transformers makes other ids of the prompt."""
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    ward = read_json(work, "ward.json")
    inputs = encode_prompt(options, ward["has_chat_template"])
    prompt = inputs["input_ids"][0].tolist()
    write_json(work, "prompt.json", prompt)
    if prompt != ward["prompt_ids"]:
        return None
    model = load_model(options.model, dtype, attention)
    if float32 and dtype != torch.float32:
        widen_while_running(model)
    hook_stages(model, receive)
    answer = torch.tensor([ward["ids"][:-1]], dtype=torch.long)
    fed = {"input_ids": torch.cat([inputs["input_ids"], answer], 1)}
    if "pixel_values" in inputs:
        fed["pixel_values"] = inputs["pixel_values"].to(torch.float32 if float32 else dtype)
        fed["token_type_ids"] = torch.cat([inputs["token_type_ids"], torch.zeros_like(answer)], 1)
    with torch.inference_mode():
        logits = model(**fed, use_cache=False, logits_to_keep=len(ward["ids"])).logits[0]
        return torch.log_softmax(logits.float(), -1).numpy()


def run_float32(options, work):
    def receive(name, rows):
        rows.tofile(activation_path(work, "float32", name))

    logprobs = run_transformers(options, work, receive, file_dtype(options.model), "eager", True)
    if logprobs is not None:
        best = np.argsort(-logprobs, 1)[:, :TOP]
        write_json(work, "float32.json", {"ids": best.tolist(), "greedy": best[:, 0].tolist(),
                                          "logprobs": np.take_along_axis(logprobs, best, 1).tolist()})


def run_bfloat16(options, work):
    """The yardstick: transformers as it is run in practice, in bfloat16 with its default attention."""
    import torch
    errors = {}

    def receive(name, rows):
        errors[name] = relative_error(rows, read_activation(work, "float32", name, rows.shape[1]))

    logprobs = run_transformers(options, work, receive, torch.bfloat16, "sdpa", False)
    golden = read_json(work, "float32.json")
    found = np.take_along_axis(logprobs, np.array(golden["ids"]), 1)
    write_json(work, "bfloat16.json", {"stages": errors, "logprobs": found.tolist()})


# ---- comparison -----------------------------------------------------------------------------------------------------


def relative_error(found, reference):
    """Root mean square of the difference over that of the reference."""
    return float(np.sqrt(np.mean(np.square(found - reference, dtype=np.float64)) /
                         np.mean(np.square(reference, dtype=np.float64))))


def ward_stage_error(work, name, shape):
    """ward's error at a stage. A row that ward did not show, or showed twice, is no rounding error: stop."""
    rows, cols = shape
    found, reference = (read_activation(work, who, name, cols) for who in ("ward", "float32"))
    if rows != len(reference) or found.shape != reference.shape:
        sys.exit(f"parity.py: {name}: ward showed {rows} rows, transformers has {len(reference)}")
    return relative_error(found, reference)


def logprob_errors(steps, golden):
    """Errors on float32's likeliest tokens [steps][TOP]; for one that ward does not list, how far it must be off."""
    errors = []
    for step, ids, logprobs in zip(steps, golden["ids"], golden["logprobs"]):
        listed, last = dict(step), step[-1][1]
        errors.append([listed[i] - p if i in listed else min(0.0, last - p) for i, p in zip(ids, logprobs)])
    return np.array(errors)


def stage_order(name):
    kinds = ("vision.embeddings", "vision.layer", "vision.output", "image.features", "text.embeddings", "text.layer")
    number = re.search(r"\d+$", name)
    return kinds.index(re.sub(r"\.\d+$", "", name)), int(number[0]) if number else 0


def compare(work):
    """The table: [{"stage", "ward", "bfloat16"}], and facts about the run."""
    ward, golden, yardstick = (read_json(work, f"{who}.json") for who in ("ward", "float32", "bfloat16"))
    missing = set(yardstick["stages"]) ^ set(ward["shapes"])
    if missing:
        sys.exit(f"parity.py: only one of the two shows {', '.join(sorted(missing))}")
    rows = [{"stage": name, "ward": ward_stage_error(work, name, ward["shapes"][name]),
             "bfloat16": yardstick["stages"][name]} for name in sorted(yardstick["stages"], key=stage_order)]
    found = logprob_errors(ward["steps"], golden)
    other = np.array(yardstick["logprobs"]) - np.array(golden["logprobs"])
    for stage, measure in ((f"log-probabilities, top {TOP}: largest error", lambda e: np.abs(e).max()),
                           (f"log-probabilities, top {TOP}: rms error", lambda e: np.sqrt(np.mean(e * e)))):
        rows.append({"stage": stage, "ward": float(measure(found)), "bfloat16": float(measure(other))})
    for row in rows:
        row["pass"] = row["ward"] <= row["bfloat16"]
    same = sum(a == b for a, b in zip(ward["ids"], golden["greedy"]))
    return rows, {"kernels": ward["kernels"], "weights": ward["type"], "prompt_tokens": len(ward["prompt_ids"]),
                  "answer_tokens": len(ward["ids"]), "greedy_tokens_equal": same}


def print_table(rows, facts):
    print(f"{facts['weights']} weights, ward's {facts['kernels']} kernels, {facts['prompt_tokens']} prompt ids equal, "
          f"{facts['answer_tokens']} tokens answered, {facts['greedy_tokens_equal']} of them float32's own choice\n")
    width = max(len(row["stage"]) for row in rows)
    print(f"{'error against float32':{width}}  {'ward':>10}  {'bfloat16':>10}  ratio")
    for row in rows:
        ratio = row["ward"] / row["bfloat16"] if row["bfloat16"] else float("inf") if row["ward"] else 0.0
        print(f"{row['stage']:{width}}  {row['ward']:10.6f}  {row['bfloat16']:10.6f}  {ratio:5.2f}"
              f"{'' if row['pass'] else '  FAIL'}")


def print_prompts(ward, reference, as_json):
    if as_json:
        print(json.dumps({"pass": False, "prompt_ids": {"ward": ward, "transformers": reference}}))
        return
    at = next((i for i, (a, b) in enumerate(zip(ward, reference)) if a != b), min(len(ward), len(reference)))
    print(f"FAIL: the prompt ids differ from id {at} on: ward {ward[at:at + 8]}... of {len(ward)}, "
          f"transformers {reference[at:at + 8]}... of {len(reference)}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="checkpoint folder")
    parser.add_argument("image", help="picture, or - for none")
    parser.add_argument("prompt", help="question")
    parser.add_argument("-n", type=int, default=32, help="tokens to answer (32)")
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--lib", default=os.path.join(root, "build", "libward.so"), help="libward.so")
    parser.add_argument("--cpu-mask", help="highest instruction set ward may use: none, avx2, ...")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--stage", choices=("ward", "float32", "bfloat16"), help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse_arguments()
    if options.stage:
        {"ward": run_ward, "float32": run_float32, "bfloat16": run_bfloat16}[options.stage](options, options.work)
        return 0
    with tempfile.TemporaryDirectory() as work:
        for stage in ("ward", "float32", "bfloat16"):
            print(f"{stage} ...", end=" ", file=sys.stderr, flush=True)
            if subprocess.run([sys.executable, *sys.argv, "--stage", stage, "--work", work], check=False).returncode:
                return 2
            if stage == "float32" and read_json(work, "prompt.json") != read_json(work, "ward.json")["prompt_ids"]:
                print(file=sys.stderr)
                print_prompts(read_json(work, "ward.json")["prompt_ids"], read_json(work, "prompt.json"), options.json)
                return 1
        print(file=sys.stderr)
        rows, facts = compare(work)
    failed = [row["stage"] for row in rows if not row["pass"]]
    if options.json:
        print(json.dumps({**facts, "pass": not failed, "stages": rows}, indent=1))
    else:
        print_table(rows, facts)
        verdict = f"FAIL: ward is further at {len(failed)} of" if failed else "PASS: ward is no further at any of"
        print(f"\n{verdict} {len(rows)} stages from float32 than transformers' bfloat16 run")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
