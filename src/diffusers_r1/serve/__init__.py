"""A server that speaks OpenAI's protocol: whatever edits pictures by an address gets a planner in front of its editor."""
