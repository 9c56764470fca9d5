"""The starter programs of `bothends new`, as templates by language; `writing.py` fills them in."""
