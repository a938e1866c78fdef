"""Hydra's config files: `config.yaml` and one folder a group. Types and common values stand in `tasks/configs.py`."""
