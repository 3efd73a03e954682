"""Parts of the demo that stand in for what it would otherwise need an account for: a model server with a script."""
