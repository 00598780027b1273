"""How the language model writes: the passes of a decoding loop, and what they reuse."""
