"""How many servers of a group may be out of service at a time, and how many may exist beyond `replicas`."""

from quiesce.model.resources import ServerGroup


def max_unavailable(group: ServerGroup) -> int:
    """As a count; a percentage is rounded down, but to at least 1."""
    value = group.spec.strategy.rolling_update.max_unavailable
    if isinstance(value, int):
        return value
    return max(1, group.spec.replicas * int(value.removesuffix("%")) // 100)


def max_surge(group: ServerGroup) -> int:
    """As a count; a percentage is rounded up, as in a Deployment. More than `replicas` would be of no use."""
    value = group.spec.strategy.rolling_update.max_surge
    if isinstance(value, int):
        return min(value, group.spec.replicas)
    return -(-group.spec.replicas * int(value.removesuffix("%")) // 100)
