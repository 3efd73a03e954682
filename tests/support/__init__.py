"""What tests share: factories, waiting, real servers."""
