"""The weights that come with the package: a folder each beside this file, found by [`~names.resolve`]."""

# The components that plan: carrying out a plan takes none of them.
AGENTS = ("planner", "processor", "sequencer", "sequencer_processor")
