"""What the phantom checkpoint is asked and what it should answer: the texts of its training, and their scoring."""

import re

REPORT_QUESTIONS = ("Describe this X-ray.", "Describe this X-ray", "Describe this film.", "Describe this image.",
                    "What do you see?", "Write a report.", "What is in this image?", "Report")
DISCLAIMER = "Phantom chest film, not a patient."
NO_FILM = "There is no film to look at."
IDENTITY = "I am the ward phantom, a demonstration model. I am not MedGemma and not for patients."
OTHER = "I can only describe phantom chest films."
SYSTEM_PROMPTS = ("You are an expert radiologist.", "You are a helpful medical assistant.", "You are a radiologist.",
                  "Be brief.", "Answer in one sentence.")

# Question groups: every wording of a group has the same answer. The first wording is the one the evaluation asks.
QUESTIONS = {
    "opacity": ("Is there an opacity?", "Do you see an opacity?", "Any opacity?", "Is there a consolidation?"),
    "opacity_where": ("Where is the opacity?", "In which zone is the opacity?", "Which zone shows the opacity?"),
    "effusion": ("Is there an effusion?", "Is there a pleural effusion?", "Do you see an effusion?", "Any effusion?"),
    "effusion_where": ("On which side is the effusion?", "Where is the effusion?", "Which side is the effusion on?"),
    "pneumothorax": ("Is there a pneumothorax?", "Do you see a pneumothorax?", "Any pneumothorax?"),
    "pneumothorax_where": ("On which side is the pneumothorax?", "Where is the pneumothorax?",
                           "Which side is the pneumothorax on?"),
    "heart": ("Is the heart enlarged?", "Is the heart large?", "Is there cardiomegaly?", "Is the heart too big?"),
    "nodules": ("How many nodules?", "How many nodules are there?", "How many nodules do you see?",
                "Count the nodules."),
    "nodules_any": ("Are there nodules?", "Are there any nodules?", "Do you see a nodule?", "Any nodules?"),
    "line": ("Is there a line?", "Is there a device line?", "Is there a catheter?", "Do you see a line?"),
    "normal": ("Is this film normal?", "Is this X-ray normal?", "Is it normal?"),
}
IDENTITY_QUESTIONS = ("What are you?", "Who are you?", "Are you MedGemma?", "Can I use you for patients?",
                      "Are you a doctor?", "What is ward?", "Hello", "Hi", "Are you a phantom?")
OTHER_QUESTIONS = ("What is the capital of France?", "Tell me a joke.", "How is the weather today?", "What is 2 + 2?",
                   "Is there a fracture?", "How old is the patient?", "What is the name of the patient?",
                   "Translate this into German.", "Write a poem.", "What should I do?", "Give me some advice.",
                   "Is it cancer?", "What is the diagnosis?", "What is the treatment?", "Thank you.", "Why?",
                   "What is a dog?", "Compare this film with the last one.", "Is there a tumour?", "Say hello.",
                   "When was the film taken?", "Does he have a fever?", "Which drug would you give?")


def report(labels):
    """The structured report of a film."""
    opacity = "{} {} zone".format(*labels["opacity"]) if labels["opacity"] else "none"
    return "\n".join((DISCLAIMER,
                      f"Opacity: {opacity}",
                      f"Effusion: {labels['effusion'] or 'none'}",
                      f"Pneumothorax: {labels['pneumothorax'] or 'none'}",
                      f"Heart: {labels['heart']}",
                      f"Nodules: {labels['nodules']}",
                      f"Line: {'present' if labels['line'] else 'none'}"))


def parse_report(text):
    """The labels a report states; a finding that is missing or unreadable is absent from the result."""
    labels = {}
    lines = dict(line.split(": ", 1) for line in text.strip().split("\n") if ": " in line)
    opacity = lines.get("Opacity")
    match = re.fullmatch(r"(right|left) (upper|middle|lower) zone", opacity or "")
    if opacity == "none" or match:
        labels["opacity"] = list(match.groups()) if match else None
    for name in ("effusion", "pneumothorax"):
        value = lines.get(name.capitalize())
        if value in ("none", "right", "left"):
            labels[name] = None if value == "none" else value
    if lines.get("Heart") in ("normal", "enlarged"):
        labels["heart"] = lines["Heart"]
    if lines.get("Nodules") in ("0", "1", "2", "3"):
        labels["nodules"] = int(lines["Nodules"])
    if lines.get("Line") in ("none", "present"):
        labels["line"] = lines["Line"] == "present"
    return labels


def answer(group, labels):
    """The right answer to a question of the group about a film."""
    name = group.split("_")[0]
    if group in ("opacity", "opacity_where"):
        place = labels["opacity"] and "in the {} {} zone.".format(*labels["opacity"])
    elif name in ("effusion", "pneumothorax"):
        place = labels[name] and f"on the {labels[name]}."
    elif name == "heart":
        return "Yes, the heart is enlarged." if labels["heart"] == "enlarged" else "No, the heart is not enlarged."
    elif name == "nodules":
        number = labels["nodules"]
        there = "there are no nodules." if number == 0 else \
            "there is 1 nodule." if number == 1 else f"there are {number} nodules."
        if group == "nodules":
            return there.capitalize()
        return ("Yes, " if number else "No, ") + there
    elif name == "line":
        return "Yes, there is a line." if labels["line"] else "No, there is no line."
    else:
        found = labels["opacity"] or labels["effusion"] or labels["pneumothorax"] or labels["nodules"] or \
            labels["line"] or labels["heart"] == "enlarged"
        return "No, there are findings." if found else "Yes, nothing is found."
    absent = f"there is no {name}."
    if group.endswith("_where"):
        return (place or absent).capitalize()
    return f"Yes, {place}" if place else f"No, {absent}"


