"""Configurations of rewards and services: YAML files, mappings and OmegaConf objects.

`load` reads and checks one; `ServiceConfig.build` makes the service.
"""

from guerdon.config.service_config import ServiceConfig, load

__all__ = ["ServiceConfig", "load"]
