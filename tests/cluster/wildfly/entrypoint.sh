#!/bin/sh
# Starts the server with the management user of the mounted Secret (or of the environment); arguments go to standalone.sh.
set -eu

secret=/etc/quiesce-admin
username=${QUIESCE_ADMIN_USERNAME:-}
password=${QUIESCE_ADMIN_PASSWORD:-}
if [ -r "$secret/username" ]; then
    username=$(cat "$secret/username")
    password=$(cat "$secret/password")
fi
if [ -n "$username" ]; then
    # What add-user.sh writes, without a second JVM.
    digest=$(printf '%s:ManagementRealm:%s' "$username" "$password" | md5sum | cut -d ' ' -f 1)
    printf '%s=%s\n' "$username" "$digest" >>"$JBOSS_HOME/standalone/configuration/mgmt-users.properties"
fi
unset QUIESCE_ADMIN_PASSWORD password

if [ -n "${QUIESCE_FAULTY_PROXY:-}" ]; then
    java -Xmx32m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dsun.net.httpserver.nodelay=true \
        -cp "$JBOSS_HOME/classes.jar" dev.quiesce.faults.FaultyProxy &
fi

# A transaction node id has at most 23 bytes; the end of a pod's name is the part that differs.
node=$(hostname | tail -c 24)
export JAVA_OPTS="$JAVA_OPTS ${JAVA_OPTS_APPEND:-}"
exec "$JBOSS_HOME/bin/standalone.sh" -b 0.0.0.0 -bmanagement=0.0.0.0 -Djboss.tx.node.id="$node" "$@"