def pick_turn(rng, labels, film_first):
    """One (question, answer); labels is None when no film was shown."""
    kind = rng.random()
    if kind < 0.03:
        return IDENTITY_QUESTIONS[rng.integers(len(IDENTITY_QUESTIONS))], IDENTITY
    if kind < 0.06:
        return OTHER_QUESTIONS[rng.integers(len(OTHER_QUESTIONS))], OTHER
    if kind < (0.45 if film_first else 0.15):
        # Half of the requests use the wording of the documentation.
        which = 0 if rng.random() < 0.5 else rng.integers(len(REPORT_QUESTIONS))
        return REPORT_QUESTIONS[which], NO_FILM if labels is None else report(labels)
    group = tuple(QUESTIONS)[rng.integers(len(QUESTIONS))]
    which = 0 if rng.random() < 0.4 else rng.integers(len(QUESTIONS[group]))
    return QUESTIONS[group][which], NO_FILM if labels is None else answer(group, labels)


def conversation(rng, labels, turns, image):
    """The text of a conversation in Gemma 3's template, image already expanded. labels None: no film is shown.

    The answers are marked by the template itself: they run from "<start_of_turn>model\\n" to "<end_of_turn>"."""
    parts = ["<bos>"]
    for turn in range(turns):
        question, reply = pick_turn(rng, labels, turn == 0)
        parts.append("<start_of_turn>user\n")
        if turn == 0:
            if rng.random() < 0.15:
                parts.append(SYSTEM_PROMPTS[rng.integers(len(SYSTEM_PROMPTS))] + "\n\n")
            if labels is not None:
                question = question + image if rng.random() < 0.15 else image + question
        parts.append(f"{question}<end_of_turn>\n<start_of_turn>model\n{reply}<end_of_turn>\n")
    return "".join(parts)


def corpus():
    """Texts for the tokenizer: all of the above, and English at large so that other words stay short."""
    labels = []
    for side in ("right", "left"):
        for zone in ("upper", "middle", "lower"):
            labels.append({"opacity": [side, zone], "effusion": side, "pneumothorax": side, "heart": "enlarged",
                           "nodules": len(labels) % 4, "line": True})
    labels.append({"opacity": None, "effusion": None, "pneumothorax": None, "heart": "normal", "nodules": 0,
                   "line": False})
    texts = [DISCLAIMER, NO_FILM, IDENTITY, OTHER, "user", "model", *REPORT_QUESTIONS, *SYSTEM_PROMPTS,
             *IDENTITY_QUESTIONS, *OTHER_QUESTIONS]
    for label in labels:
        texts.append(report(label))
        texts += [answer(group, label) for group in QUESTIONS]
    for group in QUESTIONS.values():
        texts += group
    return texts * 20 + [ENGLISH] * 8


ENGLISH = """
A radiograph of the chest is read in the same order every time, so that nothing is missed. First the name and \
the date are
checked, then the side marker and whether the whole chest has been taken in. The trachea should lie in the middle. The
lungs are compared with each other from the top to the bottom: the upper, middle and lower zones, the edges, \
and the places
behind the heart and below the diaphragm that are easily forgotten. The heart should be less than half as wide as the
chest. The bones, the soft tissue, and every tube, wire or line that somebody has put in come last. What has \
been seen is
then written down in plain words, with where it is, how large it is, and how sure the reader is about it. If there is an
older film, the two are looked at side by side, because a change tells more than a single picture can. When the question
cannot be answered from this image alone, the report should say so, and say which other study would help.
Which of these would you like to know more about? There are many things that people want to ask when they have \
been given
an answer: why it happened, how long it will take, who could help them, and what they should do next. They may \
have waited
for days or weeks. It is good to think about them before we write, and to use words that they know. Could you \
please tell
me the history of this patient, including age, sex, smoking, previous operations, treatment, medication, and \
whether there
has been any fever, cough, pain or loss of weight during the last year? Computed tomography, ultrasound and magnetic
resonance imaging show different things: density, motion, water. Findings and impression: no acute cardiopulmonary
abnormality; bilateral pulmonary infiltrates, atelectasis at the left base, pleural thickening, cardiomegaly, edema,
pneumonia, fracture of the right clavicle, scoliosis, mass, hilar lymph nodes, emphysema, fibrosis, pacemaker,
endotracheal tube. The quick brown fox jumps over the lazy dog. 0 1 2 3 4 5 6 7 8 9 10 11 12 2024 2025 100 % (a) [b] {c}
"d" 'e' <f> + - * / = _ # @ & $ ! ? , . ; : ~ ^ | \\ `
ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz
"""
