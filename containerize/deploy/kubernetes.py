"""Manifests for `kubectl apply`: Deployments, a Service, a PodDisruptionBudget."""

from __future__ import annotations

from collections.abc import Sequence

from containerize.deploy.workload import Workload


def manifests(workloads: Sequence[Workload]) -> str:
    """The objects of these workloads, as YAML documents with comments.

    Variables come from the Secret `NAME-environment`, which is not among them.
    """
    raise NotImplementedError
