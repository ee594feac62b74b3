"""Operations that formats call. `torch_reference` has a plain-PyTorch twin of each, which defines the right answer."""
