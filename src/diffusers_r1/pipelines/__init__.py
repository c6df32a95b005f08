"""The pipeline: three agents behind one call."""
