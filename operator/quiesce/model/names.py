"""Names in the cluster that users, other programs and earlier versions of the operator rely on."""

GROUP = "quiesce.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# Annotations that users set.
SUSPEND = f"{GROUP}/suspend"
SUSPEND_REASON = f"{GROUP}/suspend-reason"
RESTART = f"{GROUP}/restart"
FORCE = f"{GROUP}/force"
SPECIFIED_DELETE = f"{GROUP}/specified-delete"

# Labels and annotations that the operator sets.
MANAGED = f"{GROUP}/managed"
SERVER = f"{GROUP}/server"
SERVER_GROUP = f"{GROUP}/group"
TEMPLATE_HASH = f"{GROUP}/template-hash"
ADMIN_PORT = f"{GROUP}/admin-port"
ADMIN_SECRET = f"{GROUP}/admin-secret"
METADATA_HASH = f"{GROUP}/metadata-hash"
SPEC_HASH = f"{GROUP}/spec-hash"
HOLD_SECONDS = f"{GROUP}/hold-seconds"
OPENED_AT = f"{GROUP}/opened-at"
SERVED_CONTAINER = f"{GROUP}/served-container"
SURGE = f"{GROUP}/surge"
RESTARTED_AT = f"{GROUP}/restarted-at"

# The pod's readiness gate: a pod is in its Services' endpoints only while this condition is True. While it is, the pod
# has a label of the same name, for load balancers that target pods regardless of their conditions.
GATE = f"{GROUP}/serving"
FINALIZER = f"{GROUP}/drain"
MANAGER = "quiesce"
