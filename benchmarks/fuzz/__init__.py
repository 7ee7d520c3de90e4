"""Random mistakes, and what becomes of them: a run, one sentence, a traceback, or silence."""
