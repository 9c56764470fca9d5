"""What blocked calls wait for, at the end of a trace: `graph.py` finds it, `sentences.py` describes it."""
