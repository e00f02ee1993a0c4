"""Starts kubernetes-validate, faster: it reads megabytes of schemas again for each object, and parses YAML in Python."""

import functools

import kubernetes_validate.utils as utils
import yaml
from kubernetes_validate.__main__ import main

utils.schema_contents = functools.cache(utils.schema_contents)
if yaml.__with_libyaml__:
    yaml.SafeLoader = yaml.CSafeLoader
main()
