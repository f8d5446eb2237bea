"""Reads the files that deploy an example, checks the manifests with the schemas of Kubernetes, and prints all as JSON."""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

# What is in the manifests is the same in all releases that are looked after.
VERSIONS = ("1.30", "1.33")

directory = pathlib.Path(sys.argv[1])
manifests = []
for path in sorted((directory / "k8s").glob("*.yaml")):
    for manifest in yaml.safe_load_all(path.read_text()):
        for version in VERSIONS:
            # `strict` refuses fields that there are not.
            kubernetes_validate.validate(manifest, version, strict=True)
        manifests.append(manifest)
compose = directory / "docker-compose.yml"
services = yaml.safe_load(compose.read_text()) if compose.exists() else None
print(json.dumps({"compose": services, "manifests": manifests}), flush=True)
