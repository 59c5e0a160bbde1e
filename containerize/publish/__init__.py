"""An image given to others: registries, evidence, bundles."""
