"""One prompt of 77 tokens through CLIP-L."""
