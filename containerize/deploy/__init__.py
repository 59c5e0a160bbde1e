"""Many machines: what an orchestrator is told, and a release through Docker Swarm."""
