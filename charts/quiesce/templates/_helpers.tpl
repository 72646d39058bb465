{{/* The name in labels. It leaves room for `-cleanup`: a label's value can have at most 63 characters. */}}
{{- define "quiesce.name" -}}
{{- .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{/*
The name of everything in the release's namespace, with room for the suffix `-cleanup`: a Job's name is also a label of
its pods. A release's name can contain dots, which a pod's hostname can't.
*/}}
{{- define "quiesce.fullname" -}}
{{- $name := include "quiesce.name" . }}
{{- $own := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $own | replace "." "-" | trunc 55 | trimSuffix "-" }}
{{- end }}

{{/*
The name of objects that could collide with those of other releases: cluster-scoped ones, and those in the managed
namespaces. Two releases that manage different namespaces can have the same name. Neither part contains a dot, so no two
such releases get the same name here. Of two releases that manage all namespaces, Helm rejects the second because of it.
*/}}
{{- define "quiesce.clusterName" -}}
{{- with .Values.watchNamespaces }}{{ $.Release.Namespace }}.{{ end }}{{ include "quiesce.fullname" . }}
{{- end }}

{{- define "quiesce.image" -}}
{{- $repository := required "image.repository: set the location of the operator's image, including its registry; docs/install.md describes how to build it" .Values.image.repository }}
{{- with .Values.image.digest }}
{{- $repository }}@{{ . }}
{{- else }}
{{- $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The arguments of the operator and of the pre-delete hook. */}}
{{- define "quiesce.args" -}}
- --log-level={{ .Values.logLevel }}
- --lease={{ include "quiesce.fullname" . }}
{{- range .Values.watchNamespaces }}
- --namespace={{ . }}
{{- end }}
{{- end }}

{{- define "quiesce.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
For Pod Security `restricted`. The image's user is numeric, which is enough for runAsNonRoot; a platform that assigns
users to each namespace can set another.
*/}}
{{- define "quiesce.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "quiesce.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "quiesce.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* On different nodes if possible, so that the loss of a node affects only one replica. */}}
{{- define "quiesce.spread" -}}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- else if gt (int .Values.replicas) 1 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "quiesce.selector" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{- define "quiesce.selector" -}}
app.kubernetes.io/name: {{ include "quiesce.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "quiesce.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- define "quiesce.labels" -}}
{{ include "quiesce.selector" . }}
{{ include "quiesce.commonLabels" . }}
{{- end }}

{{/* Labels of the pre-delete hook: the Deployment's selector must not match its pod. */}}
{{- define "quiesce.cleanupLabels" -}}
app.kubernetes.io/name: {{ include "quiesce.name" . }}-cleanup
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{ include "quiesce.commonLabels" . }}
{{- end }}

{{/* The requests of cluster/kube.py and the watches of handlers.py, and no more: in all namespaces, or the named ones. */}}
{{- define "quiesce.rules" -}}
- apiGroups: [quiesce.dev]
  resources: [appservers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [quiesce.dev]
  resources: [servergroups]
  verbs: [get, list, watch, patch]
- apiGroups: [quiesce.dev]
  resources: [appservers/status, servergroups/status]
  verbs: [patch]
# Owner references with blockOwnerDeletion need this if OwnerReferencesPermissionEnforcement is enabled.
- apiGroups: [quiesce.dev]
  resources: [appservers/finalizers, servergroups/finalizers]
  verbs: [update]
# A pod that has lost its owner is adopted by a patch: the status subresource doesn't take owner references.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
# To check whether a new pod would fit in place of the one that it replaces.
- apiGroups: [""]
  resources: [resourcequotas]
  verbs: [list]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# Users' Services are read while a drain waits for one; those of groups are maintained.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# The kubelet's Events report that it restarts a container in place.
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
