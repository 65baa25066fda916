"""What only a GPU can show: ``pytest -m gpu tests/gpu``, minutes. No other test runs on one."""
