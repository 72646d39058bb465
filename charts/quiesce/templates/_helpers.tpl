{{/* What the labels say that this is. Room for `-cleanup` is left: a label's value has 63 characters at most. */}}
{{- define "quiesce.name" -}}
{{- .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{/*
The name of everything in the release's namespace, with room for what is added to it (`-cleanup`): a Job's name is a
label of its pods. A release's name may have dots, which don't belong into a pod's hostname.
*/}}
{{- define "quiesce.fullname" -}}
{{- $name := include "quiesce.name" . }}
{{- $own := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $own | replace "." "-" | trunc 55 | trimSuffix "-" }}
{{- end }}

{{/*
The name of what stands where other releases are too: in no namespace, or in those that are looked after. Releases that
look after namespaces of their own may have the same name in two namespaces. Neither part has a dot, so no two releases
come to the same name. Of two that look after all namespaces, Helm refuses the second for this name.
*/}}
{{- define "quiesce.clusterName" -}}
{{- with .Values.watchNamespaces }}{{ $.Release.Namespace }}.{{ end }}{{ include "quiesce.fullname" . }}
{{- end }}

{{- define "quiesce.image" -}}
{{- $repository := required "image.repository: say where the operator's image is, with its registry; docs/install.md says how to build it" .Values.image.repository }}
{{- with .Values.image.digest }}
{{- $repository }}@{{ . }}
{{- else }}
{{- $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* What the operator and the hook of uninstall are told of the world. */}}
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
As Pod Security `restricted` wants it. The user is the image's, by its number, which is enough for runAsNonRoot; where
the platform gives each namespace users of its own, it sets another.
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

{{/* On nodes of their own, as far as there are any: a node that is lost then takes one replica with it. */}}
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

{{/* Of the hook: the Deployment's selector must not match its pod. */}}
{{- define "quiesce.cleanupLabels" -}}
app.kubernetes.io/name: {{ include "quiesce.name" . }}-cleanup
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{ include "quiesce.commonLabels" . }}
{{- end }}

{{/* What cluster/kube.py and the watches of handlers.py ask for, and no more: in every namespace, or in those named. */}}
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
# Owner references with blockOwnerDeletion need it where OwnerReferencesPermissionEnforcement is on.
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
# Whether a new pod would fit in place of the one that it replaces.
- apiGroups: [""]
  resources: [resourcequotas]
  verbs: [list]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# Services of users are looked at while a drain waits for one; those of groups are kept.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# The kubelet's, which say that it restarts a container in place.
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
