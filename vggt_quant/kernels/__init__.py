"""Operations that formats call. `torch_reference` defines the right answer, and each kernel has its plain-PyTorch twin there."""
