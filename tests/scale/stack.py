"""A stack file, until `manifest swarm` prints it."""

import json


def stack(image, *, replicas=3, drain=5, interval="1s", monitor="5s", env=None):
    update = {
        "parallelism": 1,
        "order": "start-first",
        "failure_action": "rollback",
        "monitor": monitor,
        "max_failure_ratio": 0,
        "delay": "0s",
    }
    rollback = update | {"failure_action": "pause"}
    return json.dumps(
        {
            "version": "3.9",
            "services": {
                "shop": {
                    "image": image,
                    "read_only": True,
                    "cap_drop": ["ALL"],
                    "user": "65532:65532",
                    "volumes": [
                        {"type": "tmpfs", "target": "/tmp", "tmpfs": {"size": 64 << 20}}
                    ],
                    "environment": {
                        "SERVED_DRAIN_DELAY": str(drain),
                        "SERVED_GRACE_PERIOD": str(25 + drain),
                        "SERVED_READY_PATH": "/ready",
                        **(env or {}),
                    },
                    "healthcheck": {
                        "test": [
                            "CMD",
                            "python3",
                            "-I",
                            "-S",
                            "/usr/local/lib/served/served/healthcheck.py",
                        ],
                        "interval": interval,
                        "timeout": "3s",
                        "retries": 3,
                        "start_period": "30s",
                    },
                    "stop_grace_period": f"{30 + drain}s",
                    "deploy": {
                        "replicas": replicas,
                        "endpoint_mode": "dnsrr",
                        "update_config": update,
                        "rollback_config": rollback,
                        "restart_policy": {"condition": "any", "delay": "1s"},
                        "resources": {"limits": {"memory": "128M", "pids": 64}},
                    },
                }
            },
        }
    )
