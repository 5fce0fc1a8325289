"""Files and pages to text: HTML, Markdown, reStructuredText, plain text, source code, PDF, and what users register."""

from headrace.formats.text.extracting import extract
from headrace.formats.text.states import Extracted, Given

__all__ = ["Extracted", "Given", "extract"]
