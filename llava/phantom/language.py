"""Write the words of a phantom: a report that states every finding, and the clinical context.

Third step of the phantom corpus, parallel to `lesions`: it is given the same `Finding`s and never
the picture. Few words, several phrasings each, so that a small model can learn the language.
"""

from __future__ import annotations

from numpy.random import Generator

from llava.phantom import paraphrase
from llava.phantom.case import Finding
from llava.phantom.difficulty import EASY, Difficulty

MAX_WORDS = 48

NORMAL = (
    "The heart size is normal.",
    "The cardiac silhouette is within normal limits.",
    "The heart and mediastinal contours are normal.",
    "Heart size and mediastinal contours are within normal limits.",
)
NORMAL_LUNGS = (
    "The lungs are clear.",
    "Both lungs are clear.",
    "The lungs are well expanded and clear.",
    "Lungs are clear bilaterally.",
)
NORMAL_END = (
    "No acute cardiopulmonary process.",
    "Normal chest radiograph.",
    "There is no acute abnormality.",
    "No acute cardiopulmonary abnormality.",
)
ALWAYS = (
    "The bones are intact.",
    "There is no free air below the diaphragm.",
)
VIEWS = {
    "portable": (
        "Single portable view of the chest.",
        "Portable frontal view of the chest was obtained.",
    ),
    "frontal": ("Frontal view of the chest.", "A single frontal view of the chest was obtained."),
}
ABSENT = {
    "effusion": ("pleural effusion", "effusion"),
    "pneumothorax": ("pneumothorax", "pneumothorax"),
    "consolidation": ("focal consolidation", "consolidation"),
    "edema": ("pulmonary edema", "edema"),
}
"""In full and in short; a report keeps to one of the two."""
POSITIVE = {
    "cardiomegaly": (
        "There is {size} cardiomegaly.",
        "The cardiac silhouette is {adverb} enlarged.",
        "Heart size is {adverb} enlarged.",
        "{Size} enlargement of the cardiac silhouette.",
    ),
    "effusion": (
        "There is a {size} {side} pleural effusion.",
        "{Size} {side} pleural effusion.",
        "A {size} pleural effusion is present on the {side}.",
        "A {size} {side} pleural effusion is seen with blunting of the costophrenic angle.",
    ),
    "pneumothorax": (
        "There is a {size} {side} pneumothorax.",
        "{Size} {side} pneumothorax.",
        "A {size} pneumothorax is present on the {side}.",
        "A {side} pleural line is seen, consistent with a {size} pneumothorax.",
    ),
    "consolidation": (
        "There is consolidation in the {side} {zone} lung.",
        "{Side} {zone} lung consolidation.",
        "Airspace opacity in the {side} {zone} lung.",
        "Focal consolidation is seen in the {side} {zone} lung.",
    ),
    "edema": (
        "There is {size} pulmonary edema.",
        "{Size} pulmonary edema.",
        "Pulmonary vascular congestion with {size} interstitial edema.",
        "Increased interstitial markings, consistent with {size} edema.",
    ),
    "atelectasis": (
        "There is linear atelectasis in the {side} {zone} lung.",
        "{Side} {zone} lung atelectasis.",
        "Linear opacity in the {side} {zone} lung, consistent with atelectasis.",
        "Plate-like atelectasis is seen in the {side} {zone} lung.",
    ),
    "nodule": (
        "There is a nodule in the {side} {zone} lung.",
        "A round nodule is seen in the {side} {zone} lung.",
        "{Side} {zone} lung nodule.",
        "A nodular opacity projects over the {side} {zone} lung.",
    ),
    "pacemaker": (
        "A {side} chest wall pacemaker is in place.",
        "{Side} chest pacemaker with {leads}.",
        "There is a {side} pacemaker with {leads} in the heart.",
        "A pacemaker is seen over the {side} chest.",
    ),
    "endotracheal": (
        "An endotracheal tube is in place.",
        "The endotracheal tube tip is above the carina.",
        "Endotracheal tube in standard position.",
    ),
    "enteric": (
        "An enteric tube is in place.",
        "The enteric tube tip is in the stomach.",
        "Nasogastric tube with tip in the stomach.",
    ),
    "central": (
        "A central venous line is in place.",
        "Central line with tip in the superior vena cava.",
        "A {side} jugular central venous catheter is in place.",
    ),
    "picc": (
        "A {side} PICC line is in place.",
        "{Side} PICC with tip in the superior vena cava.",
        "The {side} PICC line tip is in the superior vena cava.",
    ),
}
BOTH = {
    "effusion": (
        "There are bilateral pleural effusions.",
        "Bilateral pleural effusions, {size} on the left and {other} on the right.",
        "Pleural effusions are present on both sides.",
    ),
    "pneumothorax": (
        "There are bilateral pneumothoraces.",
        "Bilateral pneumothoraces, {size} on the left and {other} on the right.",
        "Pneumothoraces are present on both sides.",
    ),
    "consolidation": (
        "There are bilateral consolidations.",
        "Consolidation in the left {zone} lung and the right {other} lung.",
        "Airspace opacities are seen in both lungs.",
    ),
}
ADVERB = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}
LEADS = {"single": "a single lead", "dual": "two leads"}

