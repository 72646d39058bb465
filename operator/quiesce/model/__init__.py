"""What there is: frozen types of the objects in the cluster, of what servers say, and of plans."""
