"""Two small backbones that stand in for the public checkpoints, in their published formats.

    python -m llava.phantom.backbones vision   --data-path D --image-folder I --output V
    python -m llava.phantom.backbones language --data-path D --image-folder I --output L

`vision`: a SigLIP, both halves, trained with SigLIP's own loss between images and sentences of
their reports. `language`: an `a2d-qwen3` masked-diffusion Qwen3 with a byte-level BPE in Qwen's
chat format, trained to unmask reports without seeing images. They let the whole recipe run where
no model hub is reached, and are good for nothing else.
"""
