"""Reads the files that deploy task_updates, checks the manifests with the schemas of Kubernetes, and prints all as JSON."""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

# Whatever is in there has to be the same in all releases that are looked after.
VERSIONS = ("1.30", "1.33")

directory = pathlib.Path(sys.argv[1])
manifests = []
for path in sorted((directory / "k8s").glob("*.yaml")):
    for manifest in yaml.safe_load_all(path.read_text()):
        for version in VERSIONS:
            # `strict` refuses fields that there are not.
            kubernetes_validate.validate(manifest, version, strict=True)
        manifests.append(manifest)
compose = yaml.safe_load((directory / "docker-compose.yml").read_text())
print(json.dumps({"compose": compose, "manifests": manifests}), flush=True)
