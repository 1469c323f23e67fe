"""From a grid to a full store: plan what is missing, launch it, look again."""
