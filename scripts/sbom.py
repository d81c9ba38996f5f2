#!/usr/bin/env python3
"""Writes what Myelin is made of, as CycloneDX 1.5 JSON: every crate with version, licence, checksum, origin.

    scripts/sbom.py [TARGET] > myelin.cdx.json

TARGET (a Rust target such as aarch64-unknown-linux-musl) leaves out what other platforms need. Only crates that
end up in the program are listed: neither tests' nor build scripts' dependencies. The same sources give the same
file, byte for byte.
"""

import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", str(TOP / "Cargo.toml")]
    if target:
        command += ["--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def shipped(resolve):
    """Ids of the packages that are linked in, each with those that it needs."""
    nodes = {node["id"]: node for node in resolve["nodes"]}
    found, waiting = {}, [resolve["root"]]
    while waiting:
        name = waiting.pop()
        if name not in found:
            normal = [
                dependency["pkg"] for dependency in nodes[name]["deps"]
                if any(kind["kind"] is None for kind in dependency["dep_kinds"])
            ]
            found[name] = sorted(normal)
            waiting += normal
    return found


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums, kind="library"):
    result = {"type": kind, "bom-ref": purl(package), "name": package["name"], "version": package["version"]}
    if package.get("description"):
        result["description"] = " ".join(package["description"].split())
    if package.get("license"):
        result["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        result["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    result["purl"] = purl(package)
    if package.get("repository"):
        result["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return result


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    data = metadata(sys.argv[1] if len(sys.argv) == 2 else None)
    lock = (TOP / "Cargo.lock").read_text()
    checksums = {
        (package["name"], package["version"]): package.get("checksum") for package in tomllib.loads(lock)["package"]
    }
    packages = {package["id"]: package for package in data["packages"]}
    needed = shipped(data["resolve"])
    root = data["resolve"]["root"]
    libraries = sorted((name for name in needed if name != root), key=lambda name: purl(packages[name]))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, lock + ' '.join(sys.argv[1:]))}",
        "version": 1,
        "metadata": {"component": component(packages[root], checksums, "application")},
        "components": [component(packages[name], checksums) for name in libraries],
        "dependencies": [
            {"ref": purl(packages[name]), "dependsOn": sorted(purl(packages[other]) for other in needed[name])}
            for name in [root, *libraries]
        ],
    }
    json.dump(document, sys.stdout, indent=2)
    print()


main()
