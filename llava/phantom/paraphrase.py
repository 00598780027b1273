"""Further phrasings of what a phantom's report states, for the hard corpus.

Read by `language`, in the same form as its own tables. Each names the finding in words that
`llava.phantom.findings` reads, in an order or a voice that the usual ones do not have.
"""

from __future__ import annotations

NORMAL = (
    "Cardiomediastinal contours are unremarkable.",
    "The heart is not enlarged.",
)
NORMAL_LUNGS = (
    "No abnormality is seen in either lung.",
    "The lung fields appear clear.",
)
POSITIVE = {
    "cardiomegaly": (
        "The heart is {adverb} enlarged.",
        "Cardiomegaly, {size} in degree.",
        "The cardiac silhouette shows {size} enlargement.",
    ),
    "effusion": (
        "The {side} costophrenic angle is blunted by a {size} effusion.",
        "On the {side} there is a {size} pleural effusion.",
        "Layering {side} pleural effusion, {size} in size.",
    ),
    "pneumothorax": (
        "On the {side} there is a {size} pneumothorax.",
        "{Side} pneumothorax, {size} in size.",
        "Air in the {side} pleural space, a {size} pneumothorax.",
    ),
    "consolidation": (
        "The {side} {zone} lung shows a focal consolidation.",
        "Patchy airspace opacity projects over the {side} {zone} lung.",
        "An area of consolidation occupies the {side} {zone} lung.",
    ),
    "edema": (
        "Findings are in keeping with {size} pulmonary edema.",
        "The pulmonary vessels are indistinct, consistent with {size} edema.",
        "Perihilar haze reflects {size} pulmonary edema.",
    ),
    "atelectasis": (
        "Streaky atelectasis crosses the {side} {zone} lung.",
        "Band of atelectasis in the {side} {zone} lung.",
        "The {side} {zone} lung shows subsegmental atelectasis.",
    ),
    "nodule": (
        "A small nodule projects over the {side} {zone} lung.",
        "Rounded nodule, {side} {zone} lung.",
        "The {side} {zone} lung contains a solitary nodule.",
    ),
    "pacemaker": (
        "Pacemaker on the {side} with {leads}.",
        "The {side} chest carries a pacemaker.",
    ),
    "endotracheal": ("The patient is intubated, with an endotracheal tube in place.",),
    "enteric": ("An orogastric tube ends in the stomach.",),
    "central": ("The central venous catheter ends in the superior vena cava.",),
    "picc": ("A PICC enters from the {side}.",),
}
