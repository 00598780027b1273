"""How the language model writes: the passes behind the decoding loop, and what they reuse."""
