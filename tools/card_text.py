"""What tools/card_report.py found, as a page of Markdown."""

import card_goals


def table(head, rows):
    widths = [max(len(str(cell)) for cell in column) for column in zip(head, *rows)] if rows else [len(cell) for cell in head]
    lines = ["| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]) + "\n"


def number(value):
    """Three digits that count, or all of a large number."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def facts(document):
    card, state, limits = document["card"], document["state"], document["limits"]
    lines = [f"{card['name']}, {card['memory_bytes'] / 1e9:.1f} GB, {card['multiprocessors']} multiprocessors, kernels "
             f"{card['kernels']}; driver {card['driver']}, CUDA {card['cuda']}."]
    if state:
        lines.append(f"Clock {state['mhz']:.0f} of {state['mhz_limit']:.0f} MHz, memory {state['memory_mhz']:.0f} MHz, "
                     f"{state['watts']:.0f} of {state['watts_limit']:.0f} W, {state['celsius']:.0f} degrees"
                     f"{', slowed by heat or by its power limit' if state['slowed'] else ''}.")
    machine = document["machine"]
    lines.append(f"{machine['cpu']}, {machine['cpus_usable']} processors, {machine['memory_bytes'] / 1e9:.0f} GB; {machine['system']}, "
                 f"Linux {machine['kernel']}. ward {document['ward']}, {document['started']}.")
    rows = [["copying, GB/s", number(limits["copy_gbs"])]]
    rows += [[f"products of bf16 by {name}, TFLOP/s", number(rate / 1e3)] for name, rate in limits["instruction_gops"].items() if rate]
    if document["published"]:
        rows += [["published bandwidth, GB/s", number(document["published"]["read_gbs"])],
                 ["published products of bf16, TFLOP/s", number(document["published"]["tflops"])]]
    peers = document["peers"]
    if "copy" in peers:
        rows.append(["copying by PyTorch, GB/s", number(peers["copy"]["gbs"])])
    if "matmul" in peers:
        rows.append([f"torch.matmul of {peers['matmul']['side']} x {peers['matmul']['side']}, TFLOP/s", number(peers["matmul"]["tflops"])])
    return "\n".join(lines) + "\n\n" + table(["limit", "measured"], rows)


def goals(document):
    words = {True: "met", False: "not met", None: "not measured"}
    rows = [[goal["name"], f"{goal['goal']} {goal['unit'] if goal['measured'] is not None else ''}".strip(),
             number(goal["measured"]), words[goal["met"]]] for goal in document["goals"]]
    return "## Goals\n\n" + table(["", "goal", "measured", ""], rows) + \
        "\nLimits are the best that ward's kernels or PyTorch measured.\n" if rows else ""


def measured(document):
    head = ["", *document["measured"]]
    if len(head) == 1:
        return ""
    entries = list(document["measured"].values())

    def line(name, value):
        return [name, *(value(entry) for entry in entries)]
    tokens = entries[0]["test"]["max_tokens"]
    rows = [
        line(f"an image and {tokens} tokens, ms", lambda m: f"{number(m['latency_ms']['mean'])} +- {number(m['latency_ms']['std'])}"),
        line("the image's file, ms", lambda m: number(card_goals.stage(m, "image"))),
        line("the encoder, ms", lambda m: number(card_goals.stage(m, "vision"))),
        line("the prompt, ms", lambda m: number(card_goals.stage(m, "prefill"))),
        line("tokens of prompt", lambda m: m["test"]["prompt_tokens"]),
        line("first token, ms", lambda m: number(card_goals.first_token_ms(m))),
        line("a further token, ms", lambda m: number(m["stages"]["token"]["mean"])),
        line("further tokens a second", lambda m: number(m["throughput"]["decode_tps"])),
        line("GB of weights a token", lambda m: f"{m['limits']['token_bytes'] / 1e9:.2f}"),
        line("of copying, %", lambda m: number(100 * m["limits"]["decode_share"])),
        line("encoder, of the peak by ward's kernel, %", lambda m: number(100 * m["limits"]["vision_share"])),
        line("prompt, of the same, %", lambda m: number(100 * m["limits"]["prefill_share"])),
        line("opening, the files in memory, ms", lambda m: number(m["stages"]["open"]["warm_ms"]["mean"])),
        line("joules a token", lambda m: number((m["energy"] or {}).get("joules_token"))),
        line("card after it: MHz, W", lambda m: ", ".join(number((m["card_after"] or {}).get(key)) for key in ("mhz", "watts"))),
    ]
    notes = [f"- {name}: {warning}" for name, entry in document["measured"].items() for warning in entry["warnings"]]
    random = " Random weights: their cost is the model's, their answers mean nothing." if entries[0]["model"]["random_weights"] else ""
    return f"## Measured\n\n`ward bench`, a fixed length, context 2,048.{random}\n\n" + table(head, rows) + "".join(f"\n{note}" for note in notes)


def peers(document):
    found = document["peers"]
    rows = []
    if "encoder" in found:
        rows.append(["transformers' encoder, ms", number(found["encoder"]["mean_ms"]), found["encoder"]["version"]])
    for name, text in (("pipeline", "transformers' pipeline, bf16, ms"), ("static", "generate with SDPA and a static cache, ms")):
        if name in found:
            rows.append([f"{text} for {found[name]['tokens']} tokens", number(found[name]["mean_ms"]), found[name]["version"]])
    rows += [[f"{name}, tokens a second", number(entry["decode_tps"]), ""] for name, entry in found.items() if name.startswith("llama.cpp")]
    return "## Others, on the same card\n\nThe same weights, image and question.\n\n" + table(["", "mean", "version"], rows) if rows else ""


def projection(shares, rows):
    """Other cards, with these shares of what is published of them."""
    reading = ", ".join(f"{name} {share:.0%}" for name, share in shares["read"].items())
    lines = [[row["device"], row["type"], number(row["first_token"]), number(row["token"]), f"{row['total'] / 1e3:.2f}",
              f"{row['target_ms'] / 1e3:.0f}", row["tokens_in_time"]] if row["fits"] else
             [row["device"], row["type"], "does not fit", "", "", "", ""] for row in rows]
    return (f"### A projection: {shares['of']}\n\nReading {reading} of the published bandwidth, the encoder {shares['vision']:.0%} and the "
            f"prompt {shares['prefill']:.0%} of the published products. Nothing here was measured on these cards.\n\n" +
            table(["", "", "first token, ms", "a token, ms", f"{card_goals.TOKENS} tokens, s", "target, s", "longest answer in time, tokens"],
                  lines) + "\n")


def checks(document):
    rows = [[check["name"], check["status"], f"{check['seconds']:.1f}", check["found"].replace("|", "/")] for check in document["checks"]]
    parts = ["## Checks\n\n" + table(["", "", "s", "found"], rows)]
    parts += [f"{check['name']}:\n\n" + "".join(f"    {line}\n" for line in check["lines"]) for check in document["checks"] if check.get("lines")]
    if document.get("refused"):
        parts.append("Behind the lock the kernel refused:\n\n" + "".join(f"    {line}\n" for line in document["refused"]))
    return "\n".join(parts)


def page(document):
    parts = ["# ward on an NVIDIA card\n"]
    if document["emulated"]:
        parts.append("**The emulated card of the tests: no figure here means anything.**\n")
    if document.get("unlocked"):
        parts.append("**The card does not work behind the lock: what follows was measured without it.**\n")
    if document["card"]:
        parts += [facts(document), goals(document), measured(document), peers(document)]
    if document["projection"]:
        parts.append("## Other cards\n\n" + projection(document["shares"], document["projection"]).rstrip() + "\n")
    parts.append(checks(document))
    parts.append("## Commands\n\n" + "".join(f"    {command}\n" for command in document["commands"]))
    return "\n".join(part.rstrip() + "\n" for part in parts if part)
