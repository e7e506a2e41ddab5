"""Model packs: a model with its licence and its facts in one signed file, carried by hand."""
