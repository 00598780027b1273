"""Phantom: a synthetic chest-radiograph corpus whose reports depend on the pictures.

A SCHEMATIC TEST CORPUS. The pictures are drawings and the reports are sentences from templates;
no patient, no clinical claim. It exists so that the whole pipeline can be trained, tested and
compared where no credentialed data may go: a model that does not look at the picture cannot write
the report.

Flow: `case` draws the findings by lot -> `anatomy` and `lesions` paint them, `language` words them
-> `corpus` writes MIMIC-CXR's own layout (`python -m llava.phantom --output DIR`).
"""

from llava.phantom.case import FINDINGS, Finding, sample_findings

__all__ = ["FINDINGS", "Finding", "sample_findings"]
