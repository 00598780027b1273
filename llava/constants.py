"""Names and texts that more than one part of the project must agree on."""

IGNORE_INDEX = -100
"""Label of a position that is not a target."""

IMAGE_TOKEN_INDEX = -200
"""Stands for one image among token ids; replaced by the image's N embeddings before the model."""

IMAGE_PLACEHOLDER = "<image>"
"""Stands for one image in text."""

MASK_TOKEN = "<|mask|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

MODEL_TYPE = "llava_qwen_diffusion"
"""Of a checkpoint of this project, in its config.json."""

SYSTEM_PROMPT = (
    "You are an assistant in radiology, responsible for analyzing medical imaging studies and "
    "generating detailed, structured, and accurate radiology reports."
)
QUESTION = "Provide a detailed description of the findings in the radiology image."
ASSISTANT_PROMPT = f"{IMAGE_PLACEHOLDER}\n{QUESTION}"
"""The question about one image; for several, each comes before QUESTION with a word of its role."""
CLINICAL_PROMPT = "Following clinical context:"
CLINICAL_FIELDS = ("indication", "comparison", "history", "technique")
PRIOR_REPORT = "Prior report:"
"""Label of the last field of the context: the report of the study before."""
