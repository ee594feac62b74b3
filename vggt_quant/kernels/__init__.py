"""Operations that formats call. `reference` defines the right answer; a faster kernel stands beside its twin."""
