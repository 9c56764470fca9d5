"""Starters: the programs that `bothends new` writes, by language; `writing.py` chooses and fills them in."""
