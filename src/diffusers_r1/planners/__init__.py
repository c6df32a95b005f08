"""What can plan. Nothing is imported here: a planner behind an address needs no torch, a local one does."""
