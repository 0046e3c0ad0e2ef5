"""Run directories, the product's memory: schemas, manifest, commit protocol, verification."""
