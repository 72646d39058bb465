{{/* The name of everything in the release's namespace. */}}
{{- define "quiesce.fullname" -}}
{{- if contains "quiesce" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-quiesce{{ end }}
{{- end }}

{{/*
The name of what belongs to no namespace. Two releases that look after namespaces of their own may have the same name in
two namespaces; of two that look after all, Helm refuses the second for this name.
*/}}
{{- define "quiesce.clusterName" -}}
{{- include "quiesce.fullname" . }}{{ with .Values.watchNamespaces }}-{{ $.Release.Namespace }}{{ end }}
{{- end }}

{{- define "quiesce.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
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
{{- end }}

{{/* As Pod Security `restricted` wants it. */}}
{{- define "quiesce.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
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

{{- define "quiesce.selector" -}}
app.kubernetes.io/name: quiesce
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "quiesce.commonLabels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "quiesce.labels" -}}
{{ include "quiesce.selector" . }}
{{ include "quiesce.commonLabels" . }}
{{- end }}

{{/* Of the hook: the Deployment's selector must not match its pod. */}}
{{- define "quiesce.cleanupLabels" -}}
app.kubernetes.io/name: quiesce-cleanup
app.kubernetes.io/instance: {{ .Release.Name }}
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
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
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
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
