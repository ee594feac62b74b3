"""Operations of formats and the fast engine. `torch_reference` defines each one's result in plain PyTorch: its twin."""
