"""The look and the small parts that the result page and the drafting page share."""

from pathlib import Path

STYLE = Path(__file__).parent / "theme.css"
"""Colours (light and dark), type, controls, and how a report's tokens and sentences look."""

PARTS = Path(__file__).parent / "parts.js"
"""An ES module of functions that make elements; text is only ever set as text."""