COMPLAINTS = {
    "cardiomegaly": ("leg swelling", "known heart failure", "shortness of breath"),
    "effusion": ("shortness of breath", "decreased breath sounds", "recent surgery"),
    "pneumothorax": ("sudden chest pain", "fall", "trauma"),
    "consolidation": ("fever and cough", "cough", "elevated white count"),
    "edema": ("shortness of breath", "known heart failure", "leg swelling"),
    "atelectasis": ("recent surgery", "low oxygen", "abdominal pain"),
    "nodule": ("weight loss", "long smoking history", "known cancer"),
    "pacemaker": ("syncope", "arrhythmia", "device check"),
    "tube_or_line": ("line placement", "respiratory failure", "intensive care"),
}
ANY_COMPLAINT = tuple(sorted({text for texts in COMPLAINTS.values() for text in texts}))
HISTORIES = (
    *("Hypertension.", "Diabetes.", "Smoker.", "Heart failure.", "Asthma.", "Prior surgery."),
    *("No significant history.", "Coronary disease.", "Kidney disease."),
)
HINT_SHARE = 0.35
"""How often the indication is drawn from what fits a finding; else from everything."""

OTHER_ORDER = 0.1
"""How often findings are not in the usual order, in which a reader goes through a film."""


def write_report(
    findings: tuple[Finding, ...],
    portable: bool,
    rng: Generator,
    difficulty: Difficulty = EASY,
) -> str:
    """Return 2 to 6 sentences: every finding, and what is absent as far as MAX_WORDS allows."""
    names = {finding.name for finding in findings}
    more = difficulty.paraphrased
    first = [_pick(VIEWS["portable" if portable else "frontal"], rng)] * (rng.random() < 0.25)
    if names == {"normal"}:
        clear = NORMAL_LUNGS + paraphrase.NORMAL_LUNGS * more
        said, last = [_pick(clear, rng)], [_pick(NORMAL_END, rng)]
    else:
        said, last = _statements(findings, rng, more), []
    unsaid = _negatives(names, rng, more)
    if rng.random() < OTHER_ORDER:
        rng.shuffle(said)
    sentences = [*first, *said, *unsaid]
    while len(sentences) + len(last) > 6 and len(unsaid) > 1:
        sentences.remove(unsaid.pop())
    while len(" ".join([*sentences, *last]).split()) > MAX_WORDS and unsaid:
        sentences.remove(unsaid.pop())
    return " ".join([*sentences, *last])


def write_context(findings: tuple[Finding, ...], portable: bool, rng: Generator) -> dict[str, str]:
    """Return some of the clinical fields; only the indication depends on the case."""
    kinds = [finding.name.removeprefix(f"{finding.side}_") for finding in findings]
    fitting = COMPLAINTS.get(_pick(kinds, rng), ANY_COMPLAINT)
    complaint = _pick(fitting if rng.random() < HINT_SHARE else ANY_COMPLAINT, rng)
    person = _pick(("F with", "M with", "Patient with"), rng)
    fields = {
        "indication": (0.85, f"{person} {complaint}."),
        "comparison": (0.35, _pick(("None.", "Chest radiograph from the prior day."), rng)),
        "history": (0.4, _pick(HISTORIES, rng)),
        "technique": (
            0.4,
            "Portable view of the chest." if portable else "Frontal view of the chest.",
        ),
    }
    return {name: text for name, (share, text) in fields.items() if rng.random() < share}


def is_portable(findings: tuple[Finding, ...], rng: Generator) -> bool:
    """Portable pictures are a little more common with tubes and edema."""
    ill = any(finding.name in ("tube_or_line", "edema") for finding in findings)
    return bool(rng.random() < (0.5 if ill else 0.35))


def _pick(options, rng: Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _statements(findings: tuple[Finding, ...], rng: Generator, more: bool) -> list[str]:
    """Return one sentence per finding; findings on both sides may share one."""
    waiting = {finding.name: finding for finding in findings}
    sentences = []
    for kind, templates in BOTH.items():
        pair = [waiting.get(f"{side}_{kind}") for side in ("left", "right")]
        if all(pair) and rng.random() < 0.6:
            sentences.append(_fill(_pick(templates, rng), pair[0], pair[1]))
            for finding in pair:
                del waiting[finding.name]
    for finding in waiting.values():
        key = finding.kind if finding.name == "tube_or_line" else finding.name
        kind = key.removeprefix(f"{finding.side}_")
        templates = POSITIVE[kind] + paraphrase.POSITIVE[kind] * more
        sentences.append(_fill(_pick(templates, rng), finding))
    return sentences


def _fill(template: str, finding: Finding, other: Finding | None = None) -> str:
    return template.format(
        size=finding.size,
        Size=finding.size.capitalize(),
        side=finding.side,
        Side=finding.side.capitalize(),
        zone=finding.zone,
        adverb=ADVERB.get(finding.size, ""),
        leads=LEADS.get(finding.kind, ""),
        other=(other.size or other.zone) if other else "",
    )


def _negatives(names: set[str], rng: Generator, more: bool) -> list[str]:
    """Return statements about what is absent, most useful first (the last are dropped first)."""
    absent = [kind for kind in ABSENT if not any(name.endswith(kind) for name in names)]
    style = int(rng.integers(2))
    terms = [ABSENT[kind][style] for kind in absent]
    sentences = [_none_of(terms, rng)] if terms else []
    if "cardiomegaly" not in names and rng.random() < 0.85:
        sentences.insert(int(rng.integers(2)), _pick(NORMAL + paraphrase.NORMAL * more, rng))
    if rng.random() < 0.4:
        sentences.append(_pick(ALWAYS, rng))
    return sentences


def _none_of(terms: list[str], rng: Generator) -> str:
    listed = terms[0]
    if len(terms) > 1:
        comma = "," if len(terms) > 2 else ""
        listed = f"{', '.join(terms[:-1])}{comma} or {terms[-1]}"
    patterns = ("No {}.", "There is no {}.", "No evidence of {}.", "No {} is seen.")
    return _pick(patterns, rng).format(listed)
