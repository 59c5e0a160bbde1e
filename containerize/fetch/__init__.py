"""The only code that uses the network: mirrors and the input cache."""
