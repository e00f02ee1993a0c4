{{- define "tagrelay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name if it contains the chart's, else both. 57 characters, because some names get a suffix. */}}
{{- define "tagrelay.fullname" -}}
{{- $name := include "tagrelay.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 57 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 57 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 57 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tagrelay.selector" -}}
app.kubernetes.io/name: {{ include "tagrelay.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "tagrelay.labels" -}}
{{ include "tagrelay.commonLabels" . }}
{{ include "tagrelay.selector" . }}
{{- end }}

{{/* Labels of objects that the Service must not select. */}}
{{- define "tagrelay.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tagrelay.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "tagrelay.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tagrelay.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Where a Secret of `secrets.files` is mounted. */}}
{{- define "tagrelay.secretPath" -}}
{{- default (printf "/run/secrets/%s" .name) .mountPath }}
{{- end }}

{{/* Environment, mounts and volumes are those of the pod and of the Job that checks new settings. */}}
{{- define "tagrelay.env" -}}
{{- range .Values.secrets.env }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ .key | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tagrelay.volumeMounts" -}}
- name: config
  mountPath: /etc/tagrelay
  readOnly: true
{{- range $index, $secret := .Values.secrets.files }}
- name: secrets-{{ $index }}
  mountPath: {{ include "tagrelay.secretPath" $secret }}
  readOnly: true
{{- end }}
{{- if .Values.tls.secretName }}
- name: tls
  mountPath: /run/tls
  readOnly: true
{{- end }}
- name: data
  mountPath: /var/lib/tagrelay
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Arguments: the chart's context, the ConfigMap's name, the source of the volume `data`. */}}
{{- define "tagrelay.volumes" -}}
{{- $values := .context.Values -}}
- name: config
  configMap:
    name: {{ .configMap | quote }}
{{- range $index, $secret := $values.secrets.files }}
- name: secrets-{{ $index }}
  secret:
    secretName: {{ $secret.name | quote }}
    # 0440: readable by the group of the pod, fsGroup.
    defaultMode: 288
{{- end }}
{{- with $values.tls.secretName }}
- name: tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 288
{{- end }}
- name: data
  {{- toYaml .data | nindent 2 }}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
