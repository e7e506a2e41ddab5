"""Pure words of the product: standard library only, no input or output."""
