"""The verbs that give an image to others, beside those of `tasks`."""

from __future__ import annotations
