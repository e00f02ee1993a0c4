{{/* Fails with a message if values contradict each other or the settings. Prints nothing. */}}
{{- define "tagrelay.validate" -}}
{{- $values := .Values }}
{{- if and $values.settings $values.existingConfigMap }}
{{- fail "settings and existingConfigMap exclude each other: set one of them" }}
{{- end }}
{{- if not (or $values.settings $values.existingConfigMap) }}
{{- fail "there are no settings: use --set-file settings=tagrelay.toml, or existingConfigMap" }}
{{- end }}
{{- if gt (int $values.replicas) 1 }}
{{- fail (printf "replicas is %d, but store.kind is sqlite: an SQLite file has one owner. Set replicas to 1" (int $values.replicas)) }}
{{- end }}
{{- if and $values.restartOnChange $values.existingConfigMap }}
{{- fail "restartOnChange needs settings: the chart cannot see changes of existingConfigMap" }}
{{- end }}
{{- if and $values.ingress.enabled $values.gateway.enabled }}
{{- fail "ingress.enabled and gateway.enabled exclude each other: set one of them" }}
{{- end }}
{{- if and $values.ingress.enabled (not $values.ingress.host) }}
{{- fail "ingress.enabled needs ingress.host" }}
{{- end }}
{{- if and $values.gateway.enabled (not $values.gateway.parentRefs) }}
{{- fail "gateway.enabled needs gateway.parentRefs: the gateway that has the route" }}
{{- end }}
{{- if and $values.persistence.existingClaim (not $values.persistence.enabled) }}
{{- fail "persistence.existingClaim is set, but persistence.enabled is false" }}
{{- end }}
{{- if eq (int $values.service.port) (int $values.service.operationsPort) }}
{{- fail "service.port and service.operationsPort are equal: metrics would be reachable through the ingress" }}
{{- end }}
{{- $paths := list "/etc/tagrelay" "/var/lib/tagrelay" "/tmp" "/run/tls" }}
{{- range $values.secrets.files }}
{{- $path := include "tagrelay.secretPath" . }}
{{- if has $path $paths }}
{{- fail (printf "secrets.files: %s is mounted twice" $path) }}
{{- end }}
{{- $paths = append $paths $path }}
{{- end }}
{{- if $values.settings }}
{{- include "tagrelay.validateSettings" . }}
{{- end }}
{{- end }}

{{/* Compares the text of the settings with the pod. The Job before an upgrade checks everything else. */}}
{{- define "tagrelay.validateSettings" -}}
{{- $values := .Values }}
{{- $settings := regexReplaceAll "(?m)^[ \t]*#.*$" $values.settings "" }}
{{- range $key, $port := dict "listen" (int $values.service.port) "operations_listen" (int $values.service.operationsPort) }}
{{- if not (regexMatch (printf "(^|[^A-Za-z0-9_])%s[ \t]*=[ \t]*[\"'](0\\.0\\.0\\.0|\\[::\\]):%d[\"']" $key $port) $settings) }}
{{- fail (printf "the settings must have %s = \"0.0.0.0:%d\" in [server]: the Service connects to this port of the pod" $key $port) }}
{{- end }}
{{- end }}
{{- $variables := list }}
{{- range concat (default list $values.secrets.env) (default list $values.extraEnv) }}
{{- $variables = append $variables .name }}
{{- end }}
{{- range regexFindAll "\\{[ \t]*env[ \t]*=[ \t]*[\"'][^\"']+[\"']" $settings -1 }}
{{- $name := regexReplaceAll "^.*=[ \t]*[\"']([^\"']+)[\"']$" . "${1}" }}
{{- if not (has $name $variables) }}
{{- fail (printf "the settings have { env = \"%s\" }, but neither secrets.env nor extraEnv has this name" $name) }}
{{- end }}
{{- end }}
{{- $folders := list }}
{{- range $values.secrets.files }}
{{- $folders = append $folders (printf "%s/" (include "tagrelay.secretPath" .)) }}
{{- end }}
{{- range $values.extraVolumeMounts }}
{{- $folders = append $folders .mountPath }}
{{- end }}
{{- range regexFindAll "[\"']/run/secrets/[^\"']+[\"']" $settings -1 }}
{{- $file := . | trimAll "\"'" }}
{{- $found := false }}
{{- range $folders }}
{{- if hasPrefix . $file }}
{{- $found = true }}
{{- end }}
{{- end }}
{{- if not $found }}
{{- fail (printf "the settings read %s, but secrets.files mounts no Secret there" $file) }}
{{- end }}
{{- end }}
{{- $reads := contains "/run/tls/" $settings }}
{{- if and $values.tls.secretName (not $reads) }}
{{- fail "tls.secretName is set, but the settings do not use it: tls = { certificate = \"/run/tls/tls.crt\", key = { file = \"/run/tls/tls.key\" } } in [server]" }}
{{- end }}
{{- if and $reads (not $values.tls.secretName) }}
{{- fail "the settings read /run/tls, but tls.secretName is empty" }}
{{- end }}
{{- end }}
