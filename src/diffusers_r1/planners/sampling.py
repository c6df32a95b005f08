"""How `generate` is told to draw nothing."""

GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
